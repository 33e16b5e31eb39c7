"""Whether a folder takes what is about to be written: free space, inodes, quota; and the errors when it does not."""

import os
import shutil
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.room import lacking_room, why_refused
from deephpc.shell import CommandNotFound, run

_QUOTA_TIMEOUT_S = 5.0

#: What the store needs beside the image's own bytes and files.
_SPARE_BYTES = 16 << 20
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
        lack = lacking_room(folder, size_bytes + _SPARE_BYTES, files)
    except OSError as error:
        raise unwritable(folder, error) from error
    if lack is not None:
        raise SiteError(lack, _HINT)


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
    return SiteError(f"cannot write in {place}: {why_refused(error)}", _HINT)
