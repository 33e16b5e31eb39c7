"""A local file on its way out: read while it does not change, and hashed beside the threads that send it."""

import os
from pathlib import Path

from deephpc.data.file_hash import FileHash
from deephpc.data.local import entry_of
from deephpc.data.storage import Entry, changed

_SHORT_BYTES = 4 << 20


class Source:
    """A local file that must not change while it is read; close it before the file."""

    def __init__(self, file: int, entry: Entry, path: Path) -> None:
        self.entry = entry
        self._file = file
        self._path = path
        self._hash = FileHash(file, is_long=(entry.size_bytes or 0) > _SHORT_BYTES)
        self.check()

    def close(self) -> None:
        """End the hashing."""
        self._hash.close()

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
        self._hash.note(offset, content, offset + count)
        return content

    def check(self) -> None:
        """Raise `Changed` when the file is not the listed one any more."""
        if entry_of(os.fstat(self._file), "", str(self._path)).version != self.entry.version:
            raise changed(str(self._path))

    def sha256(self) -> str:
        """Return the hash of all, read or not.

        Raises
        ------
        Changed
            The file is another one than was listed.
        """
        found = self._hash.finish(self.entry.size_bytes or 0)
        self.check()
        if found is None:
            raise changed(str(self._path))
        return found
