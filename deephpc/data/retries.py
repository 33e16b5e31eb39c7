"""Tries again: counts failures, sleeps between tries with jitter, gives up in the end."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from deephpc.data.storage import Interrupted, Patience, Stopped

_Answer = TypeVar("_Answer")


class Retries:
    """Counts the failures of one transfer."""

    def __init__(self, patience: Patience, stop: threading.Event | None = None) -> None:
        self._patience = patience
        self._stop = stop or threading.Event()
        self.progress()

    def progress(self) -> None:
        """Note that bytes arrived: the count begins anew."""
        self._failures = 0
        self._since = time.monotonic()

    def again(self, error: Interrupted) -> None:
        """Sleep before the next try.

        Raises
        ------
        Interrupted
            The error itself, when it was the last try.
        Stopped
            The transfer is to end.
        """
        self._failures += 1
        nap_s = self._patience.first_nap_s * 2 ** (self._failures - 1)
        nap_s = random.uniform(nap_s / 2, nap_s)  # noqa: S311 - spreads the clients, guards nothing
        nap_s = max(nap_s, error.retry_after_s or 0.0)
        left_s = self._since + self._patience.deadline_s - time.monotonic()
        if self._failures >= self._patience.attempts or nap_s > left_s:
            raise error
        if self._stop.wait(nap_s):
            raise Stopped


def persist(patience: Patience, ask: Callable[[], _Answer], stop: threading.Event | None = None) -> _Answer:
    """Ask until there is an answer or patience ends."""
    retries = Retries(patience, stop)
    while True:
        try:
            return ask()
        except Interrupted as error:
            retries.again(error)
