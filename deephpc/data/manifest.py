"""What a data set is made of: every file's path, size and sha256; and a digest for all of it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath

import pydantic

from deephpc.data.storage import Entry
from deephpc.errors import DataError, InputError
from deephpc.model import Model

SCHEMA = "deephpc.manifest/1"
_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 4095
_HINT = "rename it there"


class FileFact(Model):
    """One file of a data set."""

    path: str
    """Below the data set's folder, with `/`."""
    size_bytes: int
    sha256: str
    """Hexadecimal."""


class LeftOut(Model):
    """What stays where it is, since it cannot be brought or sent."""

    path: str
    """As text can hold it; empty for the place itself."""
    reason: str


class Manifest(Model):
    """A data set's files, by path."""

    files: tuple[FileFact, ...]

    @classmethod
    def of(cls, files: Iterable[FileFact]) -> "Manifest":
        """Return the manifest of files in any order."""
        return cls(files=tuple(sorted(files, key=lambda each: each.path)))

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the hash of all paths, sizes and hashes; equal for equal data, wherever it lies."""
        hashed = hashlib.sha256()
        for each in self.files:
            hashed.update(f"{each.sha256} {each.size_bytes} {json.dumps(each.path)}\n".encode())
        return f"sha256:{hashed.hexdigest()}"

    @property
    def size_bytes(self) -> int:
        """How many bytes all files have."""
        return sum(each.size_bytes for each in self.files)


class _Document(Model):
    schema_: str = pydantic.Field(alias="schema")
    digest: str
    files: tuple[FileFact, ...]


def render_manifest(manifest: Manifest) -> str:
    """Return a manifest as JSON, one file a line."""
    rows = ",\n".join(json.dumps(each.model_dump(), ensure_ascii=False) for each in manifest.files)
    return f'{{"schema": "{SCHEMA}", "digest": "{manifest.digest}", "files": [\n{rows}\n]}}\n'


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises
    ------
    InputError
        It is none, or its digest is not that of its files.
    """
    hint = "take a file that `deephpc data get --manifest FILE` or `put --manifest FILE` wrote"
    try:
        document = _Document.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(f"{where} is not a manifest: {error.errors()[0]['msg']}", hint) from error
    manifest = Manifest(files=document.files)
    if document.schema_ != SCHEMA or document.digest != manifest.digest:
        raise InputError(f"{where} is not a manifest, or somebody changed it", hint)
    for each in manifest.files:
        check_path(each.path, where)
    return manifest


def left_out_of(failures: Mapping[str, DataError], what: str) -> tuple[LeftOut, ...]:
    """Return files that failed, by path."""
    told = ((path, f"{what}: {failures[path].message}") for path in sorted(failures))
    return tuple(LeftOut(path=shown_name(path), reason=reason) for path, reason in told)


def told_left_out(where: str, left_out: Sequence[LeftOut]) -> str:
    """Return what is left out of a place as one line."""
    first, more = left_out[0], f"; and {len(left_out) - 1} more" if left_out[1:] else ""
    return f"{where}{first.path and ': '}{first.path} {first.reason}{more}"


def check_entries(entries: Iterable[Entry], where: str) -> tuple[Entry, ...]:
    """Return the files of a listing by path, once all of them can lie in one folder here.

    Raises
    ------
    DataError
        A name leads out of the folder or is none here, or is a file's and a folder's at once.
    """
    found, left_out = sort_out(entries)
    if left_out:
        raise DataError(f"{where} has a file named {left_out[0].path!r}, which {left_out[0].reason}", _HINT)
    return found


def sort_out(entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], tuple[LeftOut, ...]]:
    """Return the files of a listing that can lie in one folder here, by path, and what is left out of it."""
    found: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for each in entries:
        reason = each.left_out or fault_of(each.path)
        if reason:
            left_out[each.path] = reason
        else:
            found[each.path] = each
    folders = {str(folder) for path in found for folder in PurePosixPath(path).parents}
    left_out |= {path: "is a file and a folder at once" for path in found if path in folders}
    facts = (LeftOut(path=shown_name(path), reason=left_out[path]) for path in sorted(left_out))
    return tuple(found[path] for path in sorted(found) if path not in left_out), tuple(facts)


def entry_named(name: str, *, is_folder: bool) -> Entry:
    """Return an entry of a list that tells names alone; of a name that no file here can have, why it is left out."""
    return Entry(name, is_folder=is_folder, left_out="has a / in its name" if "/" in name else fault_of(name))


def check_path(path: str, where: str) -> None:
    """Refuse a path that would lead out of the folder it is put into, or that no file can have."""
    fault = fault_of(path)
    if fault:
        raise DataError(f"{where} has a file named {shown_name(path)[:60]!r}, which {fault}", _HINT)


def fault_of(path: str) -> str:
    """Return why no file in a folder here can have a path; empty where one can."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        return "cannot lie in a folder here"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not UTF-8"
    if max(sizes) > _LONGEST_NAME_BYTES or sum(sizes) + len(sizes) > _LONGEST_PATH_BYTES:
        return "is too long for a name here"
    return ""


def shown_name(name: str) -> str:
    r"""Return a name as text can hold it: bytes that are not UTF-8 as `\xff`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()
