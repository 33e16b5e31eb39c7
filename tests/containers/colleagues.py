"""What an ordinary user meets, also where the tests run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOBODY = 65534


@contextmanager
def ordinary_user(place: Path) -> Iterator[Path]:
    """Be somebody who owns all in a folder and has no rights beyond; gives the folder as a path from itself.

    Folders above it may be closed to that user: so it is the current one meanwhile.
    """
    before = Path.cwd()
    os.chdir(place)
    is_root = os.geteuid() == 0
    if is_root:
        for path in (Path(), *Path().rglob("*")):
            with suppress(FileNotFoundError):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield Path()
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)
        os.chdir(before)


@contextmanager
def closed(folder: Path, mode: int = 0) -> Iterator[None]:
    """Take permissions of a folder away for the block."""
    kept = folder.stat().st_mode
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(kept)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Work with another umask."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
