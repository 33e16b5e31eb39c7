"""Where the answer goes: stdout, made fit for any text; and what becomes of an answer that cannot be written."""

import os
import sys

from deephpc.errors import SiteError


def prepare_streams() -> None:
    """Let stdout take any text, whatever the locale; where it was closed, let it refuse all, as a full disk does."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


def write_answer(text: str, end: str = "\n") -> None:
    """Write an answer to stdout, all of it.

    Raises
    ------
    SiteError
        It cannot be written: the disk is full, or stdout was closed.
    BrokenPipeError
        The reader left.
    """
    try:
        print(text, end=end, flush=True)  # noqa: T201 - the answer
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable_stdout(error) from error


def write_bytes(content: bytes) -> None:
    """Write an answer that need not be text to stdout, all of it.

    Raises
    ------
    SiteError
        It cannot be written: the disk is full, or stdout was closed.
    BrokenPipeError
        The reader left.
    """
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable_stdout(error) from error


def unwritable_stdout(error: OSError) -> SiteError:
    """Return the error for a stdout that cannot be written; what is left in its buffer is dropped."""
    drop_stdout()
    return SiteError(f"cannot write to stdout: {error.strerror}", "is the disk full, or stdout closed?")


def drop_stdout() -> None:
    """Send what is still to be written nowhere: Python tries once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
