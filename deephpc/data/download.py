"""Brings files here, several at once, and notes what came."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deephpc.data.arrival import Arrival
from deephpc.data.crew import Crew, all_failed
from deephpc.data.discrepancy import Discrepancy
from deephpc.data.disk import check_room
from deephpc.data.ledger import Ledger, Seen
from deephpc.data.local import entry_of
from deephpc.data.manifest import FileFact, LeftOut, left_out_of
from deephpc.data.part_file import BLOCK_BYTES
from deephpc.data.plan import Action, Step, TransferPlan, transfer_key
from deephpc.data.progress import Progress, Silent
from deephpc.data.storage import Entry, Limits, Storage, changed
from deephpc.data.transport import Home


@dataclass(frozen=True)
class Folder:
    """A folder that files lie in under their own paths."""

    root: Path
    open_mode: int = 0o666
    final_mode: int | None = None

    def part(self, path: str, key: str) -> Path:
        """Return a place in the file's own folder."""
        return (self.root / path).with_name(f".{key}.part")

    def final(self, path: str, sha256: str) -> Path:
        """Return the file's path."""
        del sha256
        return self.root / path


@dataclass
class Download:
    """One source on its way to one home.

    Parameters
    ----------
    top
        The path at the source that the entries are below.
    pair
        Names source and home, so that two commands never write one part file.
    is_one_file
        Whether the source is one file that was looked at: a second look can tell then that it changed.
    """

    storage: Storage
    top: str
    home: Home
    ledger: Ledger
    pair: str
    limits: Limits = field(default_factory=Limits)
    progress: Progress = field(default_factory=Silent)
    is_one_file: bool = False
    moved_bytes: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    """The files that were listed otherwise than they came."""
    _counting: threading.Lock = field(default_factory=threading.Lock)
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(min(self.limits.parallel, self.storage.parallel))

    def run(self, plan: TransferPlan) -> tuple[FileFact, ...]:
        """Carry a plan out, and return what is there now; `left_out` has the files that could not be brought.

        Raises
        ------
        DataError
            None could; those that were before stay, and the same plan made anew goes on.
        """
        found = {
            step.entry.path: FileFact(path=step.entry.path, size_bytes=step.entry.size_bytes or 0, sha256=step.sha256)
            for step in plan.steps
            if step.action is Action.SKIP
        }
        check_room(self.home.root, self._room_needed(plan), len(plan.transfers))
        self.progress.expect(plan.transfer_bytes, len(plan.transfers))
        large_first = sorted(plan.steps, key=lambda step: -(step.entry.size_bytes or 0))
        self.crew.has_success = bool(found)
        self.crew.run(self._work(large_first, found))
        if self.crew.failures and not found:
            raise all_failed(self.crew.failures.values())
        return tuple(found[step.entry.path] for step in plan.steps if step.entry.path in found)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The files that could not be brought."""
        return left_out_of(self.crew.failures, "cannot be brought")

    def _room_needed(self, plan: TransferPlan) -> int:
        """Return how many bytes are to be written still: what an earlier try wrote lies on the disk already."""
        needed = 0
        for step in plan.transfers:
            size = step.entry.size_bytes or 0
            part = self.home.part(step.entry.path, transfer_key(self.pair, step.entry))
            if size > BLOCK_BYTES:
                with suppress(OSError):  # there is none, or can be none
                    size = max(0, size - 512 * part.stat().st_blocks)
            needed += size
        return needed

    def received(self, size_bytes: int) -> None:
        """Note bytes that came over the network."""
        with self._counting:
            self.moved_bytes += size_bytes

    def _work(self, steps: Iterable[Step], found: dict[str, FileFact]) -> list[Callable[[], None]]:
        def note(seen: Seen) -> None:
            self.ledger.note(seen)
            found[seen.path] = FileFact(path=seen.path, size_bytes=seen.size_bytes, sha256=seen.sha256)

        work: list[Callable[[], None]] = []
        for step in steps:
            if step.action is Action.HASH:
                work.append(lambda step=step: self._note_here(step.entry, note))  # type: ignore[misc]
            elif step.action is Action.TRANSFER:
                work.append(Arrival(self, step.entry, note).begin)
        return work

    def _note_here(self, entry: Entry, note: Callable[[Seen], None]) -> None:
        with self.crew.sparing_others(entry.path):
            note(self._hash_here(entry))

    def _hash_here(self, entry: Entry) -> Seen:
        path = self.home.final(entry.path, "")
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                before = entry_of(os.fstat(file.fileno()), "", str(path))
                while chunk := file.read(1 << 20):
                    self.crew.check()
                    digest.update(chunk)
        except OSError as error:
            raise changed(str(path)) from error
        return Seen(entry.path, before.size_bytes or 0, digest.hexdigest(), entry.version, before.version)
