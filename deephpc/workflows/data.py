"""The story of `deephpc data get` and `put`: look at both sides, decide, bring what is missing, say what is there."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.discrepancy import Discrepancy, by_path
from deephpc.data.download import Download, Folder
from deephpc.data.ledger import Ledger
from deephpc.data.location import Location, join
from deephpc.data.manifest import FileFact, LeftOut, Manifest, render_manifest, told_left_out
from deephpc.data.opening import opened
from deephpc.data.plan import TransferPlan, plan_transfer
from deephpc.data.progress import Progress, Silent
from deephpc.data.storage import Entry, Missing, Storage, look_if_allowed
from deephpc.data.survey import Survey, complete, present_here, present_there, survey
from deephpc.data.upload import Sending
from deephpc.errors import DataError, InputError
from deephpc.jobs.run_folder import write_atomically
from deephpc.model import Model
from deephpc.workflows.data_places import DataPlaces
from deephpc.workflows.overlap import refuse_overlap


class TransferRequest(Model):
    """What was asked for."""

    source: str
    target: str
    manifest: Path | None = None
    """Where to write the manifest of what is there in the end."""
    read_back: bool = False
    """Whether what was sent is read back and hashed."""


class PlannedFile(Model):
    """One file of a plan."""

    path: str
    size_bytes: int | None
    action: str
    """transfer, hash (it is there; its hash is to be found) or skip."""


class TransferResult(Model):
    """What a transfer did, or would do."""

    source: str
    target: str
    done: bool
    """False for a dry run."""
    files: int
    size_bytes: int
    transferred_files: int
    transferred_bytes: int
    """Over the network; more than the files have where something was tried twice."""
    digest: str | None = None
    """Of the manifest; None for a dry run."""
    manifest: Path | None = None
    planned: tuple[PlannedFile, ...] = ()
    """For a dry run."""
    left_out: tuple[LeftOut, ...] = ()
    """What the source has and could not be moved."""
    discrepancies: tuple[Discrepancy, ...] = ()
    """Files that a server lists otherwise than their bytes are; the bytes were moved."""


def carry_out_get(
    request: TransferRequest, places: DataPlaces, progress: Progress | None = None, *, dry_run: bool = False
) -> TransferResult:
    """Bring a file or a folder's files here; what is equal is not brought again, what broke off goes on.

    Raises
    ------
    InputError
        A location names nothing that could be.
    DataError
        A file could not be brought; those that were stay.
    """
    source, target = places.locate(request.source), places.locate(request.target)
    if not target.is_local:
        raise InputError(f"{target} is not on this machine", f"`deephpc data put {source} {target}` sends files away")
    with opened(source, places.around, places.limits) as storage, _pair(source, target, places, dry_run) as pair:
        found = complete(storage, survey(storage, source), pair.ledger.seen, places.limits)
        home = _home(found, source, target)
        if source.is_local:
            finals = [home.final(each.path, "") for each in found.entries] or [home.root]
            refuse_overlap(Path(source.path), finals, "give another DEST, outside of it")
        here = present_here(found.entries, {each.path: home.final(each.path, "") for each in found.entries})
        plan = plan_transfer((str(source), str(target)), found.entries, here, pair.ledger.seen)
        if dry_run:
            return _planned(plan, found)
        transfer = Download(storage, found.top, home, pair.ledger, pair.key, places.limits, progress or Silent())
        transfer.is_one_file = found.is_file
        files = transfer.run(plan)
        if not files:
            home.root.mkdir(parents=True, exist_ok=True)
        return _result((plan, found), files, transfer, request.manifest)


def carry_out_put(
    request: TransferRequest, places: DataPlaces, progress: Progress | None = None, *, dry_run: bool = False
) -> TransferResult:
    """Send a local file or a folder's files away; what is equal is not sent again.

    Raises
    ------
    InputError
        A location names nothing that could be.
    DataError
        A file could not be sent; those that were stay.
    """
    source, target = places.locate(request.source), places.locate(request.target)
    if not source.is_local:
        raise InputError(f"{source} is not on this machine", f"`deephpc data get {source} {target}` brings files here")
    with ExitStack() as stack:
        local = stack.enter_context(opened(source, places.around, places.limits))
        storage = stack.enter_context(opened(target, places.around, places.limits))
        if not storage.can_write:
            raise InputError(
                f"{target} takes no files: a plain web server", "write webdav(s)://… when it speaks WebDAV"
            )
        pair = stack.enter_context(_pair(source, target, places, dry_run))
        found = survey(local, source)
        place = _Place.of(found, source, target, storage)
        if target.is_local:
            finals = [Path(place.path(each.path)) for each in found.entries] or [Path(place.top)]
            refuse_overlap(Path(source.path), finals, "give another DEST, outside of it")
        there = place.rename(present_there(storage, place.top, place.renamed(found.entries)))
        plan = plan_transfer((str(source), str(target)), found.entries, there, pair.ledger.seen)
        if dry_run:
            return _planned(plan, found)
        sending = Sending(
            folder=Path(found.top),
            storage=storage,
            place=place.path,
            ledger=pair.ledger,
            pair=pair.key,
            limits=places.limits,
            progress=progress or Silent(),
            read_back=request.read_back,
        )
        files = sending.run(plan)
        return _result((plan, found), files, sending, request.manifest)


def check_whole(result: TransferResult) -> None:
    """End the command with the code for data where something was left out: all else has arrived.

    Raises
    ------
    DataError
        Something was.
    """
    if result.left_out:
        raise DataError(
            told_left_out(result.source, result.left_out),
            "all else is there; rename or mend what is left out, or name what lies further down by itself",
        )


@dataclass(frozen=True)
class _Pair:
    """One source and target, which only one process at a time works on."""

    key: str
    ledger: Ledger


@contextmanager
def _pair(source: Location, target: Location, places: DataPlaces, dry_run: bool) -> Iterator[_Pair]:
    key = hashlib.sha256(f"{source.identity}\0{target.identity}".encode()).hexdigest()
    with ExitStack() as stack:
        if not dry_run:
            places.cache.prepare()
            stack.enter_context(places.cache.holding(key))
        yield _Pair(key, stack.enter_context(places.cache.ledger(key)))


@dataclass(frozen=True)
class _OneFile(Folder):
    """A folder that one file lies in under a name of its own."""

    name: str = ""

    def final(self, path: str, sha256: str) -> Path:
        """Return the file's path."""
        del path, sha256
        return self.root / self.name


def _home(found: Survey, source: Location, target: Location) -> Folder:
    """Say where files go: a folder's into the target, a single one into it, or under its name where it is no folder."""
    path = Path(target.path)
    if not found.is_file:
        if path.exists() and not path.is_dir():
            raise InputError(f"{target} is a file, {source} is a folder", "name a folder to put the files into")
        return Folder(path)
    if target.wants_folder or path.is_dir():
        return Folder(path)
    return _OneFile(path.parent, name=path.name)


@dataclass(frozen=True)
class _Place:
    """Where sent files go: below a path, a single one perhaps under another name."""

    top: str
    old_name: str = ""
    new_name: str = ""

    @classmethod
    def of(cls, found: Survey, source: Location, target: Location, storage: Storage) -> "_Place":
        """Decide as `_home` does, for the other direction."""
        if not found.is_file or target.wants_folder:
            return cls(target.path.rstrip("/") or ("/" if target.path.startswith("/") else ""))
        there = look_if_allowed(storage, target.path)
        if there is not None and there.is_folder:
            return cls(target.path)
        top = target.path[: -len(target.name)].rstrip("/")
        return cls(top or ("/" if target.path.startswith("/") else ""), source.name, target.name)

    def path(self, name: str) -> str:
        """Return an entry's path at the target."""
        return join(self.top, self.new_name if name == self.old_name else name)

    def renamed(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Return the entries under the names they have at the target."""
        return tuple(
            Entry(self.new_name if each.path == self.old_name else each.path, each.size_bytes) for each in entries
        )

    def rename(self, found: dict[str, Entry]) -> dict[str, Entry]:
        """Return what is at the target by the names at the source."""
        return {self.old_name if name == self.new_name else name: entry for name, entry in found.items()}


def _planned(plan: TransferPlan, found: Survey) -> TransferResult:
    rows = (
        PlannedFile(path=step.entry.path, size_bytes=step.entry.size_bytes, action=step.action.value)
        for step in plan.steps
    )
    return TransferResult(
        source=plan.source,
        target=plan.target,
        done=False,
        files=len(plan.steps),
        size_bytes=sum(step.entry.size_bytes or 0 for step in plan.steps),
        transferred_files=len(plan.transfers),
        transferred_bytes=plan.transfer_bytes,
        planned=tuple(rows),
        left_out=found.left_out,
    )


def _result(
    decided: tuple[TransferPlan, Survey],
    files: tuple[FileFact, ...],
    transfer: Download | Sending,
    manifest_path: Path | None,
) -> TransferResult:
    plan, found = decided
    manifest, moved = Manifest.of(files), {each.path for each in files}
    if manifest_path is not None:
        try:
            write_atomically(manifest_path, render_manifest(manifest))
        except FileNotFoundError as error:
            raise Missing(f"the folder of {manifest_path} does not exist", "make it first") from error
    return TransferResult(
        source=plan.source,
        target=plan.target,
        done=True,
        files=len(files),
        size_bytes=manifest.size_bytes,
        transferred_files=sum(step.entry.path in moved for step in plan.transfers),
        transferred_bytes=transfer.moved_bytes,
        digest=manifest.digest,
        manifest=manifest_path,
        left_out=found.left_out + transfer.left_out,
        discrepancies=by_path(transfer.discrepancies),
    )
