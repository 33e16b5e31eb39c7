"""How a module's arguments are described, read from words and sent; with doubles for marshmallow's fields."""

import ast
import json
import math
from types import SimpleNamespace

import pytest
from deepaas_arguments import (
    BadArgumentError,
    choose_accept,
    describe_argument,
    describe_arguments,
    json_safe,
    parse_words,
    plan_request,
    render_texts,
)
from deepaas_loading import Module, with_defaults
from hypothesis import given
from hypothesis import strategies as st

from deephpc.places import shipped
from deephpc.serve.module_description import Argument
from tests.fakes.samples import A_TENTH


class _Missing:
    """What marshmallow has where a default is missing."""


MISSING = _Missing()


class Field:
    """marshmallow 3: `load_default`, `metadata`, `validate`."""

    def __init__(self, *, default=MISSING, required=False, validate=None, **metadata):
        self.load_default, self.required, self.validate, self.metadata = default, required, validate, metadata

    def deserialize(self, value, attr=None, data=None):
        for each in self.validate if isinstance(self.validate, list) else [self.validate]:
            if isinstance(each, Range) and value < each.min:
                raise ValidationError([f"Must be at least {each.min}."])
        return value


class String(Field): ...


class Number(Field): ...


class Integer(Number): ...


class Float(Number): ...


class Boolean(Field): ...


class Mapping(Field): ...


class Dict(Mapping): ...


class List(Field):
    def __init__(self, inner, **words):
        super().__init__(**words)
        self.inner = inner


class Url(String): ...


class ModuleOwn(Integer): ...


class OneOf:
    def __init__(self, choices):
        self.choices = choices


class Range:
    def __init__(self, min=None, max=None):
        self.min, self.max = min, max


class And:
    def __init__(self, *validators):
        self.validators = validators


class ValidationError(Exception):
    def __init__(self, messages):
        super().__init__(messages)
        self.messages = messages


FIELDS = {
    "epochs": Integer(default=3, validate=Range(min=1)),
    "learning_rate": Float(default=0.1),
    "augment": Boolean(default=False),
    "layers": List(Integer(), default=[8]),
    "extra": Dict(default={}),
    "optimizer": String(default="sgd", validate=OneOf(["sgd", "adam"])),
    "weights": Field(type="file", location="form"),
    "note": String(),
}
ARGUMENTS = describe_arguments(FIELDS)


@pytest.mark.parametrize(
    "field, expected",
    [
        (Integer(default=3, validate=Range(1, 9)), {"type": "int", "default": 3, "min": 1, "max": 9}),
        (ModuleOwn(), {"type": "int", "default": None}),
        (Float(default=math.inf), {"type": "float", "default": "inf"}),
        (Number(), {"type": "float"}),
        (Boolean(required=True), {"type": "bool", "required": True}),
        (Url(description="where"), {"type": "str", "description": "where"}),
        (List(String()), {"type": "list", "items": "str"}),
        (Dict(), {"type": "dict"}),
        (Field(type="file", location="form"), {"type": "file", "location": "form"}),
        (Field(), {"type": "any"}),
        (String(validate=OneOf(("a", "b"))), {"choices": ["a", "b"]}),
        (Integer(validate=[Range(min=0), OneOf([1, 2])]), {"choices": [1, 2], "min": 0}),
        (Integer(validate=And(Range(max=5), OneOf([1]))), {"choices": [1], "max": 5}),
        (String(enum=["x"]), {"choices": ["x"]}),
        (String(default=lambda: 1), {"default": None}),
    ],
)
def test_a_field_is_described(field, expected):
    described = describe_argument("name", field)
    assert described == {**described, **expected}
    json.dumps(described, allow_nan=False)
    assert Argument.model_validate(described).name == "name"


def test_an_old_marshmallow_is_understood():
    field = type("Integer", (), {"missing": 4, "required": False, "metadata": {"description": "d"}, "validators": []})()
    assert describe_argument("n", field)["default"] == 4


def test_words_become_values():
    words = [
        *("--epochs", "7", "--learning-rate=-1e-3", "--augment", "--layers", "[1, 2]"),
        *("--extra={'a': True}", "--note", "--looks-like-one", "--weights", "/data/w"),
    ]
    assert parse_words(words, ARGUMENTS) == {
        "epochs": 7,
        "learning_rate": -1e-3,
        "augment": True,
        "layers": [1, 2],
        "extra": {"a": True},
        "note": "--looks-like-one",
        "weights": "/data/w",
    }


@pytest.mark.parametrize("word", ["yes", "TRUE", "1", "t"])
def test_a_bool_takes_a_value_too(word):
    assert parse_words(["--augment", word, "--epochs", "1"], ARGUMENTS) == {"augment": True, "epochs": 1}
    assert parse_words(["--augment=off"], ARGUMENTS) == {"augment": False}


@pytest.mark.parametrize(
    "words, told",
    [
        (["--epoch", "3"], "did you mean --epochs"),
        (["--zzz", "3"], "it has --epochs, --learning_rate"),
        (["epochs", "3"], "'epochs' is not an argument"),
        (["--epochs"], "--epochs needs a value"),
        (["--epochs", "3.5"], "'3.5' is not of type int"),
        (["--augment=maybe"], "'maybe' is not of type bool"),
        (["--layers", "1"], "'1' is not of type list"),
        (["--layers", "__import__('os')"], "is not of type list"),
        (["--extra", "[]"], "is not of type dict"),
    ],
)
def test_words_that_do_not_fit_are_named(words, told):
    with pytest.raises(BadArgumentError) as caught:
        parse_words(words, ARGUMENTS)
    assert told in str(caught.value)


def test_a_required_argument_is_asked_for():
    with pytest.raises(BadArgumentError, match="needs --x"):
        parse_words([], describe_arguments({"x": String(required=True)}))


def test_values_are_rendered_as_a_request_brings_them():
    values = {"layers": [1, 2], "augment": True, "extra": {"a": None}, "note": "-x y", "learning_rate": 1e-3}
    assert render_texts(values, ARGUMENTS) == {
        "layers": ["1", "2"],
        "augment": "true",
        "extra": {"a": None},
        "note": "-x y",
        "learning_rate": "0.001",
    }


@pytest.mark.parametrize("by", ["data_key", "load_from"])  # marshmallow 3, and 2
def test_a_field_goes_by_the_name_that_its_requests_have(by):
    renamed, file = Integer(default=3), Field(type="file", location="form")
    setattr(renamed, by, "epoch_count")
    setattr(file, by, "zip_data")
    arguments = describe_arguments({"renamed": renamed, "archive": file, "plain": Integer()})
    assert [each["name"] for each in arguments] == ["epoch_count", "zip_data", "plain"]
    assert arguments[0]["default"] == 3
    words = ["--epoch-count=7", "--zip_data", "/a.zip"]
    assert parse_words(words, arguments) == {"epoch_count": 7, "zip_data": "/a.zip"}
    assert plan_request({"zip_data": "/a.zip"}, arguments)["files"] == [("zip_data", "/a.zip")]
    with pytest.raises(BadArgumentError, match="no argument --archive"):
        parse_words(["--archive=/a.zip"], arguments)


@pytest.mark.parametrize("by", ["data_key", "load_from", None])
def test_another_default_is_meant_by_the_name_that_requests_have(by):
    fold, other = String(required=True), String(default="a")
    name = "renamed" if by is None else "fold"
    setattr(fold, by or "data_key", None if by is None else "fold")
    plugin = SimpleNamespace(get_predict_args=lambda: {"renamed": fold, "other": other})
    with_defaults(Module("m", plugin), [f'{name}="b=c"'])
    first, second = describe_arguments(plugin.get_predict_args())
    assert (first["name"], first["default"], first["required"]) == (name, "b=c", False)
    assert second["default"] == "a"


def test_a_class_that_reads_its_own_way_takes_any_text():
    percent = type("Percent", (Float,), {"_deserialize": lambda self, value: value})
    assert describe_argument("share", percent())["type"] == "any"


@pytest.mark.parametrize("location, place", [("", "query"), ("query", "query"), ("headers", None)])
def test_the_form_of_an_answer_is_asked_for_where_the_module_looks(location, place):
    arguments = describe_arguments({"accept": String(required=True, location=location)})
    request = plan_request({}, arguments, "text/csv")
    assert request["headers"] == {"accept": "text/csv"}
    assert request["query"] == ([("accept", "text/csv")] if place else [])


def test_each_value_goes_where_the_module_looks_for_it():
    fields = {
        **FIELDS,
        "caption": String(location="form"),
        "accept": String(location="headers"),
        "body": String(location="json"),
    }
    arguments = describe_arguments(fields)
    values = {"layers": [1, 2], "augment": False, "note": {"a": [1]}, "accept": "text/csv", "epochs": None}
    assert plan_request(values, arguments) == {
        "query": [("layers", "1"), ("layers", "2"), ("augment", "false"), ("note", '{"a": [1]}')],
        "form": [],
        "files": [],
        "headers": {"accept": "text/csv"},
        "json": {},
    }
    assert plan_request({"weights": "/w", "caption": "ψ"}, arguments)["form"] == [("caption", "ψ")]
    assert plan_request({"body": 1, "extra": {"a": 1}}, arguments)["json"] == {"body": 1, "extra": {"a": 1}}
    with pytest.raises(BadArgumentError, match="cannot be sent together with a file"):
        plan_request({"weights": "/w", "extra": {}}, arguments)
    with pytest.raises(BadArgumentError, match="did you mean --note"):
        plan_request({"notes": 1}, arguments)


@pytest.mark.parametrize("location, place", [("", "form"), ("query", "query"), ("form", "form"), ("files", "form")])
def test_what_is_too_long_for_an_address_goes_into_the_body_unless_the_module_looks_there_alone(location, place):
    arguments = describe_arguments(
        {"text": String(location=location), "top": Integer(location="query"), "n": Integer()}
    )
    long = "ψ" * 200_000
    request = plan_request({"text": long, "top": 1, "n": 2}, arguments)
    assert ("text", long) in request[place]
    assert ("top", "1") in request["query"]
    assert ("n", "2") in plan_request({"text": "ψ" * 3000, "n": 2}, arguments)["query"]


def test_the_answer_is_json_unless_asked_otherwise():
    accept = String(default="image/png", validate=OneOf(["image/png", "application/json", "*/*"]), location="headers")
    arguments = describe_arguments({"accept": accept})
    assert choose_accept(None, arguments) == "application/json"
    assert choose_accept("image/png", arguments) == "image/png"
    assert choose_accept(None, describe_arguments({"accept": String(validate=OneOf(["a/b", "*/*"]))})) == "a/b"
    assert choose_accept("a/b", []) is None
    with pytest.raises(BadArgumentError, match="only in image/png, application/json"):
        choose_accept("text/plain", arguments)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.text())
    ),
    max_leaves=10,
)


@A_TENTH
@given(VALUES)
def test_anything_becomes_json(value):
    assert json.loads(json.dumps(json_safe(value), allow_nan=False)) == json_safe(value)


@A_TENTH
@given(st.dictionaries(st.sampled_from(["note", "optimizer"]), st.text(), max_size=2), st.lists(st.integers()))
def test_what_is_rendered_is_read_again(values, layers):
    whole = {**values, "layers": layers, "augment": True}
    words = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in whole.items()]
    assert parse_words(words, ARGUMENTS) == whole


@pytest.mark.parametrize("script", sorted(shipped("jobscripts").glob("deepaas_*.py")), ids=lambda path: path.name)
def test_an_image_with_python_3_6_can_read_it(script):
    ast.parse(script.read_text(), feature_version=(3, 6))
    assert "from __future__" not in script.read_text()


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--a-b", "1", "--a_b", "2"], {"a-b": 1, "a_b": 2}),
        (["--a_b=2"], {"a_b": 2}),
        (["--c_d", "3"], {"c-d": 3}),
        (["--e-f", "4"], {"e_f": 4}),
    ],
)
def test_a_name_as_it_is_written_wins_over_one_with_other_dashes(words, values):
    names = ("a_b", "a-b", "c-d", "e_f")
    assert parse_words(words, describe_arguments({name: Integer() for name in names})) == values


@pytest.mark.parametrize(
    ("fields", "given", "lost"),
    [
        ({"epochs": SimpleNamespace(), "top": SimpleNamespace()}, {"epochs": 3}, "--top"),
        ({"epochs": SimpleNamespace(attribute="count"), "top": SimpleNamespace()}, {"count": 3, "top": 1}, None),
        ({"count": SimpleNamespace(data_key="epochs"), "top": SimpleNamespace()}, {"count": 3, "top": 1}, None),
        ({"count": SimpleNamespace(data_key="epochs"), "top": SimpleNamespace(attribute="k")}, {}, "--epochs, --top"),
    ],
)
def test_what_was_asked_for_and_does_not_arrive_is_named(fields, given, lost):
    from deepaas_training import check_arrived

    if lost is None:
        check_arrived({"epochs": 3, "top": 1}, given, fields)
        return
    with pytest.raises(BadArgumentError, match=f"leave out {lost}$"):
        check_arrived({"epochs": 3, "top": 1}, given, fields)
