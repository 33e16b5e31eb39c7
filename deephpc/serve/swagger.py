"""Reads a DEEPaaS server's own Swagger 2.0 and plans requests by it (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import JsonValue, ValidationError

from deephpc.errors import EngineError, InputError
from deephpc.model import Model
from deephpc.serve.argument_values import render_value
from deephpc.serve.module_arguments import find_argument
from deephpc.serve.module_description import ACCEPT, Argument

STAND_IN = "deepaas-test"
"""What DEEPaaS serves in place of a module that fails to import."""

Place = Literal["query", "formData", "header", "body", "path"]
_PLACES = ("query", "formData", "header", "body", "path")
_LONGEST_QUERY = 60_000
"""Characters; what is longer goes into the body, where DEEPaaS looks too, but for arguments that a module looks for in
the address alone. The gateway takes lines of 64 KiB, the server behind it more."""


class Parameter(Model):
    """One argument of a prediction, and where it goes in a request."""

    argument: Argument
    place: Place


@dataclass(frozen=True)
class PredictRequest:
    """What a prediction sends."""

    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    """Names and paths."""
    headers: dict[str, str] = field(default_factory=dict)
    json: dict[str, JsonValue] = field(default_factory=dict)


def predict_path(model: str) -> str:
    """Return the route of a module's predictions; without the slash at its end DEEPaaS answers 308."""
    return f"/v2/models/{model}/predict/"


def parse_models(answer: object) -> tuple[str, ...]:
    """Return the names that routes of the served modules have, from the answer of `/v2/models/`.

    Raises
    ------
    EngineError
        It is no answer of DEEPaaS.
    """
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        raise EngineError("the server does not speak DEEPaaS's API (V2)", "is it another service?")
    return tuple(_route_name(model) for model in models if isinstance(model, dict) and "id" in model)


def _route_name(model: Mapping[str, Any]) -> str:
    """Return the end of a module's own address: its `id` may be what its metadata say (deepaas/model/v2/wrapper.py)."""
    links = model.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self":
            return str(link.get("href")).rstrip("/").rpartition("/")[2]
    return str(model["id"])


def choose_model(served: tuple[str, ...], expected: str | None) -> str:
    """Return the module to use: the expected one, or else the only one; `-` and `_` in names are the same.

    Raises
    ------
    EngineError
        It is not served, or DEEPaaS serves its own test model in place of a module that failed to import.
    """
    alike = {name.lower().replace("-", "_"): name for name in served if name != STAND_IN}
    wanted = expected.lower().replace("-", "_") if expected else None
    if wanted is None and len(alike) == 1:
        return next(iter(alike.values()))
    if wanted is not None and wanted in alike:
        return alike[wanted]
    what = expected or "a module"
    if STAND_IN in served and not alike:
        hint = "the module fails to import; the server's log says why"
        raise EngineError(f"the server has DEEPaaS's test model in place of {what}", hint)
    hint = "name one of them" if len(alike) > 1 and not expected else "is it the right server?"
    raise EngineError(f"the server has {', '.join(served) or 'no module'} instead of {what}", hint)


def parse_parameters(swagger: object, model: str) -> tuple[Parameter, ...]:
    """Return the parameters of a module's predictions.

    Raises
    ------
    EngineError
        The document is no Swagger 2.0, or says nothing of the module's predictions.
    """
    document = _mapping(swagger)
    if document.get("swagger") != "2.0":
        raise EngineError("the server's /swagger.json is no Swagger 2.0", "is it a DEEPaaS server?")
    routes = _mapping(document.get("paths")).items()
    route = next((about for path, about in routes if str(path).endswith(predict_path(model))), None)
    operation = _mapping(_mapping(route).get("post"))
    if not operation:
        told = f"the server's /swagger.json says nothing of predictions of {model}"
        raise EngineError(told, "can the module predict?")
    try:
        return tuple(
            found for one in _items(operation.get("parameters")) for found in _parameters(_mapping(one), document)
        )
    except ValidationError as error:
        told = f"the server's /swagger.json cannot be understood: {error.errors()[0]['msg']}"
        raise EngineError(told, "is it DEEPaaS 1.x or 2.x?") from error


def plan_request(
    values: Mapping[str, JsonValue], parameters: tuple[Parameter, ...], accept: str | None = None
) -> PredictRequest:
    """Return where each value goes; file arguments have paths for values, None leaves an argument out.

    Parameters
    ----------
    accept
        The form of the answer, unless the values say it: asked for in the header, and where the module looks for it.

    Raises
    ------
    InputError
        A name is unknown, or values cannot be sent together.
    """
    places: dict[str, list[tuple[str, str]]] = {"query": [], "formData": [], "file": []}
    headers: dict[str, str] = {}
    json: dict[str, JsonValue] = {}
    by_name = {one.argument.name: one for one in parameters}
    for name, value in values.items():
        if name not in by_name:
            find_argument(name, [one.argument for one in parameters], "")  # says what was meant, where it can
            continue
        if value is None or name == ACCEPT:
            continue
        one = by_name[name]
        if one.argument.type == "file":
            places["file"].append((name, str(value)))
        elif one.place == "header":
            headers[name] = render_value(value)
        elif one.place == "body" or one.argument.type == "dict":
            json[name] = value
        else:
            several = value if isinstance(value, list) else [value]
            places["formData" if one.place == "formData" else "query"] += [
                (name, render_value(each)) for each in several
            ]
    if not json and len(urlencode(places["query"])) > _LONGEST_QUERY:
        places["formData"] += places.pop("query")
    if json and (places["file"] or places["formData"]):
        raise InputError(f"{', '.join(json)} cannot be sent together with a file", "leave one of them out")
    query = places.get("query", [])
    asked = values.get(ACCEPT) or accept
    if asked:
        accept = headers[ACCEPT] = str(asked)
        if ACCEPT in by_name and by_name[ACCEPT].place in ("query", "formData"):
            query.append((ACCEPT, accept))
    return PredictRequest(tuple(query), tuple(places["formData"]), tuple(places["file"]), headers, json)


def accepted_types(parameters: tuple[Parameter, ...]) -> tuple[str, ...]:
    """Return the forms of an answer the module knows; none when it leaves no choice."""
    return next((tuple(map(str, one.argument.choices)) for one in parameters if one.argument.name == ACCEPT), ())


def choose_accept(asked: str | None, parameters: tuple[Parameter, ...]) -> str | None:
    """Return the form to ask for: JSON unless told otherwise, for `*/*` would reach the module as it is.

    Raises
    ------
    InputError
        The module does not answer in the form that is asked for.
    """
    types = accepted_types(parameters)
    if asked is None:
        return None if not types else "application/json" if "application/json" in types else types[0]
    if types and asked not in types:
        raise InputError(f"the module does not answer in {asked}", f"it answers in {', '.join(types)}")
    return asked


def _parameters(one: Mapping[str, Any], document: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameter; of a body its properties, one by one."""
    place = one.get("in")
    if place not in _PLACES:
        return []
    if place != "body":
        return [Parameter(argument=_argument(one, required=one.get("required") is True), place=place)]
    schema = _resolve(one.get("schema"), document)
    required = _items(schema.get("required"))
    properties = {name: _resolve(about, document) for name, about in _mapping(schema.get("properties")).items()}
    return [
        Parameter(argument=_argument({**about, "name": name}, required=name in required), place="body")
        for name, about in properties.items()
    ]


def _argument(one: Mapping[str, Any], *, required: bool) -> Argument:
    items = _mapping(one.get("items"))
    return Argument(
        name=str(one.get("name", "")),
        type=str(one.get("type", "string")),
        required=required,
        default=one.get("default"),
        choices=tuple(_items(one.get("enum")) or _items(items.get("enum"))),
        min=one.get("minimum"),
        max=one.get("maximum"),
        items=items.get("type"),
        description=str(one.get("description") or ""),
    )


def _resolve(schema: object, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema, looked up where it is only referred to."""
    found = _mapping(schema)
    reference = found.get("$ref")
    if not isinstance(reference, str):
        return found
    return _mapping(_mapping(document.get("definitions")).get(reference.rpartition("/")[2]))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
