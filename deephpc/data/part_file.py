"""A file on its way in, under another name: filled in blocks in any order, resumed after a kill, hashed as it grows.

Beside a large one lies its state, eight bytes a block: how many bytes of the block are written, and their CRC. A kill
loses no more than the last piece of each stream; what a crash of the machine lost shows in the CRC.
"""

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.disk import made_folder_for, unwritable
from deephpc.data.file_hash import FileHash
from deephpc.data.storage import Piece, Unwritable

BLOCK_BYTES = 8 << 20
_READ_BYTES = 1 << 20
_MAX_RUN_BYTES = 128 << 20
_RECORD = struct.Struct("<II")


@dataclass
class Block:
    """A piece of the file; what is before `at` is written."""

    index: int
    start: int
    stop: int
    at: int
    crc: int = 0
    farthest: int = 0
    """How far any try came."""


def runs_of(blocks: Sequence[Block], parallel: int) -> list[list[Block]]:
    """Group blocks into runs without a gap, each to be asked for at once.

    A request costs a server more than the bytes it answers with: some read the whole file for each.

    Parameters
    ----------
    blocks
        In the file's order.
    parallel
        How many runs at once are wanted, at least where there are as many blocks.
    """
    most = max(1, min(_MAX_RUN_BYTES // BLOCK_BYTES, len(blocks) // parallel))
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and runs[-1][-1].stop == block.at and len(runs[-1]) < most:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


class PartFile:
    """A file of known size on its way; use it in `with`.

    Parameters
    ----------
    path
        The part file; its state lies beside it.
    may_resume
        Whether what lies there already is of the same content for certain.
    mode
        Permissions it is made with; the umask takes from them.
    """

    def __init__(self, path: Path, size_bytes: int, *, may_resume: bool, mode: int = 0o666) -> None:
        self.path = path
        self._mode = mode
        self.size_bytes = size_bytes
        self._state_path = path.with_name(f"{path.name}.state")
        self._may_resume = may_resume
        self._has_state = size_bytes > BLOCK_BYTES
        self._file = self._state = -1
        self._hash = FileHash(-1, is_long=False)
        self._turn = threading.Lock()
        self._first = 0
        self.blocks = [
            Block(index, start, min(start + BLOCK_BYTES, size_bytes), start)
            for index, start in enumerate(range(0, size_bytes, BLOCK_BYTES))
        ]

    def open(self) -> int:
        """Open it, and return how many bytes are there already.

        Raises
        ------
        Unwritable
            The folder takes no file.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            if not (self._may_resume and self._has_state):
                flags |= os.O_TRUNC
            self._file = made_folder_for(self.path, lambda: os.open(self.path, flags, self._mode))
            self._hash = FileHash(self._file, is_long=self._has_state)
            if self._has_state:
                self._state = os.open(self._state_path, flags, 0o600)
                return self._restore()
        except OSError as error:
            self.close()
            raise unwritable(self.path.parent, error) from error
        return 0

    def close(self) -> None:
        """Close it; what is written stays for the next try."""
        self._hash.close()
        for descriptor in (self._file, self._state):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._state = -1

    def discard(self) -> None:
        """Close it and throw it away."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._state_path.unlink(missing_ok=True)

    def write(self, block: Block, chunk: Piece) -> None:
        """Write a block's next bytes.

        Raises
        ------
        Unwritable
            The disk is full, or refuses.
        """
        try:
            view, begin = memoryview(chunk), block.at
            at = begin
            while view:
                count = os.pwrite(self._file, view, at)
                view, at = view[count:], at + count
            block.at = at
            if self._has_state:
                block.crc = zlib.crc32(chunk, block.crc)
                record = _RECORD.pack(block.at - block.start, block.crc)
                os.pwrite(self._state, record, block.index * _RECORD.size)
        except OSError as error:
            raise unwritable(self.path.parent, error) from error
        self._hash.note(begin, chunk, self._front())
        if self._has_state and block.at == block.stop:  # on its way to the disk, or the sync at the end waits for all
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._file, block.start, block.stop - block.start, os.POSIX_FADV_DONTNEED)

    def start_over(self) -> int:
        """Forget all that is written; returns how many bytes that were."""
        lost = sum(block.at - block.start for block in self.blocks)
        for block in self.blocks:
            block.at, block.crc = block.start, 0
        if self._has_state:
            os.ftruncate(self._state, 0)
        self._hash_anew()
        return lost

    def block_at(self, offset: int) -> Block:
        """Return the block an offset lies in."""
        return self.blocks[offset // BLOCK_BYTES]

    def blocks_of_unknown_size(self) -> Block:
        """Return the one block that a file has whose size is not known yet, empty."""
        self.blocks, self.size_bytes = [Block(0, 0, 1 << 62, 0)], 0
        self._hash_anew()
        return self.blocks[0]

    def resize(self, size_bytes: int) -> None:
        """Set the size once it is known, of a file that came as one block."""
        self.size_bytes = size_bytes

    def finish(self, modified_s: float | None, mode: int | None) -> str:
        """Hash the rest, set time and mode, sync; returns the sha256. The caller renames it.

        Raises
        ------
        Unwritable
            The disk is full, or refuses.
        """
        try:
            found = self._hash.finish(self.size_bytes)
            os.ftruncate(self._file, self.size_bytes)
            if mode is not None:
                os.fchmod(self._file, mode)
            if modified_s is not None:
                os.utime(self._file, (modified_s, modified_s))
            os.fsync(self._file)
        except OSError as error:
            raise unwritable(self.path.parent, error) from error
        self.close()
        if found is None:
            raise Unwritable(f"{self.path} is shorter than what was written", "does somebody clean up there?")
        return found

    def forget_state(self) -> None:
        """Remove the state, once the file has its name."""
        if self._has_state:
            self._state_path.unlink(missing_ok=True)

    def _front(self) -> int:
        """Return how far the file is there without a gap."""
        with self._turn:
            while self.blocks[self._first].at == self.blocks[self._first].stop and self._first < len(self.blocks) - 1:
                self._first += 1
            return self.blocks[self._first].at

    def _hash_anew(self) -> None:
        self._hash.close()
        self._hash, self._first = FileHash(self._file, is_long=self._has_state), 0

    def _restore(self) -> int:
        """Take over what an earlier try wrote, as far as its CRC is right."""
        records = os.pread(self._state, len(self.blocks) * _RECORD.size, 0)
        for block in self.blocks:
            record = records[block.index * _RECORD.size :][: _RECORD.size]
            if len(record) < _RECORD.size:
                break
            count, crc = _RECORD.unpack(record)
            if 0 < count <= block.stop - block.start and self._crc_of(block, count) == crc:
                block.at, block.crc = block.start + count, crc
        return sum(block.at - block.start for block in self.blocks)

    def _crc_of(self, block: Block, count: int) -> int:
        crc, at, stop = 0, block.start, block.start + count
        while at < stop:
            chunk = os.pread(self._file, min(_READ_BYTES, stop - at), at)
            if not chunk:
                return -1
            crc = zlib.crc32(chunk, crc)
            at += len(chunk)
        return crc
