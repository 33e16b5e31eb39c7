"""Where an image comes from: one Protocol for registries, layouts and archives, and what goes wrong on the way."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from deephpc.errors import EngineError
from deephpc.retries import BrokenOff


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
        """Where the image comes from, for messages."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What the image is called in the store, the most telling last; one at least."""
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


class Interrupted(BrokenOff, EngineError):  # noqa: N818 - says what happened; callers try again
    """A transfer broke off, or a server is busy; the same request may work in a moment."""

    usual_hint = "try again: what is here already is kept"


class Corrupt(EngineError):  # noqa: N818 - says what happened
    """Content does not have the hash or size it was promised with."""
