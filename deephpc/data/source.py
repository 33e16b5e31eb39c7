"""A local file on its way out: read while it does not change, and hashed beside the threads that send it."""

import hashlib
import os
import threading
from pathlib import Path

from deephpc.data.crew import Crew
from deephpc.data.local import entry_of
from deephpc.data.storage import Entry, changed

_BUFFER_BYTES = 1 << 18
_SHORT_BYTES = 4 << 20
_WAIT_S = 0.1


class Source:
    """A local file that must not change while it is read; close it before the file.

    A long one is hashed by a thread of its own, from the system's memory, behind those that read it: in order,
    whatever theirs is, and never ahead, where it would have to come from the disk twice.
    """

    def __init__(self, file: int, entry: Entry, path: Path) -> None:
        self.entry = entry
        self._file = file
        self._path = path
        self._size = entry.size_bytes or 0
        self._hash = hashlib.sha256()
        self._hashed = self._farthest = 0
        self._is_over = False
        self._buffer = memoryview(b"")
        self._moved = threading.Condition()
        self.check()
        self._thread = threading.Thread(target=self._hash_behind, daemon=True) if self._size > _SHORT_BYTES else None
        if self._thread is not None:
            self._thread.start()

    def close(self) -> None:
        """End the hashing."""
        if self._thread is not None:
            self._go_to(0, is_over=True)
            self._thread.join()

    def read(self, offset: int, count: int) -> bytes:
        """Read bytes, all of them.

        Raises
        ------
        Changed
            The file is another one than was listed.
        """
        content = os.pread(self._file, count, offset)
        while len(content) < count:
            more = os.pread(self._file, count - len(content), offset + len(content))
            if not more:
                raise changed(str(self._path))
            content += more
        self.check()
        if self._thread is not None:
            self._go_to(offset + count)
        elif offset == self._hashed:  # a short one has one reader
            self._hash.update(content)
            self._hashed += count
        return content

    def check(self) -> None:
        """Raise `Changed` when the file is not the listed one any more."""
        if entry_of(os.fstat(self._file), "", str(self._path)).version != self.entry.version:
            raise changed(str(self._path))

    def sha256(self, crew: Crew) -> str:
        """Return the hash of all, read or not.

        Raises
        ------
        Changed
            The file is another one than was listed.
        """
        self._go_to(self._size)
        while self._thread is not None and self._thread.is_alive():
            crew.check()
            self._thread.join(_WAIT_S)
        self._hash_to(self._size)
        self.check()
        if self._hashed < self._size:
            raise changed(str(self._path))
        return self._hash.hexdigest()

    def _go_to(self, offset: int, *, is_over: bool = False) -> None:
        with self._moved:
            self._farthest = max(self._farthest, offset)
            self._is_over = self._is_over or is_over
            self._moved.notify()

    def _hash_behind(self) -> None:
        while self._hashed < self._size:
            with self._moved:
                while self._hashed >= self._farthest and not self._is_over:
                    self._moved.wait()
                stop = self._farthest
            try:
                if self._is_over or not self._hash_to(stop):
                    return
            except OSError:  # shows again where somebody waits for it
                return

    def _hash_to(self, stop: int) -> bool:
        """Hash on; False where the file ends before that."""
        while self._hashed < stop and not self._is_over:
            self._buffer = self._buffer or memoryview(bytearray(min(self._size, _BUFFER_BYTES)))
            view = self._buffer[: stop - self._hashed]
            count = os.preadv(self._file, [view], self._hashed)
            if not count:
                return False
            self._hash.update(view[:count])
            self._hashed += count
        return True
