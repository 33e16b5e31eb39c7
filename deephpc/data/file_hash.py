"""The sha256 of a file that other threads write or read meanwhile."""

import hashlib
import os
import threading

from deephpc.data.storage import Piece

_BUFFER_BYTES = 1 << 17


class FileHash:
    """Hashes a file while it passes; close it before the file.

    A short file is hashed piece by piece by whoever passes them on in order. A long one is hashed by a thread of its
    own, read back from the system's memory: in order, whatever that of the pieces is, and never ahead of them, where
    it would come from the disk.
    """

    def __init__(self, file: int, *, is_long: bool) -> None:
        self._file = file
        self._is_long = is_long
        self._hash = hashlib.sha256()
        self._hashed = self._front = 0
        self._is_last = self._is_over = False
        self._buffer = memoryview(b"")
        self._moved = threading.Condition()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the thread."""
        self._is_over = True
        self._join()

    def note(self, offset: int, piece: Piece, front: int) -> None:
        """Note a piece that passed.

        Parameters
        ----------
        front
            How far the file may be read by now.
        """
        if self._is_long:
            self._go_to(front)
        elif offset == self._hashed:
            self._hash.update(piece)
            self._hashed += len(piece)

    def finish(self, size_bytes: int) -> str | None:
        """Hash the rest, and return the hash of all; None where the file ends before its size.

        Raises
        ------
        OSError
            It cannot be read.
        """
        self._front = size_bytes
        self._join()
        self._hash_to(size_bytes)
        return self._hash.hexdigest() if self._hashed == size_bytes else None

    def _join(self) -> None:
        if self._thread is not None:
            with self._moved:
                self._is_last = True
                self._moved.notify()
            self._thread.join()

    def _go_to(self, front: int) -> None:
        with self._moved:
            if front > self._front:
                self._front = front
                self._moved.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, daemon=True)
                self._thread.start()

    def _follow(self) -> None:
        while True:
            with self._moved:
                while self._hashed >= self._front and not self._is_last:
                    self._moved.wait()
                stop = self._front
            try:
                if self._hashed >= stop or not self._hash_to(stop):
                    return
            except OSError:  # shows again where somebody waits for it
                return

    def _hash_to(self, stop: int) -> bool:
        """Hash on; False where the file ends before that, or nobody wants it any more."""
        while self._hashed < stop and not self._is_over:
            self._buffer = self._buffer or memoryview(bytearray(_BUFFER_BYTES))
            view = self._buffer[: stop - self._hashed]
            count = os.preadv(self._file, [view], self._hashed)
            if not count:
                return False
            self._hash.update(view[:count])
            self._hashed += count
        return not self._is_over
