import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.catalogue.document import UnreadableError, decode, parse_document

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 100_000, "{a: " * 100_000], ids=["list", "dashes", "tables"])
@pytest.mark.parametrize("name", ["x.yml", "x.json"])
def test_nesting_without_end_is_an_error_and_not_a_crash(text: str, name: str) -> None:
    with pytest.raises(UnreadableError):
        parse_document(text, name)


def test_an_alias_is_refused_so_that_a_small_file_cannot_become_a_huge_value() -> None:
    with pytest.raises(UnreadableError, match=r"the alias \*a is not read here") as caught:
        parse_document("a: &a [x, x]\nb: [*a, *a]", "x.yml")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: c: 2", 2, "mapping values are not allowed"),
        ("a: !!python/object:os.system x", 1, "the tag"),
        ("a: 1\n---\nb: 2", 2, "a second YAML document"),
        ("? [a]\n: 1", 1, "cannot be a key"),
        ("a: \x00", 1, "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused_with_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as caught:
        parse_document(text, "x.yml")
    assert caught.value.line == line


def test_bad_json_is_refused_with_its_line() -> None:
    with pytest.raises(UnreadableError, match="not valid JSON") as caught:
        parse_document('{\n"a": 1,\n}', "x.json")
    assert caught.value.line == 3


def test_dates_stay_text_and_other_scalars_follow_yaml() -> None:
    document = parse_document("a: 2024-01-31\nb: '1'\nc: 2\nd: 1.5\ne: yes\nf: ~\ng: .nan\nh: 0o8", "x.yml")
    assert document.value == {
        "a": "2024-01-31", "b": "1", "c": 2, "d": 1.5, "e": True, "f": None, "g": ".nan", "h": "0o8",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x.yml", "x.json"])
def test_every_key_and_item_knows_its_line(name: str) -> None:
    document = parse_document('{"a": [1,\n 2],\n"b": {\n"c": "x\\"{"}}', name)
    assert document.value == {"a": [1, 2], "b": {"c": 'x"{'}}
    assert document.lines == {("a",): 1, ("a", 0): 1, ("a", 1): 2, ("b",): 3, ("b", "c"): 4}
    assert document.line(("b", "missing")) == 3


def test_a_key_that_is_written_twice_is_noted() -> None:
    for text, name in (("a: 1\na: 2", "x.yml"), ('{"a": 1,\n"a": 2}', "x.json")):
        document = parse_document(text, name)
        assert (document.value, document.repeated, document.line(("a",))) == ({"a": 2}, [("a",)], 2)


def test_text_that_is_not_utf_8_names_its_line() -> None:
    assert decode("\ufeffä".encode()) == "ä"
    with pytest.raises(UnreadableError) as caught:
        decode(b"a\nb\xff")
    assert caught.value.line == 2


@given(VALUES)
def test_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    text = json.dumps(value, indent=1)
    document = parse_document(text, "x.json")
    assert document.value == json.loads(text)
    for path, line in document.lines.items():
        assert 1 <= line <= text.count("\n") + 1
        here = document.value
        for part in path:
            here = here[part]  # type: ignore[index] # every path leads to a value


@given(st.text(max_size=200))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    for name in ("x.yml", "x.json"):
        try:
            assert parse_document(text, name) is not None
        except UnreadableError as error:
            assert error.line >= 1
            assert error.reason
