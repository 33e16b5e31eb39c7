"""Waits for a condition instead of a while.

No test measures the machine: a deadline here is one against hanging, and is met only by what never comes true.
"""

import time
from collections.abc import Callable

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
