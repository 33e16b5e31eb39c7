"""What the local disk refuses, in words: full, over quota, forbidden, read-only; and whether there is room."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deephpc.data.storage import Forbidden, Missing, Unfit, Unwritable
from deephpc.errors import DataError
from deephpc.room import is_full, lacking_room, why_refused

_Found = TypeVar("_Found")
_SPARE_BYTES = 1 << 20
#: What is wrong with one file's name or place, and not with the disk.
_OF_ONE_FILE = frozenset(
    (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
)


def check_room(folder: Path, size_bytes: int, files: int) -> None:
    """Refuse to begin what would not fit; a quota shows only when a write is refused.

    Raises
    ------
    Unwritable
        Less is free than needed.
    """
    try:
        lack = lacking_room(folder, size_bytes + _SPARE_BYTES, files)
    except OSError as error:
        raise unwritable(folder, error) from error
    if lack is not None:
        raise Unwritable(lack, "make room there, or name another folder")


def made_folder_for(path: Path, work: Callable[[], _Found]) -> _Found:
    """Return what work on a path returns; its folder is made where it turns out to lack: to look first costs more."""
    try:
        return work()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return work()


def unwritable(place: Path | str, error: OSError) -> Unwritable | Unfit:
    """Return the error for a place that cannot be written."""
    hint = "free space there, then say it again: it goes on" if is_full(error) else "name another place"
    if error.errno in _OF_ONE_FILE:
        return Unfit(f"cannot write {place}: {why_refused(error)}", "give it another name, or name another place")
    return Unwritable(f"cannot write {place}: {why_refused(error)}", hint)


def unreadable(place: Path | str, error: OSError) -> DataError:
    """Return the error for a place that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return Missing(f"{place} does not exist", "check the path")
    kind = Forbidden if isinstance(error, PermissionError) else DataError
    return kind(f"cannot read {place}: {why_refused(error)}", "check its permissions")
