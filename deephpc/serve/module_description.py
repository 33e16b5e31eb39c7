"""What a DEEPaaS module says of itself, and the copies of that kept by image digest."""

import contextlib
import hashlib
import re
import stat
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from deephpc.errors import InputError, SiteError
from deephpc.model import Model
from deephpc.whole_file import replacing

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
ACCEPT = "accept"
"""The argument that names the form of an answer (deepaas/api/v2/predict.py); deephpc fills it in."""
ANY_FORM = "*/*"
#: Names people and DEEPaaS's Swagger use → ours. Types that are not here stay as they are and are taken for text.
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "double": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "nested": "dict",
}


class _Tolerant(Model):
    """What a newer deephpc wrote for the whole group is read, but for what is not known here."""

    model_config = ConfigDict(extra="ignore")


class Argument(_Tolerant):
    """One argument a module declares for training or prediction."""

    name: str
    type: str = "str"
    """`str`, `int`, `float`, `bool`, `list`, `dict`, `file`; anything else is taken for text."""
    required: bool = False
    default: JsonValue = None
    choices: tuple[JsonValue, ...] = ()
    """The only values it takes; empty for any."""
    min: float | None = None
    """The least a number may be."""
    max: float | None = None
    """The most a number may be."""
    items: str | None = None
    """The type of a list's items."""
    is_secret: bool = False
    """Whether it is a password or the like, which is not to lie about."""
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _ours_to_fill(cls, value: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        if not isinstance(value, dict) or value.get("name") != ACCEPT:
            return value
        choices = [choice for choice in value.get("choices") or () if choice != ANY_FORM]
        return {**value, "required": False, "choices": choices}

    @field_validator("type", "items", mode="before")
    @classmethod
    def _our_word(cls, value: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        return _TYPES.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("min", "max", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        return value if isinstance(value, int | float) else None  # bounds of dates are text

    @field_validator("choices", mode="before")
    @classmethod
    def _no_choices(cls, value: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
        return () if value is None else value


class Method(_Tolerant):
    """Training or prediction, as a module offers it."""

    exists: bool = False
    arguments: tuple[Argument, ...] = ()


class ImportFailure(_Tolerant):
    """Why an image has no module that can be used."""

    message: str
    traceback: str | None = None
    kind: str = ""
    """`no-deepaas` or `no-module` where nothing is installed, `several` or `unknown-model` where it is not clear which
    is meant; empty where it may work on another machine."""


class ModuleFolders(_Tolerant):
    """Where a module keeps what it reads and makes, by its own configuration; paths inside its image."""

    data: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class ModuleDescription(_Tolerant):
    """What `deepaas_module.py describe` found in an image."""

    schema_name: Literal["deephpc.module/3"] = Field(
        "deephpc.module/3", serialization_alias="schema", validation_alias="schema"
    )
    deepaas: str = ""
    """Version of DEEPaaS in the image."""
    python: str = ""
    models: tuple[str, ...] = ()
    """Names of all modules in the image."""
    served: str | None = None
    """The one that is described; None when there is an error."""
    error: ImportFailure | None = None
    metadata: JsonValue = None
    """What the module says of itself, in words of its own."""
    folders: ModuleFolders = ModuleFolders()
    train: Method = Method()
    predict: Method = Method()


def description_path(cache_dir: Path, digest: str, which: str = "") -> Path:
    """Return where the description of an image is kept.

    Parameters
    ----------
    which
        What tells several of one image apart: the name of a module, other models than its own.

    Raises
    ------
    InputError
        The digest is not `sha256:` and 64 hexadecimal digits.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InputError(f"{digest!r} is not the digest of an image", "it looks like sha256: and 64 hexadecimal digits")
    mark = f".{hashlib.sha256(which.encode()).hexdigest()[:16]}" if which else ""
    return cache_dir / "modules" / f"sha256-{match[1]}{mark}.json"


def load_description(cache_dir: Path, digest: str, which: str = "") -> ModuleDescription | None:
    """Return what is kept of the module in an image; None when there is nothing, or nothing this version reads."""
    try:
        return parse_description(description_path(cache_dir, digest, which).read_bytes())
    except (OSError, ValidationError):
        return None


def parse_description(text: bytes | str) -> ModuleDescription:
    """Read what `deepaas_module.py describe` printed.

    Raises
    ------
    pydantic.ValidationError
        It is something else.
    """
    return ModuleDescription.model_validate_json(text)


def write_description(cache_dir: Path, digest: str, description: ModuleDescription, which: str = "") -> None:
    """Keep a description for everybody who shares the cache, whole or not at all.

    Raises
    ------
    SiteError
        The cache cannot be written.
    """
    path = description_path(cache_dir, digest, which)
    text = description.model_dump_json(by_alias=True, indent=1) + "\n"
    try:
        _make_folder(path.parent)
        with replacing(path, 0o644) as file:
            file.write(text.encode())
    except OSError as error:
        raise SiteError(
            f"cannot write {path}: {error.strerror or error}", "check the folder's permissions, free space and quota"
        ) from error


def _make_folder(folder: Path) -> None:
    """Make the folder; the group may write in it where it may write in the cache."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shared = folder.parent.stat().st_mode & (stat.S_IWGRP | stat.S_ISGID)
    with contextlib.suppress(PermissionError):  # a colleague made it in this very moment
        folder.chmod(0o755 | shared)
