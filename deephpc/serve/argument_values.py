"""Turns what was written for one argument of a module into its value, by the argument's declared type (pure)."""

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from pydantic import JsonValue

from deephpc.errors import InputError
from deephpc.serve.module_description import Argument

#: What marshmallow 3 reads as true and false (`fields.Boolean.truthy`, `.falsy`), in lower case.
_TRUE = frozenset({"t", "true", "on", "y", "yes", "1"})
_FALSE = frozenset({"f", "false", "off", "n", "no", "0"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MOST_CHOICES = 12
_LONGEST = 160


def render_value(value: JsonValue) -> str:
    """Return a value as one word: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def describe_argument(argument: Argument) -> str:
    """Return an argument's type and the beginning of what the module says of it."""
    says = shorten(argument.description, _LONGEST, placeholder=" …")
    return f"{argument.type}: {says}" if says else argument.type


def parse_value(argument: Argument, texts: Sequence[str | None], where: str, cwd: Path | None = None) -> JsonValue:
    """Return the value that texts give an argument; None among them is a flag without a text.

    Parameters
    ----------
    where
        How the argument was written, for messages.
    cwd
        What relative paths of file arguments count from.

    Raises
    ------
    InputError
        A text is not of the argument's type or not among its choices.
    """
    if argument.type == "bool" and texts[-1] is None:
        return True
    said = [text for text in texts if text is not None]
    if len(said) < len(texts):
        raise InputError(f"{where} has no value", f"write {where}=VALUE ({describe_argument(argument)})")
    if argument.type == "list":
        return [_check_choice(argument, item, where) for item in _list(argument, said, where)]
    if len(said) > 1:
        raise InputError(f"{where} is given {len(said)} times ({said[0]!r}, {said[1]!r})", "give it once")
    if argument.choices:
        return _check_choice(argument, said[0], where)
    if argument.type == "file":
        return _path(said[0], where, cwd)
    return _READERS.get(argument.type, _text)(argument, said[0], where)


def _whole_number(argument: Argument, text: str, where: str) -> JsonValue:
    if not _WHOLE.fullmatch(text):
        raise _not_a("a whole number", argument, text, where)
    return _check_range(argument, int(text), where)


def _number(argument: Argument, text: str, where: str) -> JsonValue:
    try:
        value = float(text)
    except ValueError as error:
        raise _not_a("a number", argument, text, where) from error
    if not math.isfinite(value):  # marshmallow 3 refuses them: fields.Float(allow_nan=False)
        raise _not_a("a finite number", argument, text, where)
    return _check_range(argument, value, where)


def _check_range(argument: Argument, value: float, where: str) -> float:
    if argument.min is not None and value < argument.min:
        raise InputError(f"{where}: {value} is too small", f"it is {argument.min:g} or more")
    if argument.max is not None and value > argument.max:
        raise InputError(f"{where}: {value} is too large", f"it is {argument.max:g} or less")
    return value


def _true_or_false(argument: Argument, text: str, where: str) -> JsonValue:
    if text.lower() not in _TRUE | _FALSE:
        raise _not_a("true or false", argument, text, where)
    return text.lower() in _TRUE


def _dict(_argument: Argument, text: str, where: str) -> JsonValue:
    value = _json(text)
    if not isinstance(value, dict):
        raise InputError(f"{where}: {text!r} is not a JSON object", """write it as '{"key": "value"}'""")
    return value


def _list(argument: Argument, texts: Sequence[str], where: str) -> list[JsonValue]:
    """Return the items: one JSON list, or each text as one."""
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        value = _json(texts[0])
        if not isinstance(value, list):
            raise InputError(f"{where}: {texts[0]!r} is not a JSON list", """write it as '["one", "two"]'""")
        return value
    item = argument.model_copy(update={"type": _item_type(argument), "choices": (), "default": None})
    return [_READERS.get(item.type, _text)(item, text, where) for text in texts]


def _item_type(argument: Argument) -> str:
    """Return the type of a list's items: as declared, or else as the default shows it."""
    if argument.items is not None and argument.items in _READERS:
        return argument.items
    like = argument.default if isinstance(argument.default, list) else []
    is_numbers = bool(like) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in like)
    return "float" if is_numbers and any(isinstance(item, float) for item in like) else "int" if is_numbers else "str"


def _text(argument: Argument, text: str, where: str) -> JsonValue:
    """Return text; quoted as JSON where the module's own default shows that it expects JSON inside the text.

    The modules of the image-classification family declare every argument as `Str(missing=json.dumps(default))` and
    read it with `json.loads`, which fails on a bare word.
    """
    if not _expects_json(argument):
        return text
    expected = _json(str(argument.default))
    if _is_json(text):
        if _is_like(expected, _json(text)):
            return text
        raise InputError(f"{where}: {text!r} is not what the module expects", f"its default is {argument.default}")
    if isinstance(expected, bool) and text.lower() in _TRUE | _FALSE:
        return json.dumps(text.lower() in _TRUE)
    if expected is None or isinstance(expected, str):
        return json.dumps(text, ensure_ascii=False)
    raise InputError(f"{where}: {text!r} is not JSON", f"the module expects JSON here, such as {argument.default}")


def _is_like(expected: JsonValue, value: JsonValue) -> bool:
    """Whether JSON may stand where a default has other JSON: a number is no list, a list no truth value (pure)."""
    if value is None:
        return True
    if isinstance(expected, list | dict):
        return isinstance(value, list | dict)
    return not isinstance(expected, bool) or isinstance(value, bool) or value in (0, 1)


def _expects_json(argument: Argument) -> bool:
    """Whether the default is JSON that plain text would hardly look like; a bare number may be either."""
    default = argument.default
    if argument.type != "str" or not isinstance(default, str):
        return False
    return default in ("true", "false", "null") or (default[:1] in ('"', "[", "{") and _is_json(default))


def _check_choice(argument: Argument, said: JsonValue, where: str) -> JsonValue:
    """Return the choice that was meant: by its text, or by the text inside a choice that is JSON itself."""
    if not argument.choices:
        return said
    forms = {form: choice for choice in reversed(argument.choices) for form in _forms(choice)}
    text = render_value(said)
    if text in forms:
        return forms[text]
    if argument.type in ("int", "float"):
        value = _READERS[argument.type](argument, text, where)
        if any(value == choice for choice in argument.choices if not isinstance(choice, bool)):
            return value
    shown = [render_value(choice) for choice in argument.choices]
    near = difflib.get_close_matches(text, shown, n=1, cutoff=0.6)
    listed = ", ".join(shown[:_MOST_CHOICES]) + (", …" if len(shown) > _MOST_CHOICES else "")
    hint = f"did you mean {near[0]!r}? it takes {listed}" if near else f"it takes {listed}"
    raise InputError(f"{where}: {text!r} is not among its choices", hint)


def _forms(choice: JsonValue) -> tuple[str, ...]:
    """Return the texts that mean a choice."""
    if isinstance(choice, bool):
        return (json.dumps(choice), str(choice))
    if not isinstance(choice, str):
        return (render_value(choice),)
    inner = _json(choice) if _is_json(choice) else None
    return (choice, inner) if isinstance(inner, str) else (choice,)


def _path(text: str, where: str, cwd: Path | None) -> str:
    if _ADDRESS.match(text):
        raise InputError(f"{where}: {text} is an address, not a file", f"bring it first: `deephpc data get {text} .`")
    return text if cwd is None else str(cwd / Path(text).expanduser())


def _not_a(kind: str, argument: Argument, text: str, where: str) -> InputError:
    default = f"; its default is {render_value(argument.default)}" if argument.default is not None else ""
    return InputError(f"{where}: {text!r} is not {kind}", f"{describe_argument(argument)}{default}")


def _json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _is_json(text: str) -> bool:
    return text.strip() == "null" or _json(text) is not None


_READERS: Mapping[str, Callable[[Argument, str, str], JsonValue]] = {
    "int": _whole_number,
    "float": _number,
    "bool": _true_or_false,
    "dict": _dict,
}
