"""Hashes files where they lie, and says which of them are not as a manifest has them."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from deephpc.data.crew import Crew
from deephpc.data.location import join
from deephpc.data.manifest import FileFact, Manifest
from deephpc.data.progress import Progress
from deephpc.data.storage import Changed, Entry, Interrupted, Limits, Missing, Storage, changed
from deephpc.model import Model
from deephpc.retries import Retries

_ENDLESS = 1 << 62


class Fault(Model):
    """A file that is not as it should be."""

    path: str
    reason: str
    """missing, size, content, unexpected, or unreadable with why."""


@dataclass(frozen=True)
class Reading:
    """What reading a place back needs."""

    storage: Storage
    top: str
    limits: Limits
    progress: Progress


def hash_all(reading: Reading, entries: Mapping[str, Entry]) -> tuple[dict[str, FileFact], list[Fault]]:
    """Hash files, several at once; those that vanish or change meanwhile are faults."""
    found: dict[str, FileFact] = {}
    faults: list[Fault] = []
    turn = threading.Lock()
    crew = Crew(min(reading.limits.parallel, reading.storage.parallel))

    def work(entry: Entry) -> None:
        crew.check()
        path = join(reading.top, entry.path)
        try:
            sha256, size = hash_stored(reading.storage, path, entry, reading.limits, crew, reading.progress)
        except (Changed, Missing) as error:
            with turn:
                faults.append(Fault(path=entry.path, reason=f"unreadable: {error.message}"))
            return
        with turn:
            found[entry.path] = FileFact(path=entry.path, size_bytes=size, sha256=sha256)
        reading.progress.finish_file()

    reading.progress.expect(sum(each.size_bytes or 0 for each in entries.values()), len(entries))
    crew.run([lambda entry=entry: work(entry) for entry in entries.values()])  # type: ignore[misc]
    return found, faults


def check_stored(reading: Reading, entries: Mapping[str, Entry], manifest: Manifest) -> list[Fault]:
    """Compare what is stored with a manifest, reading whatever has the right size; in the order of paths."""
    wanted = {each.path: each for each in manifest.files}
    faults = [Fault(path=path, reason="missing") for path in wanted if path not in entries]
    faults += [Fault(path=path, reason="unexpected") for path in entries if path not in wanted]
    to_read = {}
    for path, entry in entries.items():
        if path in wanted and entry.size_bytes not in (None, wanted[path].size_bytes):
            faults.append(Fault(path=path, reason="size"))
        elif path in wanted:
            to_read[path] = entry
    found, unread = hash_all(reading, to_read)
    faults += unread
    faults += [Fault(path=path, reason="content") for path, fact in found.items() if fact.sha256 != wanted[path].sha256]
    return sorted(faults, key=lambda fault: fault.path)


def hash_stored(
    storage: Storage, path: str, entry: Entry, limits: Limits, crew: Crew, progress: Progress
) -> tuple[str, int]:
    """Read a stored file to its end and return its sha256 and size."""
    digest, at, farthest = hashlib.sha256(), 0, 0
    stop = _ENDLESS if entry.size_bytes is None else entry.size_bytes
    retries = Retries(limits.patience, crew.stop, Interrupted)
    while at < stop:
        try:
            with storage.open_range(path, entry, at, stop) as stream:
                if stream.start != at or (stream.whole and at):
                    digest, at = hashlib.sha256(), 0
                    if stream.start:
                        raise changed(storage.show(path))
                for chunk in stream.chunks:
                    crew.check()
                    digest.update(chunk)
                    at += len(chunk)
                    progress.advance(len(chunk))
                    if at > farthest:
                        retries.progress(at - farthest)
                        farthest = at
            if entry.size_bytes is None:
                break
        except Interrupted as error:
            crew.check()
            retries.again(error)
            continue
        if at < stop:
            retries.again(Interrupted(f"{storage.show(path)} broke off after {at} bytes"))
    return digest.hexdigest(), at
