"""Turns signals into values: a process sleeps until one comes or a deadline passes, and nothing is lost in between."""

import os
import select
import signal
from types import FrameType


class Wakeups:
    """Takes over some signals of this process. One at a time: the wake-up descriptor is the process's own.

    Programs started later get the default dispositions back, since execve(2) resets handlers.
    """

    def __init__(self, *numbers: int) -> None:
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _no_more_than_wake)

    def wait(self, timeout_s: float) -> frozenset[int]:
        """Sleep until a signal comes or the time is over, and return the numbers of those that came."""
        select.select([self._reader], [], [], max(0.0, timeout_s))
        try:
            return frozenset(os.read(self._reader, 65536))
        except BlockingIOError:
            return frozenset()


def _no_more_than_wake(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the interpreter has written the number to the wake-up descriptor."""
