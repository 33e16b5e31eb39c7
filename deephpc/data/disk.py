"""What the local disk refuses, in words: full, over quota, forbidden, read-only; and whether there is room."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deephpc.data.storage import Missing, Refused, Unwritable
from deephpc.errors import DataError

_Found = TypeVar("_Found")
_SPARE_BYTES = 1 << 20
_SPARE_INODES = 16
_WHY_NOT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "over quota",
    errno.EFBIG: "larger than a file may be there",
    errno.EROFS: "read-only file system",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOTDIR: "a file lies where a folder should be",
    errno.EEXIST: "a file lies where a folder should be",
    errno.EISDIR: "a folder lies where a file should be",
    errno.ENOTEMPTY: "a folder lies where a file should be",
    errno.ENAMETOOLONG: "its name is too long for this file system",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_room(folder: Path, size_bytes: int, files: int) -> None:
    """Refuse to begin what would not fit; a quota shows only when a write is refused.

    Raises
    ------
    Unwritable
        Less is free than needed.
    """
    try:
        stats = os.statvfs(next(each for each in (folder, *folder.parents) if each.exists()))
    except OSError as error:
        raise unwritable(folder, error) from error
    free_bytes = stats.f_bavail * stats.f_frsize
    if free_bytes < size_bytes + _SPARE_BYTES:
        raise Unwritable(
            f"{folder} has {free_bytes >> 20} MiB free, {(size_bytes >> 20) + 1} MiB are needed",
            "free space there, or name another folder",
        )
    if stats.f_files and stats.f_favail < files + _SPARE_INODES:
        raise Unwritable(
            f"{folder} has {stats.f_favail} inodes free, {files + _SPARE_INODES} are needed",
            "remove files there, or name another folder",
        )


def made_folder_for(path: Path, work: Callable[[], _Found]) -> _Found:
    """Return what work on a path returns; its folder is made where it turns out to lack: to look first costs more."""
    try:
        return work()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return work()


def unwritable(place: Path | str, error: OSError) -> Unwritable:
    """Return the error for a place that cannot be written."""
    hint = "free space there, then say it again: it goes on" if error.errno in _FULL else "name another place"
    return Unwritable(f"cannot write {place}: {_reason(error)}", hint)


def unreadable(place: Path | str, error: OSError) -> DataError:
    """Return the error for a place that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return Missing(f"{place} does not exist", "check the path")
    return Refused(f"cannot read {place}: {_reason(error)}", "check its permissions")


def _reason(error: OSError) -> str:
    return _WHY_NOT.get(error.errno or 0, error.strerror or str(error))
