"""Tries again: counts failures, sleeps between tries with jitter, gives up in the end."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deephpc.errors import DeephpcError

_Answer = TypeVar("_Answer")
_LEAST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """When to try again, and when to give up."""

    attempts: int = 7
    """Failures in a row without one new byte."""
    deadline_s: float = 300.0
    """Longest time for the next 64 KiB."""
    first_nap_s: float = 0.25
    """Doubled after each failure, and made random."""
    connect_s: float = 10.0
    stall_s: float = 30.0
    """How long a connection may be silent."""


class BrokenOff(DeephpcError):  # noqa: N818 - says what happened; callers try again
    """A transfer broke off, or a server is busy; the same request may work in a moment.

    Parameters
    ----------
    retry_after_s
        How long the server asks us to wait.
    """

    usual_hint = ""

    def __init__(self, message: str, hint: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint or self.usual_hint)
        self.retry_after_s = retry_after_s


class Stopped(Exception):  # noqa: N818 - no error: another transfer failed, or the user interrupted
    """The transfer this belongs to ends."""


class Retries:
    """Counts the failures of one transfer.

    Parameters
    ----------
    broken
        What to raise when bytes come, but too slowly.
    """

    def __init__(
        self, patience: Patience, stop: threading.Event | None = None, broken: type[BrokenOff] = BrokenOff
    ) -> None:
        self._patience = patience
        self._stop = stop or threading.Event()
        self._broken = broken
        self._failures = self._came = 0
        self._since = time.monotonic()

    def progress(self, count: int) -> None:
        """Note that bytes arrived: failures are counted anew, and after enough of them time is, too.

        Raises
        ------
        BrokenOff
            They come too slowly: never silent, and never done.
        """
        self._failures = 0
        self._came += count
        now = time.monotonic()
        if self._came >= _LEAST_BYTES:
            self._came, self._since = 0, now
        elif now - self._since > self._patience.deadline_s:
            raise self._broken(f"only {self._came} bytes came in {now - self._since:.0f} s")

    def again(self, error: BrokenOff) -> None:
        """Sleep before the next try.

        Raises
        ------
        BrokenOff
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
    """Ask until there is an answer or patience ends.

    Raises
    ------
    BrokenOff
        The last try broke off too.
    Stopped
        The transfer is to end.
    """
    retries = Retries(patience, stop)
    while True:
        try:
            return ask()
        except BrokenOff as error:
            retries.again(error)
