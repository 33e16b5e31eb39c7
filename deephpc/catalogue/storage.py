"""Catalogues in folders, here or on any storage fsspec reaches: one folder per module with its metadata in it."""

import fnmatch
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

import fsspec  # type: ignore[import-untyped] # it has no types

from deephpc.catalogue.copies import FileCopy, ModuleCopy, SourceCopy
from deephpc.catalogue.document import MAX_BYTES, UnreadableError, decode
from deephpc.catalogue.index_file import is_module_name
from deephpc.catalogue.source import Source
from deephpc.catalogue.web import Answer, UnreachableError

_METADATA_NAMES = ("*metadata*.yml", "*metadata*.yaml", "*metadata*.json")
_LOOSE_NAMES = ("*.yml", "*.yaml", "*.json")
#: What programs in any storage raise for a place that cannot be read; fsspec promises no more than OSError.
_TROUBLES = (OSError, ValueError, ImportError, RuntimeError)


class FileSystem(Protocol):
    """What we use of fsspec's AbstractFileSystem."""

    def exists(self, path: str) -> bool: ...  # noqa: D102 - fsspec's
    def isfile(self, path: str) -> bool: ...  # noqa: D102
    def isdir(self, path: str) -> bool: ...  # noqa: D102
    def ls(self, path: str, detail: bool) -> list[Any]: ...  # noqa: D102
    def ukey(self, path: str) -> object: ...  # noqa: D102
    def open(self, path: str, mode: str) -> IO[bytes]: ...  # noqa: D102


class Storage:
    """A Fetcher of files by fsspec; the store's own key of a file stands for the ETag."""

    def fetch(self, url: str, etag: str = "", last_modified: str = "") -> Answer:  # noqa: ARG002 - as the Protocol has it
        """Get a file unless its key is still this one."""
        try:
            system, path = open_storage(url)
            if not system.isfile(path):
                return Answer(is_missing=True)
            key = str(system.ukey(path))
            return Answer(etag=key) if key == etag else Answer(_read(system, path), key)
        except _TROUBLES as error:
            raise UnreachableError(f"{url}: {error}", "check the address and its permissions") from error


def is_folder(source: Source) -> bool:
    """Whether a source is a folder rather than an index in a file.

    Raises
    ------
    UnreachableError
        Nothing is there.
    """
    try:
        system, path = open_storage(source.url)
        if not system.exists(path):
            raise UnreachableError(
                f"{source.url}: there is no such folder", "check it with `deephpc catalogue sources`"
            )
        return bool(system.isdir(path))
    except _TROUBLES as error:
        raise UnreachableError(f"{source.url}: {error}", "check the address and its permissions") from error


def scan_folder(source: Source, last: SourceCopy | None, now: datetime) -> Iterator[ModuleCopy]:
    """Yield a copy of each module in a folder, by name.

    A module is a folder with metadata in it, or a loose metadata file. Hidden folders and those that begin with `_`
    are none. `OWNER__NAME` is a folder for NAME.
    """
    known = {copy.repository: copy for copy in last.modules} if last else {}
    try:
        system, path = open_storage(source.url)
        found = sorted(system.ls(path, detail=True), key=lambda entry: str(entry["name"]))
    except _TROUBLES as error:
        raise UnreachableError(f"{source.url}: {error}", "check the address and its permissions") from error
    for entry in found:
        place = str(entry["name"])
        stem = PurePosixPath(place).name
        if stem.startswith((".", "_")):
            continue
        is_file = entry["type"] == "file"
        if is_file and not _matches(stem, _LOOSE_NAMES):
            continue
        name = (PurePosixPath(stem).stem if is_file else stem).rpartition("__")[2]
        if is_module_name(name):
            copy = _read_module(system, place, name, known.get(place), now, is_file=is_file)
            if copy is not None:
                yield copy


def open_storage(url: str) -> tuple[FileSystem, str]:
    """Return fsspec's file system of an address and the path in it."""
    system, path = fsspec.core.url_to_fs(url)
    return system, path


def _read_module(
    system: FileSystem, place: str, name: str, last: ModuleCopy | None, now: datetime, *, is_file: bool
) -> ModuleCopy | None:
    """Return a module's copy; None when the folder has no metadata."""
    try:
        paths = [place] if is_file else [str(each) for each in system.ls(place, detail=False)]
        wanted = [path for path in paths if is_file or _matches(PurePosixPath(path).name, _METADATA_NAMES)]
        files = tuple(FileCopy(name=PurePosixPath(path).name, text=_read(system, path)) for path in sorted(wanted))
    except _TROUBLES as error:
        if last is not None:
            return last.model_copy(update={"trouble": f"{place}: {error}"})
        return ModuleCopy(name=name, repository=place, as_of=now, trouble=f"{place}: {error}")
    return ModuleCopy(name=name, repository=place, files=files, as_of=now) if files else None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not name.startswith(".") and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _read(system: FileSystem, path: str) -> str:
    with system.open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    try:
        return decode(raw)
    except UnreadableError as error:
        raise ValueError(f"line {error.line}: {error.reason}") from error
