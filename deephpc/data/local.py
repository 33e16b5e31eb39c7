"""The file system of this machine as storage."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from deephpc.data.disk import unreadable, unwritable
from deephpc.data.location import join
from deephpc.data.manifest import fault_of
from deephpc.data.storage import ByteStream, Entry, Limits, Missing, Upload, changed, unlisted
from deephpc.data.surroundings import Surroundings
from deephpc.errors import DataError
from deephpc.room import why_refused

_CHUNK_BYTES = 1 << 20


class LocalStorage:
    """Files and folders by absolute path; links to files count as files, links to folders are not followed."""

    parallel = 8
    can_write = True
    is_certain = True

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        del settings, limits, around
        self._prefix = prefix

    def show(self, path: str) -> str:
        """Return the path."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Look at a path, through links."""
        try:
            found = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(path, error) from error
        return entry_of(found, "", path)

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what is directly in a folder."""
        for name in _names(path):
            full = join(path, name)
            found = Path(full).stat() if Path(full).exists() else Path(full).lstat()
            if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                yield replace(entry_of(found, name, full), left_out=fault_of(name))

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below; left out is what is neither a file nor a folder, and what is a link to no file."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                names = _names(join(path, below))
            except DataError as error:
                yield unlisted(below, error)
                continue
            for name in names:
                relative = join(below, name)
                full = join(path, relative)
                if fault_of(name):  # a folder's is told once, not with all that is in it
                    yield Entry(relative, left_out=fault_of(name))
                    continue
                if Path(full).is_dir() and not Path(full).is_symlink():
                    waiting.append(relative)
                    continue
                yield _file_entry(full, relative)

    @contextmanager
    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> Iterator[ByteStream]:
        """Open a file's bytes."""
        try:
            with Path(path).open("rb", buffering=0) as file:
                if entry_of(os.fstat(file.fileno()), "", path).version != entry.version:
                    raise changed(path)
                yield ByteStream(start, _chunks(file.fileno(), start, stop))
                if entry_of(os.fstat(file.fileno()), "", path).version != entry.version:
                    raise changed(path)
        except FileNotFoundError as error:
            raise changed(path) from error
        except OSError as error:
            raise unreadable(path, error) from error

    def write(self, path: str, upload: Upload) -> Entry:
        """Copy a file: temporary name, sync, rename."""
        target = Path(path)
        draft = target.with_name(f".{upload.key}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb", buffering=0) as file:
                at = 0
                while at < upload.size_bytes:
                    upload.check()
                    chunk = upload.read(at, min(_CHUNK_BYTES, upload.size_bytes - at))
                    file.write(chunk)
                    at += len(chunk)
                    upload.advance(len(chunk))
                os.fsync(file.fileno())
            os.utime(draft, (upload.modified_s, upload.modified_s))
            draft.replace(target)
            return entry_of(target.stat(), "", path)
        except OSError as error:
            with suppress(OSError):  # there may be no such folder
                draft.unlink(missing_ok=True)
            raise unwritable(path, error) from error

    def remove(self, path: str) -> None:
        """Remove a file."""
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error

    def close(self) -> None:
        """Do nothing."""


def entry_of(found: os.stat_result, relative: str, path: str) -> Entry:
    """Return what stat(2) tells; its version changes with every write, and also when the file is replaced.

    Raises
    ------
    DataError
        It is a device, a pipe or a socket.
    """
    if stat.S_ISDIR(found.st_mode):
        return Entry(relative, is_folder=True, modified_s=found.st_mtime)
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is neither a file nor a folder", "move it elsewhere, or name its neighbours")
    version = f"{found.st_mtime_ns}.{found.st_ctime_ns}.{found.st_ino}"
    return Entry(relative, found.st_size, version, found.st_mtime)


def _file_entry(full: str, relative: str) -> Entry:
    try:
        found = Path(full).stat()
    except OSError as error:
        is_link = Path(full).is_symlink()
        return Entry(relative, left_out="is a link to nothing" if is_link else f"cannot be read: {why_refused(error)}")
    if stat.S_ISDIR(found.st_mode):
        return Entry(relative, left_out="is a link to a folder, which is not followed")
    if not stat.S_ISREG(found.st_mode):
        return Entry(relative, left_out="is neither a file nor a folder")
    return entry_of(found, relative, full)


def _names(path: str) -> list[str]:
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208 - names alone
    except FileNotFoundError as error:
        raise Missing(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    return names


def _chunks(file: int, start: int, stop: int) -> Iterator[bytes]:
    at = start
    while at < stop:
        chunk = os.pread(file, min(_CHUNK_BYTES, stop - at), at)
        if not chunk:
            return
        yield chunk
        at += len(chunk)
