"""The copies of catalogues kept here: one JSON file per source, replaced whole, so that readers need no locks."""

import gzip
import json
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from deephpc.errors import SiteError
from deephpc.model import Model
from deephpc.whole_file import replacing


class FileCopy(Model):
    """A metadata file as it was last fetched, with what the server said to ask again by."""

    name: str
    text: str
    etag: str = ""
    last_modified: str = ""


class ModuleCopy(Model):
    """The last good copy of a module's metadata."""

    name: str
    repository: str = ""
    files: tuple[FileCopy, ...] = ()
    licence: str = ""
    """As recorded beside the metadata, where it was."""
    as_of: datetime
    """When this copy was last known to be the current one."""
    trouble: str = ""
    """Why the last update got nothing newer; empty when it did."""


class SourceCopy(Model):
    """The last good copy of one catalogue."""

    name: str
    url: str
    index: FileCopy | None = None
    """Its index; None when it is a plain folder."""
    modules: tuple[ModuleCopy, ...] = ()
    as_of: datetime
    trouble: str = ""
    """Why the last update did not reach it; empty when it did."""


_SNAPSHOT = TypeAdapter(tuple[SourceCopy, ...])


def copy_path(folder: Path, source: str) -> Path:
    """Return where the copy of a source is kept in the catalogue folder of the cache."""
    return folder / f"{source}.json"


def load_copy(folder: Path, source: str, url: str) -> SourceCopy | None:
    """Return the copy of a source; None when there is none, it is of another address, or cannot be read."""
    try:
        copy = SourceCopy.model_validate_json(copy_path(folder, source).read_bytes())
    except (OSError, ValidationError):
        return None
    return copy if copy.url == url else None


def write_copy(folder: Path, copy: SourceCopy) -> None:
    """Keep a copy in place of the one before."""
    write_file(copy_path(folder, copy.name), copy.model_dump_json().encode())


def load_snapshot(path: Path) -> tuple[SourceCopy, ...]:
    """Return the catalogues that ship with deephpc."""
    return _SNAPSHOT.validate_json(gzip.decompress(path.read_bytes()))


def render_snapshot(copies: tuple[SourceCopy, ...]) -> bytes:
    """Return the file that ships, the same bytes for the same copies."""
    values = [copy.model_dump(mode="json", exclude_defaults=True) for copy in copies]
    return gzip.compress(json.dumps(values, sort_keys=True, ensure_ascii=False).encode(), 9, mtime=0)


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, and the folder it is in.

    Raises
    ------
    SiteError
        The place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode) as file:
            file.write(content)
    except OSError as error:
        raise SiteError(
            f"cannot write {path}: {error.strerror or error}", "check the folder's permissions, free space and quota"
        ) from error
