"""Reads TOML files into models, and says in words what is wrong with them: file, key, value, nearest valid key."""

import difflib
import re
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deephpc.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

M = TypeVar("M", bound=BaseModel)

#: Pydantic's error types in the words of someone who writes TOML.
_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": 'a list, such as ["one", "two"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "time_delta_type": "a length of time",
    "time_delta_parsing": "a length of time",
    "path_type": "a path in quotes",
}

_MANUAL = "docs/reference/settings.md says what each key may be"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InputError
        The file is missing, unreadable, not UTF-8, or not TOML; the message carries the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values: dict[str, Any] = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})", "save the file as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "check the path and its permissions") from error
    except tomllib.TOMLDecodeError as error:
        line, reason = _line_and_reason(str(error), text)
        raise InputError(
            f"{path}:{line}: not valid TOML: {reason}", "text needs quotes; see https://toml.io"
        ) from error
    return values


def parse_model(model: type[M], values: dict[str, Any], where: str) -> M:
    """Check values against a model.

    Parameters
    ----------
    where
        What the values come from, for the message: a file's path, or `environment SBATCH_TIMELIMIT`.

    Raises
    ------
    InputError
        A key is unknown or a value is bad; names `where`, the dotted key, the value and the nearest valid key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _in_words(model, error.errors()[0], values, where) from error


def _in_words(model: type[BaseModel], error: ErrorDetails, values: object, where: str) -> InputError:
    path = _path_in_file(error["loc"])
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        parent = _keys_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], parent, n=1, cutoff=0.5)
        hint = (
            f"did you mean {'.'.join((*path[:-1], *near))!r}?" if near else f"valid here: {', '.join(sorted(parent))}"
        )
        return InputError(f"{where}: unknown key {key!r}", hint)
    if error["type"] == "missing":
        return InputError(f"{where}: the key {key!r} is missing", f"add {key} = …")
    said = f"{where}: {key} = {_value_at(values, path, error['input'])!r}"
    return InputError(said + _reason(error), _nearest_choice(error) or _MANUAL)


def _value_at(values: object, path: tuple[str, ...], fallback: object) -> object:
    """Return the value as it was written; pydantic may have converted what it complains about."""
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return fallback
        values = values[part]
    return values


def _reason(error: ErrorDetails) -> str:
    if error["type"] in _EXPECTED:
        return f" should be {_EXPECTED[error['type']]}"
    message = error["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return f" should be {message.removeprefix('Input should be ')}"
    return f": {message}"


def _path_in_file(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Drop what pydantic adds to a location: `[key]` for a dictionary's key, and branches of a union."""
    return tuple(str(part) for part in loc if not str(part).startswith(("[key]", "function-", "constrained-")))


def _keys_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Return the keys that are valid in the table at `path`."""
    kind: object = model
    for part in path:
        kind = _inner(kind, part)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _inner(kind: object, part: str) -> object:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(part)
        return None if field is None else _bare(field.annotation)
    if get_origin(kind) is dict:
        return _bare(get_args(kind)[1])
    return None


def _bare(kind: object) -> object:
    """Strip Annotated and Optional off a type."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return next((_bare(each) for each in get_args(kind) if each is not type(None)), None)
    return kind


def _nearest_choice(error: ErrorDetails) -> str:
    choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else ""


def _line_and_reason(message: str, text: str) -> tuple[int, str]:
    """Split tomllib's `… (at line 3, column 5)` or `… (at end of document)`."""
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if match is None:
        return 1, message
    return int(match[1]) if match[1] else max(1, len(text.splitlines())), message[: match.start()]
