"""The story of `deephpc collect`: what a run left goes to storage, file by file, verified, and nothing twice."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deephpc.data.crew import all_failed
from deephpc.data.ledger import Ledger
from deephpc.data.location import Location, join
from deephpc.data.manifest import FileFact, LeftOut, Manifest, sort_out, told_left_out
from deephpc.data.opening import opened
from deephpc.data.plan import plan_transfer
from deephpc.data.progress import Progress, Silent
from deephpc.data.storage import Forbidden, Missing, Storage, Unfit
from deephpc.data.survey import present_there
from deephpc.data.upload import Sending
from deephpc.errors import DataError, InputError
from deephpc.jobs.job import Job
from deephpc.model import Model
from deephpc.workflows.data_places import DataPlaces
from deephpc.workflows.overlap import refuse_overlap
from deephpc.workflows.results import Piece, list_results, pieces_of

#: Storage that checks a sha256 of what it is sent; what others were sent is read back and hashed.
_CHECKS_ITSELF = frozenset({"s3"})


class CollectPlan(Model):
    """What is to leave, and where it goes."""

    run_id: str
    task: int | None
    folder: Path
    """The run folder."""
    place: str
    """Where the run gets a folder of its own."""
    pieces: tuple[Piece, ...]

    @property
    def destination(self) -> str:
        """The run's folder there."""
        return join(self.place, self.run_id)

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to come."""
        return all(piece.is_final for piece in self.pieces)


class CollectResult(Model):
    """What was sent, or would be."""

    run_id: str
    task: int | None
    destination: str
    done: bool
    """False for a dry run."""
    whole: bool
    """False while the run goes on: more is to come."""
    files: int = 0
    size_bytes: int = 0
    transferred_files: int = 0
    transferred_bytes: int = 0
    """Over the network."""
    digest: str | None = None
    """Of the manifest of what is there now."""
    left_out: tuple[LeftOut, ...] = ()
    """What stays in the run folder, since it can be sent to no place, or not to this one."""

    @property
    def stays(self) -> str:
        """What is left out, on one line; empty for nothing."""
        return told_left_out(f"{len(self.left_out)} left out", self.left_out) if self.left_out else ""


def plan_collect(job: Job, task: int | None, place: str | None) -> CollectPlan:
    """Decide what leaves of a run as it stands (pure).

    Parameters
    ----------
    place
        Where to, as it was said at the submission or is now.

    Raises
    ------
    InputError
        Nobody said where to.
    """
    if not place:
        raise InputError(
            f"run {job.run_id} was submitted without --collect", f"say where to: deephpc collect {job.run_id} DEST"
        )
    return CollectPlan(run_id=job.run_id, task=task, folder=job.folder, place=place, pieces=pieces_of(job, task))


def check_all_sent(result: CollectResult) -> None:
    """End the command with the code for data where something was left out: all else has arrived.

    Raises
    ------
    DataError
        Something was.
    """
    if result.left_out:
        raise DataError(
            told_left_out(result.run_id, result.left_out), "all else is there; rename or mend what is left out"
        )


def carry_out_collect(
    plan: CollectPlan, places: DataPlaces, progress: Progress | None = None, *, dry_run: bool = False
) -> CollectResult:
    """Send what is not there yet (login node, or the job on its node); nothing is removed anywhere.

    Raises
    ------
    InputError
        The place takes no files.
    DataError
        A file could not be sent, or changed meanwhile; those that were sent stay, and the same command goes on.
        What can never be sent is left out instead.
    """
    target = places.locate(plan.place).child(plan.run_id)
    if not plan.folder.is_dir():
        raise Missing(f"the run folder {plan.folder} is not there", "was it removed, or is its file system away?")
    if target.is_local:
        refuse_overlap(plan.folder, [Path(target.path)], "give another DEST, outside of the run folder")
    with opened(target, places.around, places.limits) as storage:
        if not storage.can_write:
            raise InputError(
                f"{target} takes no files: a plain web server", "write webdav(s)://… when it speaks WebDAV"
            )
        way = _Way(plan, places, target, storage, progress or Silent(), dry_run)
        for piece in plan.pieces:
            way.send(piece)
    if way.unsettled or (way.refused and not way.found):
        raise all_failed(way.unsettled or way.refused)
    return CollectResult(
        run_id=plan.run_id,
        task=plan.task,
        destination=plan.destination,
        done=not dry_run,
        whole=plan.is_final,
        files=way.files,
        size_bytes=way.size_bytes,
        transferred_files=way.transferred_files,
        transferred_bytes=way.transferred_bytes,
        digest=None if dry_run else Manifest.of(way.found).digest,
        left_out=tuple(way.left_out),
    )


@dataclass
class _Way:
    """From a run folder to its place, piece by piece."""

    plan: CollectPlan
    places: DataPlaces
    target: Location
    storage: Storage
    progress: Progress
    dry_run: bool
    found: list[FileFact] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unsettled: list[DataError] = field(default_factory=list)
    """Why files were not sent that may be another time."""
    refused: list[DataError] = field(default_factory=list)
    """Why files will never be sent, as long as others are."""
    files: int = 0
    size_bytes: int = 0
    transferred_files: int = 0
    transferred_bytes: int = 0

    def send(self, piece: Piece) -> None:
        """Send a piece; one process at a time does so, and a second one finds everything there."""
        key = hashlib.sha256(f"{self.plan.folder}\0{piece.task}\0{self.target.identity}".encode()).hexdigest()
        cache = self.places.cache
        if self.dry_run:
            with cache.ledger(key) as ledger:
                self._send(piece, key, ledger)
            return
        cache.prepare()
        with cache.holding(key), cache.ledger(key) as ledger:
            self._send(piece, key, ledger)

    def _send(self, piece: Piece, key: str, ledger: Ledger) -> None:
        listed, left = list_results(self.plan.folder, piece.names)
        entries, unfit = sort_out(listed)
        there = present_there(self.storage, self.target.path, entries)
        steps = plan_transfer((str(self.plan.folder), str(self.target)), entries, there, ledger.seen)
        self.left_out += left + unfit
        if self.dry_run:
            self.files += len(entries)
            self.size_bytes += sum(each.size_bytes or 0 for each in entries)
            self.transferred_files += len(steps.transfers)
            self.transferred_bytes += steps.transfer_bytes
            return
        sending = Sending(
            folder=self.plan.folder,
            storage=self.storage,
            place=self.target_path,
            ledger=ledger,
            pair=key,
            limits=self.places.limits,
            progress=self.progress,
            read_back=self.target.kind not in _CHECKS_ITSELF,
            may_be_unreadable=True,
        )
        found: tuple[FileFact, ...] = ()
        with suppress(Unfit):  # not one of these is taken
            found = sending.run(steps)
        for failure in sending.crew.failures.values():
            (self.refused if isinstance(failure, Unfit | Forbidden) else self.unsettled).append(failure)
        self.left_out += sending.left_out
        self.found += found
        self.files += len(found)
        self.size_bytes += sum(each.size_bytes for each in found)
        sent = {each.path for each in found}
        self.transferred_files += sum(step.entry.path in sent for step in steps.transfers)
        self.transferred_bytes += sending.moved_bytes

    def target_path(self, path: str) -> str:
        """Return where a file of the run folder goes."""
        return join(self.target.path, path)
