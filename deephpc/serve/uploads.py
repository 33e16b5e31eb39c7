"""Turns Python values into what a prediction sends: texts, and files to upload."""

import contextlib
import io
import json
import mimetypes
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from deephpc.errors import InputError

_UNNAMED = "input"


class SentFile(NamedTuple):
    """A file to send; its content can be read again from the beginning."""

    name: str
    content: IO[bytes]
    kind: str
    """Its content type, by its name."""


def open_upload(stack: contextlib.ExitStack, path: Path) -> SentFile:
    """Return a file of this machine, open as long as the stack is.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        return SentFile(path.name, stack.enter_context(path.open("rb")), _kind(path.name))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "is it the right file?") from error


def as_upload(name: str, value: object) -> SentFile | None:
    """Return what a file argument was given in place of a path: bytes, an open file, or a pair of a name and either.

    None for a path.

    Raises
    ------
    InputError
        It is neither.
    """
    if isinstance(value, str | Path):
        return None
    called, content = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
    if isinstance(content, bytes | bytearray | memoryview):
        return SentFile(str(called or _UNNAMED), io.BytesIO(content), _kind(str(called or "")))
    read = getattr(content, "read", None)
    if not callable(read):
        raise InputError(
            f"{name} is a file, and was given {type(value).__name__}", "give a path, bytes or an open file"
        )
    called = str(called or Path(str(getattr(content, "name", _UNNAMED))).name)
    if isinstance(content, io.BufferedReader | io.BytesIO | io.FileIO) and content.seekable():
        return SentFile(called, content, _kind(called))
    return SentFile(called, io.BytesIO(_bytes(name, read())), _kind(called))


def texts_of(value: Any) -> list[str]:  # noqa: ANN401 - whatever a script passes
    """Return the texts that are sent for a value: one for each item of a sequence, none for None."""
    if value is None:
        return []
    if hasattr(value, "tolist"):  # of NumPy and its like
        value = value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Path):
        return [_text(each) for each in value]
    return [_text(value)]


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a script passes
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, bool | dict | list) else str(value)


def _bytes(name: str, content: object) -> bytes:
    if not isinstance(content, bytes | bytearray):
        raise InputError(f"{name} is a file of text", "open it with 'rb': what is sent are its bytes")
    return bytes(content)


def _kind(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
