"""Whether a folder takes what is about to be written, and why a disk refused it, in words."""

import errno
import os
from pathlib import Path

_SPARE_INODES = 16
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
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


def lacking_room(folder: Path, size_bytes: int, files: int) -> str | None:
    """Say what a folder, or the place where it will be made, lacks to take so much; None when nothing.

    A quota shows only when a write is refused.

    Raises
    ------
    OSError
        Nothing can be found out about it.
    """
    stats = os.statvfs(next(each for each in (folder, *folder.parents) if each.exists()))
    free_bytes = stats.f_bavail * stats.f_frsize
    if free_bytes < size_bytes:
        return f"{folder} has {render_size(free_bytes)} free, {render_size(size_bytes)} are needed"
    if stats.f_files and stats.f_favail < files + _SPARE_INODES:
        return f"{folder} has {stats.f_favail} inodes free, {files + _SPARE_INODES} are needed"
    return None


def is_full(error: OSError) -> bool:
    """Say whether a write failed for want of room."""
    return error.errno in _FULL


def why_refused(error: OSError) -> str:
    """Return what an operating system's error means to who wanted to read or write."""
    return _WHY_NOT.get(error.errno or 0, error.strerror or str(error))


def render_size(size_bytes: float) -> str:
    """Return a size for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
