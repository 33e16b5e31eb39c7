"""What a download is to each of the files it brings."""

from pathlib import Path
from typing import Protocol

from deephpc.data.crew import Crew
from deephpc.data.discrepancy import Discrepancy
from deephpc.data.progress import Progress
from deephpc.data.storage import Limits, Storage


class Home(Protocol):
    """Where the files of a download go."""

    @property
    def root(self) -> Path:
        """The folder whose disk takes them."""
        ...

    @property
    def open_mode(self) -> int:
        """Permissions of a file on its way."""
        ...

    @property
    def final_mode(self) -> int | None:
        """Those of a whole one; None for the same."""
        ...

    def part(self, path: str, key: str) -> Path:
        """Return where a file lies while it is on its way."""
        ...

    def final(self, path: str, sha256: str) -> Path:
        """Return where a whole file belongs; its folder is made by the caller."""
        ...


class Transport(Protocol):
    """The download a file is part of."""

    storage: Storage
    top: str
    home: Home
    pair: str
    limits: Limits
    progress: Progress
    crew: Crew
    is_one_file: bool
    """Whether the source is one file that was looked at, rather than a list's."""
    discrepancies: list[Discrepancy]
    """Files that were listed otherwise than they came; their arrivals add to it."""

    def received(self, size_bytes: int) -> None:
        """Note bytes that came over the network."""
        ...
