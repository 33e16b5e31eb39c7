"""Ends what takes too long."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deephpc.data.storage import Interrupted


@contextmanager
def within(seconds: float, why: str) -> Iterator[None]:
    """Let the block take no longer; what it had on its way stays and can be gone on with. For the main thread alone.

    Parameters
    ----------
    why
        What is said when the time is over.

    Raises
    ------
    Interrupted
        The time is over.
    """

    def over(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise Interrupted(why, retry_after_s=math.inf)  # else a request under way would be tried again

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
