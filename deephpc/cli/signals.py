"""How a command that keeps something open ends: whatever tells it to, it cleans up first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cleaning_up() -> Iterator[None]:
    """End by SIGTERM and SIGHUP as by Ctrl-C, with every `finally` on the way out; the exit code tells the signal."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
