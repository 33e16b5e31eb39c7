"""Everything else that fsspec speaks, by its URL; what a protocol needs beyond fsspec is named when it is missing.

Credentials come from where that protocol's library looks for them, or from fsspec's own configuration.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec  # type: ignore[import-untyped] # it ships no types
from fsspec.registry import known_implementations  # type: ignore[import-untyped] # as above

from deephpc.data.storage import ByteStream, Entry, Interrupted, Limits, Missing, Refused, Unwritable, Upload, missing
from deephpc.data.surroundings import Surroundings
from deephpc.errors import DataError, DeephpcError, InputError

_CHUNK_BYTES = 1 << 20
_VERSION_KEYS = ("etag", "ETag", "checksum", "mtime", "modified", "updated", "last_modified", "LastModified", "created")


class FsspecStorage:
    """Files of any file system that fsspec knows; slower than ours, as only one thread uses it at a time."""

    parallel = 1
    can_write = True
    is_certain = False

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        del limits, around
        self._prefix = prefix
        self._system, self._root = _open(settings["protocol"], settings["rest"])
        self._turn = threading.RLock()

    def show(self, path: str) -> str:
        """Return a path's full name."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Ask for one file or folder."""
        try:
            with self._translated(path):
                return _entry(self._system.info(self._full(path)), "")
        except Missing:
            return None

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what is directly in a folder."""
        with self._translated(path):
            found = self._system.ls(self._full(path), detail=True)
        for each in found:
            yield _entry(each, str(each["name"]).rstrip("/").rpartition("/")[2])

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below."""
        top = self._full(path).strip("/")
        with self._translated(path):
            found = self._system.find(self._full(path), detail=True)
        for name, facts in found.items():
            yield _entry(facts, str(name).strip("/")[len(top) :].lstrip("/"))

    @contextmanager
    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> Iterator[ByteStream]:
        """Open a file's bytes, from its beginning where the file system cannot seek."""
        del entry
        with self._translated(path), self._system.open(self._full(path), "rb") as file:
            begins = start if file.seekable() else 0
            if begins:
                file.seek(begins)
            yield ByteStream(begins, _chunks(file, stop - begins))

    def write(self, path: str, upload: Upload) -> Entry:
        """Write a file under another name and rename it."""
        full = self._full(path)
        folder = full.rpartition("/")[0]
        draft = f"{folder}/.{upload.key}.part" if folder else f".{upload.key}.part"
        with self._translated(path):
            if folder:
                self._system.makedirs(folder, exist_ok=True)
            with self._system.open(draft, "wb") as file:
                at = 0
                while at < upload.size_bytes:
                    upload.check()
                    chunk = upload.read(at, min(_CHUNK_BYTES, upload.size_bytes - at))
                    file.write(chunk)
                    at += len(chunk)
                    upload.advance(len(chunk))
            self._system.mv(draft, full)
            self._system.invalidate_cache()
            return _entry(self._system.info(full), "")

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._translated(path):
            self._system.rm_file(self._full(path))

    def close(self) -> None:
        """Do nothing: fsspec keeps its own connections."""

    def _full(self, path: str) -> str:
        """Return a path as the file system takes it."""
        return str(self._system._strip_protocol(f"{self._prefix}{path}"))

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        shown = self.show(path)
        with self._turn:
            try:
                yield
            except DeephpcError:
                raise
            except (FileNotFoundError, NotADirectoryError) as error:
                raise missing(shown) from error
            except PermissionError as error:
                raise Refused(f"{shown}: the storage forbids it", "check the credentials") from error
            except NotImplementedError as error:
                raise Refused(f"{shown}: fsspec cannot do this there", "copy it by other means") from error
            except (TimeoutError, ConnectionError) as error:
                raise Interrupted(f"{shown}: the connection broke") from error
            except OSError as error:
                raise Unwritable(
                    f"{shown}: {' '.join(str(error).split())}", "check the address and the room"
                ) from error


def _open(protocol: str, rest: str) -> tuple[Any, str]:
    known = known_implementations.get(protocol)
    if known is None:
        raise InputError(
            f"no storage speaks {protocol}://", "write a path, REMOTE:PATH, or file, http(s), sftp, webdav(s), s3 URLs"
        )
    try:
        system, root = fsspec.core.url_to_fs(f"{protocol}://{rest}")
        return system, str(root)
    except ImportError as error:
        hint = known.get("err", f"Please install what {error.name} comes with")
        raise InputError(f"{protocol}:// needs more than deephpc brings", hint) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{protocol}:// cannot be opened ({type(error).__name__})", "check the address") from error


def _entry(facts: Mapping[str, Any], path: str) -> Entry:
    if facts.get("type") == "directory":
        return Entry(path, is_folder=True)
    version = next((str(facts[key]) for key in _VERSION_KEYS if facts.get(key)), "")
    modified = facts.get("mtime")
    size = facts.get("size")
    return Entry(path, size, version, float(modified) if isinstance(modified, int | float) else None)


def _chunks(file: Any, size_bytes: int) -> Iterator[bytes]:  # noqa: ANN401 - a file of any file system
    left = size_bytes
    while left > 0:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:
            return
        yield chunk
        left -= len(chunk)
