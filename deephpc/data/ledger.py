"""Remembers what a transfer has brought, file by file, so that the same command goes on and knows what is equal.

A ledger is a file of JSON lines in the cache, appended to as files arrive. A line that a kill cut off is passed over.
"""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.disk import unwritable


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that was transferred, and what both sides looked like then."""

    path: str
    size_bytes: int
    sha256: str
    source: str
    """Its version at the source."""
    target: str
    """Its version at the target."""


class Ledger:
    """What one pair of source and target has seen; use it in `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: int | None = None
        self.seen: dict[str, Seen] = {}

    def __enter__(self) -> "Ledger":
        self.seen = _load(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def note(self, seen: Seen) -> None:
        """Add a file; one write, so that a kill leaves whole lines but for the last.

        Raises
        ------
        Unwritable
            The cache takes nothing.
        """
        line = json.dumps({name: getattr(seen, name) for name in Seen.__slots__}).encode() + b"\n"
        with self._lock:
            self.seen[seen.path] = seen
            try:
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                    if os.fstat(self._file).st_size:
                        line = b"\n" + line  # ends a line that was cut off
                os.write(self._file, line)
            except OSError as error:
                raise unwritable(self._path, error) from error


def _load(path: Path) -> dict[str, Seen]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            seen = Seen(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[seen.path] = seen
    return found
