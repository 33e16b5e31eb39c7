"""Words behind `--` against what a module declares."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError
from deephpc.serve.module_arguments import check_arguments, parse_arguments
from deephpc.serve.module_description import Argument
from tests.fakes.samples import A_TENTH

DECLARED = (
    Argument(name="epochs", type="int", default=10, description="How often to see each image."),
    Argument(name="learning_rate", type="float", default=0.1),
    Argument(name="shuffle", type="bool", default=True),
    Argument(name="network", type="str", choices=("resnet18", "resnet50")),
    Argument(name="classes", type="list", default=[]),
    Argument(name="sizes", type="list", default=[1, 2]),
    Argument(name="scales", type="list", items="number", default=[1, 2]),
    Argument(name="units", type="int", min=1, max=4096),
    Argument(name="augmentation", type="dict"),
    Argument(name="weights", type="file"),
    Argument(name="note", type="str"),
    Argument(name="seed", type="int"),
    Argument(name="colour", type="color"),
)
NAMES = [argument.name for argument in DECLARED]


def parsed(*words: str) -> dict[str, object]:
    return dict(parse_arguments(words, DECLARED))


def refused(*words: str, declared: tuple[Argument, ...] = DECLARED) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_arguments(words, declared)
    return caught.value


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--epochs", "40"], {"epochs": 40}),
        (["--epochs=40"], {"epochs": 40}),
        (["--seed", "-5"], {"seed": -5}),
        (["--learning-rate", "1e-3"], {"learning_rate": 0.001}),
        (["--learning_rate=.5"], {"learning_rate": 0.5}),
        (["--shuffle"], {"shuffle": True}),
        (["--shuffle", "No"], {"shuffle": False}),
        (["--no-shuffle", "--epochs=1"], {"shuffle": False, "epochs": 1}),
        (["--shuffle", "--epochs=1"], {"shuffle": True, "epochs": 1}),
        (["--shuffle=False"], {"shuffle": False}),
        (["--network", "resnet50"], {"network": "resnet50"}),
        (["--classes", "a b", "--classes", "c"], {"classes": ["a b", "c"]}),
        (["--classes", '["a", "b"]'], {"classes": ["a", "b"]}),
        (["--sizes", "3", "--sizes", "4"], {"sizes": [3, 4]}),
        (["--scales=3", "--scales=4.5"], {"scales": [3.0, 4.5]}),
        (["--augmentation", '{"flip": true}'], {"augmentation": {"flip": True}}),
        (["--note", ""], {"note": ""}),
        (["--note=--epochs"], {"note": "--epochs"}),
        (["--note", "null"], {"note": "null"}),
        (["--colour", "#fff"], {"colour": "#fff"}),
    ],
)
def test_arguments_are_understood_as_people_write_them(words: list[str], values: dict[str, object]) -> None:
    assert parsed(*words) == values


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--epoch", "4"], "no argument --epoch", "did you mean --epochs?"),
        (["--lerning-rate=4"], "no argument --lerning-rate", "did you mean --learning_rate?"),
        (["--zzz", "4"], "no argument --zzz", "it takes augmentation, classes"),
        (["--epochs", "many"], "--epochs: 'many' is not a whole number", "its default is 10"),
        (["--epochs", "4.5"], "'4.5' is not a whole number", "How often to see each image."),
        (["--epochs", "9" * 5000], "is not a whole number", ""),
        (["--epochs"], "--epochs has no value", "--epochs=VALUE"),
        (["--epochs", "--shuffle"], "--epochs has no value", ""),
        (["--epochs", "1", "--epochs", "2"], "--epochs is given 2 times", "once"),
        (["--learning-rate", "nan"], "not a finite number", ""),
        (["--shuffle", "perhaps"], "'perhaps' is not true or false", ""),
        (["--network", "resnet51"], "'resnet51' is not among its choices", "did you mean 'resnet5"),
        (["--augmentation", "flip"], "'flip' is not a JSON object", "key"),
        (["--classes", "[a"], "'[a' is not a JSON list", ""),
        (["--units", "0"], "--units: 0 is too small", "it is 1 or more"),
        (["--units", "9999"], "--units: 9999 is too large", "it is 4096 or less"),
        (["--sizes", "x"], "--sizes: 'x' is not a whole number", ""),
        (["40"], "'40' belongs to no argument", "--name value"),
        (["-e", "4"], "'-e' belongs to no argument", ""),
    ],
)
def test_a_mistake_is_named_with_the_way_out(words: list[str], message: str, hint: str) -> None:
    error = refused(*words)
    assert message in error.message
    assert hint in error.hint


def test_what_is_required_is_asked_for() -> None:
    declared = (Argument(name="data", type="file", required=True, description="The\n images."), *DECLARED)
    error = refused("--epochs=1", declared=declared)
    assert error.message == "the module needs --data"
    assert error.hint == "add --data=FILE (file: The images.)"


def test_a_module_without_arguments_says_so() -> None:
    assert refused("--epochs=1", declared=()).hint == "it takes no arguments"
    assert check_arguments((), ()) == ()


def test_everything_passes_where_nothing_is_known() -> None:
    words = ("--anything", "goes", "x", "--", "--y")
    assert check_arguments(words, None) == words


def test_paths_count_from_where_the_user_is() -> None:
    words = check_arguments(("--weights", "w.h5"), DECLARED, cwd=Path("/home/alice"))
    assert words == ("--weights=/home/alice/w.h5",)
    for address in ("https://example.org/w.h5", "s3://bucket/w.h5", "webdav://host/w"):
        with pytest.raises(InputError, match="is an address, not a file") as caught:
            check_arguments(("--weights", address), DECLARED, cwd=Path("/home/alice"))
        assert address in (caught.value.hint or "")


def test_an_argument_named_like_a_switched_off_flag_keeps_its_name() -> None:
    declared = (Argument(name="no_crop", type="bool"), Argument(name="crop", type="bool"))
    assert parse_arguments(["--no-crop"], declared) == {"no_crop": True}


@pytest.mark.parametrize(
    ("default", "written", "given"),
    [
        ('"resnet18"', "resnet50", '"resnet50"'),
        ('"resnet18"', '"resnet50"', '"resnet50"'),
        ("null", "resnet50", '"resnet50"'),
        ("null", "null", "null"),
        ("[1, 2]", "[3]", "[3]"),
        ("[1, 2]", '{"a": 1}', '{"a": 1}'),
        ("[1, 2]", "null", "null"),
        ("true", "False", "false"),
        ("true", "0", "0"),
        ("10", "12", "12"),
        ("plain", "text", "text"),
        ("[not json", "text", "text"),
    ],
)
def test_text_that_holds_json_is_given_as_json(default: str, written: str, given: str) -> None:
    declared = (Argument(name="x", type="str", default=default),)
    assert parse_arguments(["--x", written], declared) == {"x": given}


def test_a_bare_word_where_a_json_list_is_expected_is_refused() -> None:
    error = refused("--x", "a", declared=(Argument(name="x", default="[1, 2]"),))
    assert "'a' is not JSON" in error.message
    assert "[1, 2]" in error.hint


@pytest.mark.parametrize(
    ("default", "written"), [("[1, 2]", "5"), ('{"k": 1}', '"a"'), ("true", "[1]"), ("false", "7"), ("[]", "true")]
)
def test_json_of_another_kind_than_the_defaults_is_refused(default: str, written: str) -> None:
    error = refused("--x", written, declared=(Argument(name="x", default=default),))
    assert error.message == f"--x: {written!r} is not what the module expects"
    assert default in (error.hint or "")


@pytest.mark.parametrize("words", [("--gpus-per-node", "1"), ("--time=10",), ("--epochs", "3", "--wait")])
def test_an_option_of_our_own_behind_the_dashes_is_told_as_that(words: tuple[str, ...]) -> None:
    ours = ("--gpus-per-node", "--time", "--wait", "--model")
    with pytest.raises(InputError, match="the module has no argument --") as caught:
        check_arguments(words, (Argument(name="epochs", type="int"),), ours=ours)
    assert "write it before the --" in (caught.value.hint or "")
    own = (Argument(name="model"), Argument(name="time"))
    assert check_arguments(("--model", "a", "--time=1"), own, ours=ours) == ("--model=a", "--time=1")


@pytest.mark.parametrize("length", [600, 5000])
def test_hints_stay_short_however_much_a_module_says(length: int) -> None:
    declared = (Argument(name="x", type="int", required=True, description="words " * (length // 6)),)
    for words in ((), ("--x", "many"), ("--x",)):
        assert len(refused(*words, declared=declared).hint or "") < 250


@pytest.mark.parametrize(
    ("kind", "choices", "written", "given"),
    [
        ("str", ('"adam"', '"sgd"'), "adam", '"adam"'),
        ("str", ('"adam"', '"sgd"'), '"sgd"', '"sgd"'),
        ("int", (16, 32), "32", 32),
        ("float", (0.1, 1.0), "1", 1.0),
        ("bool", (True, False), "True", True),
        ("bool", (True, False), "false", False),
        ("str", (None, "x"), "null", None),
    ],
)
def test_choices_are_met_by_what_they_mean(kind: str, choices: tuple[object, ...], written: str, given: object) -> None:
    declared = (Argument.model_validate({"name": "x", "type": kind, "choices": choices, "default": "d"}),)
    assert parse_arguments(["--x", written], declared) == {"x": given}


WORDS = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from([f"--{name}" for name in NAMES] + ["--no-shuffle", "true", "resnet18", "1", "-2", "{}", "[]"]),
        st.builds(lambda name, text: f"--{name}={text}", st.sampled_from(NAMES), st.text()),
    ),
    max_size=8,
)


@A_TENTH
@given(WORDS)
def test_any_words_are_understood_or_refused_and_what_is_understood_stays(words: list[str]) -> None:
    try:
        values = parse_arguments(words, DECLARED)
    except InputError as error:
        assert error.hint
        return
    again = check_arguments(words, DECLARED)
    assert parse_arguments(again, DECLARED) == values
    assert all(word.startswith("--") and "=" in word for word in again)


@A_TENTH
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(-(10**12), 10**12),
            "learning_rate": st.floats(allow_nan=False, allow_infinity=False),
            "shuffle": st.booleans(),
            "note": st.text(),
            "classes": st.lists(st.text()),
            "augmentation": st.dictionaries(st.text(), st.integers()),
        },
    )
)
def test_every_value_comes_through(values: dict[str, object]) -> None:
    words = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    assert parse_arguments(words, DECLARED) == values


@pytest.mark.parametrize("count", [3, 12, 40, 300])
def test_a_hint_names_a_dozen_arguments_and_where_the_others_are(count: int) -> None:
    declared = tuple(Argument(name=f"argument-{number:03}") for number in range(count))
    with pytest.raises(InputError) as caught:
        check_arguments(("--zzz", "1"), declared)
    hint = caught.value.hint or ""
    assert len(hint) < 300
    assert ("module show" in hint) is (count > 12)


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("--epochs", "3", "-h")])
def test_help_is_told_where_it_is(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check_arguments(words, (Argument(name="epochs"),))
    assert "deephpc module show" in (caught.value.hint or "")
