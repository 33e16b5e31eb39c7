"""Hashes files where they lie, and says which of them are not as a manifest has them."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deephpc.data.crew import Crew
from deephpc.data.discrepancy import Discrepancy, find_discrepancy
from deephpc.data.location import join
from deephpc.data.manifest import FileFact, Manifest
from deephpc.data.progress import Progress
from deephpc.data.storage import ENDLESS, Entry, Interrupted, Limits, Storage, changed, is_of_one_file
from deephpc.errors import DataError
from deephpc.model import Model
from deephpc.retries import Retries


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


@dataclass(frozen=True)
class Stored:
    """What reading a stored file gave."""

    sha256: str
    came: Entry
    """The file as it came, whatever it was listed as."""


@dataclass
class Findings:
    """What reading a place gave, by path."""

    facts: dict[str, FileFact] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    discrepancies: list[Discrepancy] = field(default_factory=list)


def hash_all(reading: Reading, entries: Mapping[str, Entry]) -> Findings:
    """Hash files, several at once; those that cannot be read, or change meanwhile, are faults."""
    found = Findings()
    turn = threading.Lock()
    crew = Crew(min(reading.limits.parallel, reading.storage.parallel))

    def work(entry: Entry) -> None:
        crew.check()
        path = join(reading.top, entry.path)
        try:
            stored = hash_stored(reading.storage, path, entry, reading.limits, crew, reading.progress)
        except DataError as error:
            if not is_of_one_file(error):
                raise
            with turn:
                found.faults.append(Fault(path=entry.path, reason=f"unreadable: {error.message}"))
            return
        discrepancy = find_discrepancy(entry, stored.came)
        with turn:
            found.facts[entry.path] = FileFact(
                path=entry.path, size_bytes=stored.came.size_bytes or 0, sha256=stored.sha256
            )
            found.discrepancies += [discrepancy] if discrepancy else []
        reading.progress.finish_file()

    reading.progress.expect(sum(each.size_bytes or 0 for each in entries.values()), len(entries))
    crew.run([lambda entry=entry: work(entry) for entry in entries.values()])  # type: ignore[misc]
    return found


def check_stored(reading: Reading, entries: Mapping[str, Entry], manifest: Manifest) -> Findings:
    """Compare what is stored with a manifest, in the order of paths.

    Everything is read but what a file system has with another size: what servers list may be wrong.
    """
    wanted = {each.path: each for each in manifest.files}
    faults = [Fault(path=path, reason="missing") for path in wanted if path not in entries]
    faults += [Fault(path=path, reason="unexpected") for path in entries if path not in wanted]
    to_read = {}
    for path, entry in entries.items():
        is_other = reading.storage.is_certain and entry.size_bytes not in (None, wanted.get(path, entry).size_bytes)
        if path in wanted and is_other:
            faults.append(Fault(path=path, reason="size"))
        elif path in wanted:
            to_read[path] = entry
    found = hash_all(reading, to_read)
    for path, fact in found.facts.items():
        if fact.sha256 != wanted[path].sha256:
            reason = "content" if fact.size_bytes == wanted[path].size_bytes else "size"
            faults.append(Fault(path=path, reason=reason))
    found.faults = sorted(faults + found.faults, key=lambda fault: fault.path)
    return found


def hash_stored(storage: Storage, path: str, entry: Entry, limits: Limits, crew: Crew, progress: Progress) -> Stored:
    """Read a stored file to its end, wherever a list says that this is, and hash it."""
    digest, at, farthest = hashlib.sha256(), 0, 0
    is_settled = storage.is_certain and entry.size_bytes is not None
    known = entry if storage.is_certain else Entry(entry.path)
    retries = Retries(limits.patience, crew.stop, Interrupted)
    while known.size_bytes is None or at < known.size_bytes:
        stop = ENDLESS if known.size_bytes is None else known.size_bytes
        try:
            with storage.open_range(path, known, at, stop) as stream:
                if not is_settled and stream.told is not None:
                    known, is_settled = Entry(entry.path, stream.told.size_bytes, stream.told.version), True
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
                ends_surely = stream.ends_surely
            if known.size_bytes is None and (ends_surely or at >= (entry.size_bytes or 0)):
                break
        except Interrupted as error:
            crew.check()
            if known.size_bytes is None:  # such a file comes in one go
                digest, at = hashlib.sha256(), 0
            retries.again(error)
            continue
        if known.size_bytes is None or at < known.size_bytes:
            short = Interrupted(f"{storage.show(path)} broke off after {at} bytes")
            if known.size_bytes is None:
                digest, at = hashlib.sha256(), 0
            retries.again(short)
    return Stored(digest.hexdigest(), replace(known, size_bytes=at))
