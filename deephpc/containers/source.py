"""Where an image comes from: one Protocol for registries, layouts and archives, and what goes wrong on the way."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from deephpc.errors import EngineError


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, checked against its digest."""

    content: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class BlobStream:
    """The bytes of a blob from `start` on; a source that cannot begin in the middle begins at 0."""

    start: int
    chunks: Iterator[bytes]


class ImageSource(Protocol):
    """Somewhere an image can be had."""

    @property
    def name(self) -> str:
        """What the image is called in the store."""
        ...

    def resolve(self) -> Document:
        """Return what the name stands for: an index or a manifest."""
        ...

    def document(self, digest: str) -> Document:
        """Return a manifest that an index names."""
        ...

    def open_blob(self, digest: str, size: int, start: int) -> AbstractContextManager[BlobStream]:
        """Open a configuration or layer; reading may raise `Interrupted`."""
        ...


class Interrupted(EngineError):  # noqa: N818 - says what happened; callers try again
    """A transfer broke off, or a server is busy; the same request may work in a moment.

    Parameters
    ----------
    retry_after_s
        How long the server asks us to wait.
    """

    def __init__(self, message: str, hint: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint or "try again: what is here already is kept")
        self.retry_after_s = retry_after_s


class Corrupt(EngineError):  # noqa: N818 - says what happened
    """Content does not have the hash or size it was promised with."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When to try again, and when to give up."""

    attempts: int = 6
    """Failures in a row without one new byte."""
    deadline_s: float = 300.0
    """Longest time for the next 64 KiB."""
    first_nap_s: float = 0.25
    """Doubled after each failure, and made random."""
    connect_s: float = 10.0
    stall_s: float = 30.0
    """How long a connection may be silent."""


_LEAST_BYTES = 64 << 10


class Retries:
    """Counts failures, sleeps between tries, gives up in the end."""

    def __init__(self, patience: Patience, stop: threading.Event | None = None) -> None:
        self._patience = patience
        self._stop = stop or threading.Event()
        self._failures = self._came = 0
        self._since = time.monotonic()

    def progress(self, count: int) -> None:
        """Note that bytes arrived: failures are counted anew, and after enough of them time is, too.

        Raises
        ------
        Interrupted
            They come too slowly: never silent, and never done.
        """
        self._failures = 0
        self._came += count
        now = time.monotonic()
        if self._came >= _LEAST_BYTES:
            self._came, self._since = 0, now
        elif now - self._since > self._patience.deadline_s:
            raise Interrupted(f"only {self._came} bytes came in {now - self._since:.0f} s")

    def again(self, error: Interrupted) -> None:
        """Sleep before the next try.

        Raises
        ------
        Interrupted
            The error itself, when it was the last try.
        """
        self._failures += 1
        nap_s = self._patience.first_nap_s * 2 ** (self._failures - 1)
        nap_s = random.uniform(nap_s / 2, nap_s)  # noqa: S311 - spreads the clients, guards nothing
        nap_s = max(nap_s, error.retry_after_s or 0.0)
        left_s = self._since + self._patience.deadline_s - time.monotonic()
        if self._failures >= self._patience.attempts or nap_s > left_s:
            raise error
        self._stop.wait(nap_s)
