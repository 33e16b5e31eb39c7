"""Whether a folder takes what is about to be written: free space, inodes, quota; and the errors when it does not."""

import errno
import os
import shutil
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.shell import CommandNotFound, run

_QUOTA_TIMEOUT_S = 5.0

#: What the store needs beside the image's own bytes and files.
_SPARE_BYTES = 16 << 20
_SPARE_INODES = 16
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "over quota",
    errno.EROFS: "read-only file system",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOTDIR: "a file lies where a folder should be",
    errno.EEXIST: "a file lies where a folder should be",
}
_HINT = "`deephpc image gc` frees space there; `cache_dir` (or DEEPHPC_CACHE_DIR) names another place"


def check_room(folder: Path, size_bytes: int, files: int) -> None:
    """Refuse to begin what would not fit.

    A quota of neither quota(1) nor lfs(1) shows only when a write is refused.

    Raises
    ------
    SiteError
        Less is free than needed.
    """
    try:
        stats = os.statvfs(next(each for each in (folder, *folder.parents) if each.exists()))
    except OSError as error:
        raise unwritable(folder, error) from error
    free_bytes = stats.f_bavail * stats.f_frsize
    if free_bytes < size_bytes + _SPARE_BYTES:
        raise SiteError(
            f"{folder} has {render_size(free_bytes)} free, {render_size(size_bytes + _SPARE_BYTES)} are needed", _HINT
        )
    if stats.f_files and stats.f_favail < files + _SPARE_INODES:
        raise SiteError(f"{folder} has {stats.f_favail} inodes free, {files + _SPARE_INODES} are needed", _HINT)


def check_quota(folder: Path, size_bytes: int, files: int) -> None:
    """Refuse to begin what the user's quota does not hold, where lfs(1) or quota(1) tells it.

    Raises
    ------
    SiteError
        Less is left than needed.
    """
    place = next(each for each in (folder, *folder.parents) if each.exists())
    for argv in (
        ["lfs", "quota", "-q", "-u", str(os.getuid()), str(place)],
        ["quota", "--no-wrap", "--raw-grace", "--show-mntpoint", "--hide-device"],
    ):
        if shutil.which(argv[0]) is None:
            continue
        try:
            told = run(argv, timeout_s=_QUOTA_TIMEOUT_S).stdout
        except CommandNotFound:
            continue
        left = parse_quota(told, place)
        if left is None:
            continue
        for amount, needed, word in zip(left, (size_bytes, files), ("bytes", "files"), strict=True):
            if amount is not None and amount < needed:
                raise SiteError(f"your quota on {folder} has {amount} {word} left, {needed} are needed", _HINT)


def parse_quota(text: str, folder: Path) -> tuple[int | None, int | None] | None:
    """Read what quota(1) 4.06 or lfs(1) 2.15 prints: mount point, KiB, soft, hard, grace, files, soft, hard, grace.

    Returns
    -------
    tuple or None
        Bytes and files left, None where unlimited; None for all when no line is about the folder.
    """
    best, found = "", None
    for line in text.splitlines():
        words = [word.rstrip("*") for word in line.split()]
        numbers = [words[place] for place in (1, 2, 3, 5, 6, 7)] if len(words) == 9 else []
        if not numbers or not all(word.isascii() and word.isdigit() for word in numbers):
            continue
        if not folder.is_relative_to(words[0]) or len(words[0]) < len(best):
            continue
        used_kib, soft_kib, hard_kib, used_files, soft_files, hard_files = map(int, numbers)
        limit_kib, limit_files = hard_kib or soft_kib, hard_files or soft_files
        best = words[0]
        found = (
            max(0, limit_kib - used_kib) * 1024 if limit_kib else None,
            max(0, limit_files - used_files) if limit_files else None,
        )
    return found


def unwritable(place: Path, error: OSError) -> SiteError:
    """Return the error for a place that cannot be written, in words."""
    reason = _NO_ROOM.get(error.errno or 0, error.strerror or str(error))
    return SiteError(f"cannot write in {place}: {reason}", _HINT)


def is_full(error: OSError) -> bool:
    """Say whether a write failed for want of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def render_size(size_bytes: float) -> str:
    """Return a size for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
