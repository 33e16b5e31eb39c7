"""Files that others may read while they are written: there whole, or as they were before."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, mode: int | None = 0o600, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write under a temporary name; after the block it is synced and takes the place of `path`.

    A failure leaves what was there before, and nothing else.

    Parameters
    ----------
    mode
        Its permissions from its first byte on, whatever the umask says; None for what the umask says.
    sync
        False where the content can be had again and the wait is not worth it.

    Raises
    ------
    OSError
        The place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")  # not the pid: other nodes write here too
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode & 0o700
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            if sync:
                os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
