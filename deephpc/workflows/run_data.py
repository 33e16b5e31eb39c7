"""Brings a run's data to where its job finds them: staged once, linked in the run folder, bound into its image."""

from collections.abc import Callable, Sequence
from pathlib import Path

from deephpc.containers.container import Container, check_path
from deephpc.data.data_source import DataSource, StagedData, modules_own
from deephpc.data.progress import Progress
from deephpc.workflows.data_places import DataPlaces
from deephpc.workflows.data_staging import StageResult, foresee_stage, stage


def foresee_data(sources: Sequence[DataSource], places: DataPlaces) -> tuple[StagedData, ...]:
    """Return what `bring_data` would stage, as far as it is known without any network (for a dry run)."""
    found = []
    for each in sources:
        plan = foresee_stage(each, places)
        path = Path(places.locate(each.place).path) if plan.in_place else None
        found.append(StagedData(name=plan.name, source=plan.source, path=path))
    return tuple(found)


def bring_data(
    sources: Sequence[DataSource], places: DataPlaces, tell: Callable[[str], None], progress: Progress | None = None
) -> tuple[StagedData, ...]:
    """Stage the data sets of a run (login node); what is in the cache is not transferred again.

    Raises
    ------
    DataError
        Something could not be brought; what was stays, and the same command goes on.
    """
    found = []
    for each in sources:
        staged = stage(each, places, progress)
        tell(_told(staged))
        for listed in staged.discrepancies:
            tell(f"data {staged.name}: {listed.path} {listed.reason}; the bytes count")
        found.append(_of(staged))
    return tuple(found)


def showing_data(container: Container, staged: Sequence[StagedData]) -> Container:
    """Return how a run uses its image, with its data bound read-only at their own paths (pure).

    The links in the run folder then lead to them inside as they do outside.

    Raises
    ------
    InputError
        A path has a character that engines take for something else.
    """
    paths = [each.path for each in staged if each.path is not None]
    for path in paths:
        check_path(str(path), "--data")
    own = modules_own(staged)
    links = tuple(f"{each.name}={each.path}" for each in staged if each.path is not None)
    return container.with_binds(f"{path}:{path}:ro" for path in paths).model_copy(
        update={"data": links, "module_data": own.path if own else None}
    )


def _of(staged: StageResult) -> StagedData:
    return StagedData(
        name=staged.name,
        source=staged.source,
        path=staged.folder / (staged.file or ""),
        digest=staged.digest,
        files=staged.files,
        size_bytes=staged.size_bytes,
    )


def _told(staged: StageResult) -> str:
    if staged.digest is None:
        return f"data {staged.name}: {staged.source}, used where it lies"
    brought = f"{staged.transferred_files} of {staged.files} files transferred, {staged.transferred_bytes} bytes"
    return f"data {staged.name}: {staged.source}, {brought}"
