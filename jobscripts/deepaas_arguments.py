"""What a DEEPaaS module's arguments are, and how users' words and values become a request.

Runs inside the image: Python 3.6 or later, standard library only. Nothing here imports DEEPaaS or marshmallow: fields
are known by the names of their classes, so that every release of both is understood.
"""

import ast
import difflib
import json
import math
from urllib.parse import urlencode

#: The names of marshmallow's field classes, from special to general, and what a user would call them.
_TYPES = (
    ("Boolean", "bool"),
    ("Integer", "int"),
    ("Float", "float"),
    ("Decimal", "float"),
    ("Number", "float"),
    ("List", "list"),
    ("Tuple", "list"),
    ("Mapping", "dict"),
    ("Dict", "dict"),
    ("Nested", "dict"),
)
#: Of an address of the private server (`deepaas_server.LONG_LINES`). What is longer goes into the body, where DEEPaaS
#: looks too, but for no more than 1000 values, and not for those that the module looks for in the address alone.
_LONGEST_QUERY = 1000000
STARS = "***"
"""What stands for a secret where others may read: in a command line, a log, a result."""
_TRUE = ("true", "t", "yes", "y", "1", "on")
_FALSE = ("false", "f", "no", "n", "0", "off")


class BadArgumentError(Exception):
    """The user's words or values do not fit the module; the text says which and why."""


def describe_arguments(fields):
    """Return a JSON-safe description of each field by the name it has in requests, in the module's order."""
    return [describe_argument(sent_as(name, field), field) for name, field in fields.items()]


def sent_as(name, field):
    """Return the name that a field has in requests; Python may know it by another (`data_key`, once `load_from`)."""
    return getattr(field, "data_key", None) or getattr(field, "load_from", None) or name


def describe_argument(name, field):
    """Return one argument: name, type, required, default, choices, min, max, description, location, is_secret.

    A default that only the module can compute (a function) or that is missing is null.
    """
    metadata = getattr(field, "metadata", None) or {}
    validators = _validators(field)
    choices = next((found.choices for found in validators if hasattr(found, "choices")), metadata.get("enum"))
    described = {
        "name": name,
        "type": _type_of(field, metadata),
        "required": bool(getattr(field, "required", False)),
        "default": _default_of(field),
        "choices": None if choices is None else [json_safe(choice) for choice in choices],
        "description": str(metadata.get("description") or ""),
        "location": str(metadata.get("location") or getattr(field, "location", None) or ""),
        "is_secret": is_secret(field),
    }
    if described["type"] == "list":
        inner = getattr(field, "inner", None) or getattr(field, "container", None)
        described["items"] = "str" if inner is None else _type_of(inner, getattr(inner, "metadata", None) or {})
    for bound in ("min", "max"):
        limits = [getattr(found, bound) for found in validators if type(found).__name__ == "Range"]
        described[bound] = next((json_safe(limit) for limit in limits if limit is not None), None)
    return described


def is_secret(field):
    """Return whether a module declares a field a password, as Swagger does."""
    return (getattr(field, "metadata", None) or {}).get("format") == "password"


def parse_words(words, arguments):
    """Return the values of `--name value` and `--name=value` by name.

    Parameters
    ----------
    arguments
        What `describe_arguments` gave. A hyphen in a name is as good as an underscore; a bool needs no value.

    Raises
    ------
    BadArgumentError
        For a word or a name that the module does not know, and a value that is none of its type.
    """
    alike = {argument["name"].replace("-", "_"): argument for argument in arguments}
    known = {argument["name"]: argument for argument in arguments}
    values, waiting = {}, list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or word == "--":
            raise BadArgumentError("%r is not an argument: they are written --name value" % word)
        name, given, text = word[2:].partition("=")
        argument = known.get(name) or alike.get(name.replace("-", "_"))
        if argument is None:
            raise BadArgumentError(unknown_argument(name, [each["name"] for each in arguments]))
        if not given and argument["type"] == "bool" and not (waiting and _is_bool(waiting[0])):
            text = "true"
        elif not given and not waiting:
            raise BadArgumentError("--%s needs a value" % argument["name"])
        elif not given:
            text = waiting.pop(0)
        values[argument["name"]] = parse_value(argument, text)
    check_required(values, arguments, "--")
    return values


def check_required(values, arguments, dashes=""):
    """Check that nothing is missing; the form of the answer is ours to fill in.

    Raises
    ------
    BadArgumentError
        With the names of what is missing.
    """
    needed = [each["name"] for each in arguments if each["required"] and each["name"] != "accept"]
    missing = [dashes + name for name in needed if name not in values]
    if missing:
        raise BadArgumentError("the module needs %s" % ", ".join(missing))


def parse_value(argument, text):
    """Return the value that a text stands for in an argument; lists and dicts are JSON or Python literals."""
    parse = {"bool": _parse_bool, "int": int, "float": float, "list": _parse_list, "dict": _parse_dict}
    try:
        return parse.get(argument["type"], str)(text)
    except (ValueError, SyntaxError):
        shown = STARS if argument.get("is_secret") else text
        told = "--%s: %r is not of type %s" % (argument["name"], shown, argument["type"])
        raise BadArgumentError(told) from None


def render_texts(values, arguments):
    """Return values as a request over the API brings them: texts, and several of them for a list."""
    types = {argument["name"]: argument["type"] for argument in arguments}
    texts = {}
    for name, value in values.items():
        if types[name] == "list":
            texts[name] = [render_value(each) for each in value]
        else:
            texts[name] = value if types[name] == "dict" else render_value(value)
    return texts


def plan_request(values, arguments, accept=None):
    """Return where each value goes in a request, as a dict with `query`, `form`, `files`, `headers` and `json`.

    A list is sent as repeated values. A list or dict for an argument that takes text is sent as JSON in a string, which
    is how such modules want it. The form of the answer is asked for in the header, and where the module looks for it.
    """
    known = {argument["name"]: argument for argument in arguments}
    request = {"query": [], "form": [], "files": [], "headers": {}, "json": {}}
    for name, value in values.items():
        if name not in known:
            raise BadArgumentError(unknown_argument(name, list(known)))
        argument = known[name]
        if value is None:
            continue
        if argument["type"] == "file":
            request["files"].append((name, str(value)))
        elif argument["location"] in ("headers", "header"):
            request["headers"][name] = render_value(value)
        elif argument["location"] == "json" or argument["type"] == "dict":
            request["json"][name] = value
        else:
            several = value if argument["type"] == "list" and isinstance(value, (list, tuple)) else [value]
            place = "form" if argument["location"] in ("form", "files") else "query"
            request[place].extend((name, render_value(each)) for each in several)
    if not request["json"] and len(urlencode(request["query"])) > _LONGEST_QUERY:
        _move_to_body(request, known)
    accept = request["headers"].pop("accept", None) or accept
    if accept:
        request["headers"]["accept"] = accept
        if "accept" in known and known["accept"]["location"] not in ("headers", "header", "json"):
            request["query"] = [pair for pair in request["query"] if pair[0] != "accept"] + [("accept", accept)]
    if request["json"] and (request["files"] or request["form"]):
        raise BadArgumentError("%s cannot be sent together with a file" % ", ".join(request["json"]))
    return request


def _move_to_body(request, known):
    """Have the form take what stands in the address, but for what the module looks for nowhere else."""
    bound = [pair for pair in request["query"] if known[pair[0]]["location"] or pair[0] == "accept"]
    request["form"] += [pair for pair in request["query"] if pair not in bound]
    request["query"] = bound


def render_value(value):
    """Return the text of a value in a request."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def choose_accept(asked, arguments):
    """Return the form of the answer to ask for, None when the module leaves no choice.

    Unless asked otherwise this is JSON, or else the first form the module knows: `*/*` would reach the module as it is.
    """
    argument = next((each for each in arguments if each["name"] == "accept"), None)
    if argument is None:
        return None
    choices = [choice for choice in argument["choices"] or [] if choice != "*/*"]
    if asked and choices and asked not in choices:
        raise BadArgumentError("the module does not answer in %s, only in %s" % (asked, ", ".join(map(str, choices))))
    if asked or not choices:
        return asked or argument["default"]
    return "application/json" if "application/json" in choices else choices[0]


def unknown_argument(name, names):
    """Return what to say of an argument that the module does not have."""
    near = difflib.get_close_matches(name.replace("-", "_"), names, n=1)
    hint = (
        "did you mean --%s?" % near[0] if near else "it has %s" % (", ".join("--" + each for each in names) or "none")
    )
    return "the module has no argument --%s; %s" % (name, hint)


def json_safe(value):
    """Return a value as JSON can hold it; numbers and arrays of NumPy and its like become plain ones."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): json_safe(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [json_safe(each) for each in value]
    if hasattr(value, "tolist"):
        return json_safe(value.tolist())
    return str(value)


def _type_of(field, metadata):
    if metadata.get("type") == "file":
        return "file"
    names = [each.__name__ for each in type(field).__mro__]
    if _reads_its_own_way(field):
        return "any"
    known = next((kind for name, kind in _TYPES if name in names), None)
    return known or ("any" if names[0] in ("Field", "Raw") else "str")


def _reads_its_own_way(field):
    """Return whether the module itself decides what a field's text means: its own class reads it."""
    reader = next((each for each in type(field).__mro__ if "_deserialize" in vars(each)), None)
    return reader is not None and reader.__module__.partition(".")[0] not in ("marshmallow", "webargs")


def _validators(field):
    found = getattr(field, "validate", None) or getattr(field, "validators", None) or ()
    several = list(found) if isinstance(found, (list, tuple)) else [found]
    return [inner for each in several for inner in (getattr(each, "validators", None) or [each])]


def _default_of(field):
    value = field.load_default if hasattr(field, "load_default") else getattr(field, "missing", None)
    return None if callable(value) or type(value).__name__ == "_Missing" else json_safe(value)


def _is_bool(text):
    return text.lower() in _TRUE + _FALSE


def _parse_bool(text):
    if not _is_bool(text):
        raise ValueError(text)
    return text.lower() in _TRUE


def _parse_list(text):
    return list(_parse_literal(text, (list, tuple)))


def _parse_dict(text):
    return _parse_literal(text, dict)


def _parse_literal(text, kind):
    try:
        value = json.loads(text)
    except ValueError:
        value = ast.literal_eval(text)
    if not isinstance(value, kind):
        raise ValueError(text)  # noqa: TRY004 -- of a text, the value is wrong
    return value
