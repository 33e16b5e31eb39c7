"""Brings one blob into the store: hashed while it streams, resumed after a break, once for all who want it."""

import contextlib
import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deephpc.containers.manifest import Descriptor
from deephpc.containers.source import Corrupt, ImageSource, Interrupted
from deephpc.containers.space import unwritable
from deephpc.containers.store import BLOB_MODE, Store
from deephpc.lock import Lock
from deephpc.retries import Patience, Retries, Stopped
from deephpc.room import is_full

_READ_BYTES = 1 << 20


class Progress(Protocol):
    """Is told how far a pull came; called from several threads."""

    def expect(self, size: int) -> None:
        """Note how many bytes all blobs have together."""
        ...

    def begin(self, digest: str, size: int) -> None:
        """Note that a blob of this size is on its way."""
        ...

    def advance(self, digest: str, count: int) -> None:
        """Note that so many more bytes are here; negative when some turned out worthless."""
        ...

    def finish(self, digest: str) -> None:
        """Note that the blob is in the store."""
        ...


class Silent:
    """Tells nobody."""

    def expect(self, size: int) -> None:
        """Do nothing."""

    def begin(self, digest: str, size: int) -> None:
        """Do nothing."""

    def advance(self, digest: str, count: int) -> None:
        """Do nothing."""

    def finish(self, digest: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Transfer:
    """What the transfers of one pull share."""

    store: Store
    source: ImageSource
    patience: Patience = field(default_factory=Patience)
    progress: Progress = field(default_factory=Silent)
    stop: threading.Event = field(default_factory=threading.Event)

    def bring(self, blob: Descriptor) -> bool:
        """Bring a blob into the store; True when we did it, False when it was there or another process did.

        Raises
        ------
        Corrupt
            The bytes are not those the digest promises; nothing of them is kept.
        Interrupted
            The source failed too often; what came is kept for the next try.
        SiteError
            The disk is full or the place forbidden.
        """
        self.progress.begin(blob.digest, blob.size)
        ours = False
        while not self.store.has_blob(blob):
            with self.store.lock_blob(blob.digest, self.stop) as lock:
                if not self.store.has_blob(blob):
                    ours = _Download(self, blob, lock).run()
        self.progress.finish(blob.digest)
        return ours


@dataclass
class _Download:
    """One blob on its way: the part file and the hash of what is in it."""

    transfer: Transfer
    blob: Descriptor
    lock: Lock
    done: int = 0
    leftover: bool = False
    """Whether the part file begins with bytes of an earlier process."""

    def run(self) -> bool:
        """Fetch, check, move into place; False when the lock was lost on the way."""
        store = self.transfer.store
        part = store.root / "partial" / f"{store.blob_path(self.blob.digest).name}.{self.lock.owner.token}"
        try:
            try:
                self._adopt(part)
                descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, store.file_mode)
                with os.fdopen(descriptor, "r+b", buffering=0) as file:
                    os.fchmod(descriptor, store.file_mode)
                    whole = self._fill(file.fileno())
                    if whole:
                        os.fsync(descriptor)
                        os.fchmod(descriptor, BLOB_MODE)
                if whole:
                    part.replace(store.blob_path(self.blob.digest))
                return whole
            except OSError as error:
                if is_full(error):  # give the room back rather than keep half a layer
                    part.unlink(missing_ok=True)
                raise unwritable(store.root, error) from error
        except Corrupt:
            part.unlink(missing_ok=True)
            raise

    def _adopt(self, part: Path) -> None:
        """Take over the longest of what earlier processes left behind, and remove the others."""
        found = []
        for path in part.parent.glob(f"{part.name.partition('.')[0]}.*"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_size, path))
        for _size, path in sorted(found)[:-1]:
            path.unlink(missing_ok=True)
        if found:
            max(found)[1].rename(part)

    def _fill(self, file: int) -> bool:
        digest = hashlib.sha256()
        self._rehash(file, digest)
        retries = Retries(self.transfer.patience, self.transfer.stop, Interrupted)
        while True:
            while self.done < self.blob.size:
                try:
                    digest = self._stream(file, digest, retries)
                except Interrupted as error:
                    self._check_stop()
                    retries.again(error)
                if self.lock.lost.is_set():
                    return False
            if f"sha256:{digest.hexdigest()}" == self.blob.digest:
                return True
            if not self.leftover:
                raise Corrupt(
                    f"{self.transfer.source.name}: {self.blob.digest} came with the sha256 {digest.hexdigest()}",
                    "refused: they changed on their way or in the registry; tell its administrators",
                )
            digest = self._start_over(file)

    def _rehash(self, file: int, digest: "hashlib._Hash") -> None:
        """Hash what an earlier process left; more than the blob has is worthless."""
        if os.fstat(file).st_size > self.blob.size:
            os.ftruncate(file, 0)
        while chunk := os.read(file, _READ_BYTES):
            digest.update(chunk)
            self.done += len(chunk)
        self.leftover = self.done > 0
        self.transfer.progress.advance(self.blob.digest, self.done)

    def _stream(self, file: int, digest: "hashlib._Hash", retries: Retries) -> "hashlib._Hash":
        """Read on from where we are; returns the hash, a new one when the source begins anew."""
        with self.transfer.source.open_blob(self.blob.digest, self.blob.size, self.done) as stream:
            if stream.start != self.done:
                digest = self._start_over(file)
            for chunk in stream.chunks:
                self._check_stop()
                if self.done + len(chunk) > self.blob.size:
                    raise Corrupt(
                        f"{self.transfer.source.name}: {self.blob.digest} goes on after the {self.blob.size} bytes "
                        "its manifest promises",
                        "refused: the image is broken there; tell the registry's administrators",
                    )
                _write_all(file, chunk)
                digest.update(chunk)
                self.done += len(chunk)
                self.transfer.progress.advance(self.blob.digest, len(chunk))
                retries.progress(len(chunk))
                if self.lock.lost.is_set():
                    return digest
        if self.done < self.blob.size:
            raise Interrupted(
                f"{self.transfer.source.name}: {self.blob.digest} ends after {self.done} of {self.blob.size} bytes"
            )
        return digest

    def _start_over(self, file: int) -> "hashlib._Hash":
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        self.transfer.progress.advance(self.blob.digest, -self.done)
        self.done, self.leftover = 0, False
        return hashlib.sha256()

    def _check_stop(self) -> None:
        if self.transfer.stop.is_set():
            raise Stopped


def _write_all(file: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(file, view) :]
