"""Waits for a condition instead of a while."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return as soon as a condition holds.

    Raises
    ------
    AssertionError
        It did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
