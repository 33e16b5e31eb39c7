"""The story of `deephpc data stage` and of `--data`: a data set becomes a read-only folder in the cache, once."""

from pathlib import Path

from deephpc.data.data_source import DataSource
from deephpc.data.discrepancy import Discrepancy, by_path
from deephpc.data.download import Download
from deephpc.data.ledger import Ledger
from deephpc.data.location import Location, split_data_name
from deephpc.data.manifest import LeftOut, Manifest, told_left_out
from deephpc.data.opening import opened
from deephpc.data.plan import plan_transfer
from deephpc.data.progress import Progress, Silent
from deephpc.data.staging import Cache, StagedSet
from deephpc.data.storage import Entry, Missing
from deephpc.data.survey import complete, survey
from deephpc.errors import DataError, InputError
from deephpc.model import Model
from deephpc.workflows.data_places import DataPlaces

_ROUNDS = 3


class StagePlan(Model):
    """What will be staged, decided without any network."""

    source: str
    """The location, as it may be told to anyone."""
    name: str
    """Under which a job sees it."""
    in_place: bool
    """Whether it lies on this machine and is used where it is."""


class StageResult(Model):
    """A data set that jobs can use."""

    source: str
    name: str
    folder: Path
    file: str | None = None
    """Its name in `folder`, where the source is one file."""
    digest: str | None = None
    """Of its manifest; None for what is used in place."""
    files: int | None = None
    size_bytes: int | None = None
    transferred_files: int = 0
    transferred_bytes: int = 0
    """0 when everything was in the cache."""
    discrepancies: tuple[Discrepancy, ...] = ()
    """Files that a server lists otherwise than their bytes are; the bytes were staged."""


def plan_stage(text: str, places: DataPlaces, *, copy: bool = False) -> StagePlan:
    """Decide how `SRC[:NAME]` is staged; reads no more than rclone's configuration.

    Parameters
    ----------
    copy
        Stage a local folder too; otherwise it is used where it lies.

    Raises
    ------
    InputError
        It names no place of data, or has no name a job could see it under.
    """
    return foresee_stage(_read(text, places), places, copy=copy)


def foresee_stage(asked: DataSource, places: DataPlaces, *, copy: bool = False) -> StagePlan:
    """Decide how a data set is staged; reads no more than rclone's configuration."""
    source = places.locate(asked.place)
    return StagePlan(source=str(source), name=asked.name, in_place=source.is_local and not copy)


def carry_out_stage(
    text: str, places: DataPlaces, progress: Progress | None = None, *, copy: bool = False
) -> StageResult:
    """Bring a data set into the cache, on a login node; a second time nothing is transferred.

    Raises
    ------
    DataError
        Something could not be brought; what was stays, and the same command goes on.
    """
    return stage(_read(text, places), places, progress, copy=copy)


def stage(
    asked: DataSource, places: DataPlaces, progress: Progress | None = None, *, copy: bool = False
) -> StageResult:
    """Bring a data set into the cache, or say where it lies; as `carry_out_stage`."""
    plan = foresee_stage(asked, places, copy=copy)
    source = places.locate(asked.place)
    if plan.in_place:
        return StageResult(source=plan.source, name=plan.name, folder=_existing(source))
    cache = places.cache
    cache.prepare()
    with cache.holding(source.identity), cache.ledger(source.identity) as ledger:
        for _ in range(_ROUNDS):
            try:
                staged, transfer, count, is_file = _bring(source, ledger, places, progress or Silent())
            except Missing:  # an object vanished while the folder was made: bring it again
                if not _lacks_object(cache, ledger):
                    raise
                continue
            return StageResult(
                source=plan.source,
                name=plan.name,
                folder=staged.folder,
                file=source.name if is_file else None,
                digest=staged.digest,
                files=staged.files,
                size_bytes=staged.size_bytes,
                transferred_files=count,
                transferred_bytes=transfer.moved_bytes,
                discrepancies=by_path(transfer.discrepancies),
            )
    raise Missing(f"parts of {source} vanish from {cache.root} while it is staged", "is somebody cleaning the cache?")


def _read(text: str, places: DataPlaces) -> DataSource:
    place, name = split_data_name(text)
    source = places.locate(place)
    if not (name or source.name):
        raise InputError(f"{source} has no name to see it under", "write SRC:NAME")
    return DataSource(place=place, name=name or source.name)


def _bring(
    source: Location, ledger: Ledger, places: DataPlaces, progress: Progress
) -> tuple[StagedSet, Download, int, bool]:
    cache = places.cache
    with opened(source, places.around, places.limits) as storage:
        found = complete(storage, survey(storage, source), ledger.seen, places.limits)
        _refuse_half(source, found.left_out)
        plan = plan_transfer((str(source), str(cache.root)), found.entries, _present(cache, ledger), ledger.seen)
        download = Download(storage, found.top, cache, ledger, source.identity, places.limits, progress)
        download.is_one_file = found.is_file
        manifest = Manifest.of(download.run(plan))
        _refuse_half(source, download.left_out)
    return cache.add(manifest), download, len(plan.transfers), found.is_file


def _refuse_half(source: Location, left_out: tuple[LeftOut, ...]) -> None:
    """Refuse to stage a part: a training on half of its data looks like one on all of them."""
    if left_out:
        raise DataError(
            f"{told_left_out(str(source), left_out)}: a data set is staged whole or not at all",
            "rename it there, or stage what lies further down by itself",
        )


def _present(cache: Cache, ledger: Ledger) -> dict[str, Entry]:
    """Return which contents that were brought before are still among the objects; those never change."""
    found = {}
    for path, seen in ledger.seen.items():
        try:
            size = cache.final(path, seen.sha256).stat().st_size
        except OSError:
            continue
        if size == seen.size_bytes:
            found[path] = Entry(path, size, seen.target)
    return found


def _lacks_object(cache: Cache, ledger: Ledger) -> bool:
    return len(_present(cache, ledger)) < len(ledger.seen)


def _existing(source: Location) -> Path:
    path = Path(source.path)
    if not path.exists():
        raise Missing(f"{source} does not exist", "check the path")
    return path
