"""Sends files away, several at once, and notes what was sent."""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from deephpc.data.crew import Crew, all_failed
from deephpc.data.discrepancy import Discrepancy, find_discrepancy
from deephpc.data.disk import unreadable
from deephpc.data.ledger import Ledger, Seen
from deephpc.data.manifest import FileFact, LeftOut, left_out_of
from deephpc.data.plan import Action, Step, TransferPlan, transfer_key
from deephpc.data.progress import Progress, Silent
from deephpc.data.reading_back import hash_stored
from deephpc.data.source import Source
from deephpc.data.storage import Entry, Forbidden, Interrupted, Limits, Storage, Upload, changed
from deephpc.errors import DataError
from deephpc.retries import Retries


@dataclass
class Sending:
    """Local files on their way to one target.

    Parameters
    ----------
    folder
        What the entries are below.
    place
        Returns the path at the target for an entry's.
    pair
        Names source and target, so that what a broken try left is known again.
    read_back
        Whether every file that was sent is read back and hashed.
    may_be_unreadable
        Whether a target that shows nothing of what it took is fine all the same.
    """

    folder: Path
    storage: Storage
    place: Callable[[str], str]
    ledger: Ledger
    pair: str
    limits: Limits = field(default_factory=Limits)
    progress: Progress = field(default_factory=Silent)
    read_back: bool = False
    may_be_unreadable: bool = False
    moved_bytes: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    """The files that the target lists otherwise than they were sent."""
    crew: Crew = field(init=False)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.crew = Crew(min(self.limits.parallel, self.storage.parallel))

    def run(self, plan: TransferPlan) -> tuple[FileFact, ...]:
        """Carry a plan out, and return what is there now; `left_out` has the files that could not be sent.

        Raises
        ------
        DataError
            None could; those that were before stay, and the same plan made anew goes on.
        """
        found: dict[str, FileFact] = {}
        work: list[Callable[[], None]] = []
        self.progress.expect(plan.transfer_bytes, len(plan.transfers))
        for step in sorted(plan.steps, key=lambda step: -(step.entry.size_bytes or 0)):
            if step.action is Action.SKIP:
                found[step.entry.path] = _fact(step.entry, step.sha256)
            else:
                work.append(lambda step=step: self._try(step, found))  # type: ignore[misc]
        self.crew.has_success = bool(found)
        self.crew.run(work)
        if self.crew.failures and not found:
            raise all_failed(self.crew.failures.values())
        return tuple(found[step.entry.path] for step in plan.steps if step.entry.path in found)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The files that could not be sent."""
        return left_out_of(self.crew.failures, "cannot be sent")

    def _try(self, step: Step, found: dict[str, FileFact]) -> None:
        with self.crew.sparing_others(step.entry.path):
            self._send(step, found)

    def _send(self, step: Step, found: dict[str, FileFact]) -> None:
        self.crew.check()
        entry = step.entry
        local = self.folder / entry.path
        path = self.place(entry.path)
        try:
            with local.open("rb", buffering=0) as file, closing(Source(file.fileno(), entry, local)) as source:
                if step.action is Action.HASH:
                    seen = self.storage.look(path)
                else:
                    seen = self._persist(path, source)
                    self.progress.finish_file()
                sha256 = source.sha256()
        except FileNotFoundError as error:
            raise changed(str(local)) from error
        except OSError as error:
            raise unreadable(local, error) from error
        if seen is None:
            raise changed(self.storage.show(path))
        if self.read_back:
            self._read_back(path, seen, sha256)
        listed_otherwise = find_discrepancy(replace(seen, path=entry.path), Entry(entry.path, entry.size_bytes))
        if listed_otherwise is not None:
            self.discrepancies.append(listed_otherwise)
        self.ledger.note(Seen(entry.path, entry.size_bytes or 0, sha256, entry.version, seen.version))
        found[entry.path] = _fact(entry, sha256)
        self.crew.has_success = True

    def _read_back(self, path: str, seen: Entry, sha256: str) -> None:
        try:
            stored = hash_stored(self.storage, path, seen, self.limits, self.crew, Silent())
        except Forbidden:
            if self.may_be_unreadable:
                return
            raise
        if stored.sha256 != sha256:
            self.storage.remove(path)
            raise DataError(f"{self.storage.show(path)} reads back as something else; removed", "say it again")

    def _persist(self, path: str, source: Source) -> Entry:
        """Write a file, again and again until it is there or patience ends."""
        retries = Retries(self.limits.patience, self.crew.stop, Interrupted)
        farthest = 0
        while True:
            attempt = _Attempt(self, source, transfer_key(self.pair, source.entry))
            try:
                return self.storage.write(path, attempt.upload())
            except Interrupted as error:
                self.progress.advance(-attempt.done)
                self.crew.check()
                if attempt.done > farthest:  # one that always breaks at the same place must end
                    retries.progress(attempt.done - farthest)
                    farthest = attempt.done
                retries.again(error)

    def count(self, size_bytes: int) -> None:
        """Note bytes that went over the network."""
        with self._counting:
            self.moved_bytes += size_bytes


@dataclass
class _Attempt:
    """One try at sending a file."""

    sending: Sending
    source: Source
    key: str
    done: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def upload(self) -> Upload:
        """Return the file as a storage takes it."""
        entry = self.source.entry
        return Upload(
            size_bytes=entry.size_bytes or 0,
            modified_s=entry.modified_s or 0.0,
            key=self.key,
            read=self.source.read,
            advance=self._advance,
            keep=self._keep,
            check=self.sending.crew.check,
            share=self.sending.crew.share,
        )

    def _advance(self, count: int) -> None:
        self.sending.count(count)
        self._keep(count)

    def _keep(self, count: int) -> None:
        with self.turn:
            self.done += count
        self.sending.progress.advance(count)


def _fact(entry: Entry, sha256: str) -> FileFact:
    return FileFact(path=entry.path, size_bytes=entry.size_bytes or 0, sha256=sha256)
