"""Waits for a condition instead of a while.

No test measures the machine: a deadline here is one against hanging, and is met only by what never comes true.
"""

import time
from collections.abc import Callable
from pathlib import Path

#: How long anything may take before it counts as hanging.
DEADLINE_S = 300.0
#: Deadlines to try in turn where one that passes is the point, and something else must have happened before it.
GROWING_S = (1.5, 15.0, 150.0)


def wait_until(
    holds: Callable[[], bool], what: str = "the condition to hold", *, timeout_s: float = DEADLINE_S
) -> None:
    """Return as soon as a condition holds.

    Raises
    ------
    AssertionError
        It did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
