import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import EngineError, InputError
from deephpc.serve.swagger import (
    accepted_types,
    choose_accept,
    choose_model,
    parse_models,
    parse_parameters,
    plan_request,
)
from tests.fakes.samples import A_TENTH

SWAGGER = json.loads((Path(__file__).parent / "recorded" / "swagger-2.6.0.json").read_text(encoding="utf-8"))
PARAMETERS = parse_parameters(SWAGGER, "deepaas_digits")
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_the_parameters_of_a_real_server_are_understood():
    found = {one.argument.name: (one.place, one.argument.type, one.argument.required) for one in PARAMETERS}
    assert found == {
        "image": ("formData", "file", True),
        "model": ("query", "str", False),
        "top": ("query", "int", False),
        "accept": ("header", "str", False),
    }
    top = next(one.argument for one in PARAMETERS if one.argument.name == "top")
    assert (top.min, top.max, top.default) == (1, 10, 1)


def test_each_value_goes_where_the_server_wants_it():
    request = plan_request({"image": "/x/four.pgm", "top": 3, "accept": "text/csv"}, PARAMETERS)
    assert request.files == (("image", "/x/four.pgm"),)
    assert request.query == (("top", "3"),)
    assert request.headers == {"accept": "text/csv"}


def test_a_list_is_sent_item_by_item_and_a_body_as_json():
    swagger = {
        "swagger": "2.0",
        "paths": {
            "/v2/models/m/predict/": {
                "post": {
                    "parameters": [
                        {"in": "query", "name": "labels", "type": "array", "items": {"type": "string"}},
                        {"in": "body", "name": "body", "schema": {"$ref": "#/definitions/Body"}},
                    ]
                }
            }
        },
        "definitions": {"Body": {"required": ["box"], "properties": {"box": {"type": "object"}}}},
    }
    parameters = parse_parameters(swagger, "m")
    assert [one.argument.required for one in parameters] == [False, True]
    request = plan_request({"labels": ["a", "b"], "box": {"x": 1}}, parameters)
    assert (request.query, request.json) == ((("labels", "a"), ("labels", "b")), {"box": {"x": 1}})


def test_an_unknown_argument_is_refused_with_the_nearest():
    with pytest.raises(InputError) as caught:
        plan_request({"imagee": "x"}, PARAMETERS)
    assert "image" in caught.value.hint


def test_json_is_asked_for_unless_the_user_says_otherwise():
    assert choose_accept(None, PARAMETERS) == "application/json"
    assert choose_accept("text/csv", PARAMETERS) == "text/csv"
    assert "*/*" not in accepted_types(PARAMETERS)
    with pytest.raises(InputError, match="does not answer in image/png"):
        choose_accept("image/png", PARAMETERS)
    assert choose_accept(None, ()) is None


@pytest.mark.parametrize(
    ("served", "expected", "chosen"),
    [
        (("demo_module",), "demo-module", "demo_module"),
        (("demo_module",), None, "demo_module"),
        (("a", "b"), "B", "b"),
        (("deepaas-test", "a"), None, "a"),
    ],
)
def test_the_module_that_is_meant_is_found(served, expected, chosen):
    assert choose_model(served, expected) == chosen


@pytest.mark.parametrize(
    ("served", "expected", "told"),
    [
        (("deepaas-test",), "plankton", "test model in place of plankton"),
        (("deepaas-test",), "deepaas-test", "test model"),
        (("deepaas-test",), None, "test model in place of a module"),
        (("a",), "b", "has a instead of b"),
        (("a", "b"), None, "has a, b instead of a module"),
        ((), "a", "has no module instead of a"),
    ],
)
def test_another_module_is_never_taken_for_the_expected_one(served, expected, told):
    with pytest.raises(EngineError, match=told):
        choose_model(served, expected)


@A_TENTH
@given(ANY_JSON)
def test_whatever_a_server_answers_is_understood_or_refused(answer):
    for read in (parse_models, lambda value: parse_parameters(value, "m")):
        try:
            assert isinstance(read(answer), tuple)
        except EngineError as error:
            assert error.hint


@A_TENTH
@given(ANY_JSON)
def test_whatever_a_swagger_says_of_parameters_is_understood_or_refused(parameters):
    swagger = {"swagger": "2.0", "paths": {"/v2/models/m/predict/": {"post": {"parameters": parameters}}}}
    try:
        assert all(one.argument.name is not None for one in parse_parameters(swagger, "m"))
    except EngineError as error:
        assert error.hint
