"""Answers about data as tables and sentences or as versioned JSON, and transfers as a bar on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.data.progress import Progress, Silent
from deephpc.render.answer import draw, to_json, visible
from deephpc.render.bars import showing_bars
from deephpc.room import render_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from deephpc.workflows.collect import CollectResult
    from deephpc.workflows.data import TransferResult
    from deephpc.workflows.data_check import Listing, Verdict
    from deephpc.workflows.data_staging import StagePlan, StageResult

_MANY = 50


def render_listing(listing: "Listing", *, as_json: bool) -> str:
    """Return what a place has."""
    if as_json:
        return to_json("deephpc.data-listing/1", listing.model_dump(mode="json"))
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("SIZE", justify="right")
    table.add_column("MODIFIED")
    table.add_column("NAME", overflow="fold")
    for each in listing.entries:
        size = "-" if each.size_bytes is None else render_size(each.size_bytes)
        modified = "-" if each.modified is None else f"{each.modified.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(size, modified, Text(visible(each.path) + ("/" if each.is_folder else "")))
    return draw(table)


def render_transfer(result: "TransferResult", *, as_json: bool) -> str:
    """Return what a transfer did, or would do."""
    if as_json:
        facts = result.model_dump(mode="json", exclude=None if not result.done else {"planned"})
        return to_json("deephpc.data-transfer/1" if result.done else "deephpc.data-plan/1", facts)
    if not result.done:
        return _render_plan(result)
    lines = [
        f"{result.target}: {_files(result.files)}, {render_size(result.size_bytes)}",
        f"transferred {_files(result.transferred_files)}, {render_size(result.transferred_bytes)}",
        f"manifest {result.digest}" + (f" in {result.manifest}" if result.manifest else ""),
    ]
    return "\n".join(visible(line) for line in lines)


def render_stage_plan(plan: "StagePlan", *, as_json: bool) -> str:
    """Return how something would be staged."""
    if as_json:
        return to_json("deephpc.data-stage-plan/1", plan.model_dump(mode="json"))
    how = "is used where it lies" if plan.in_place else "would be staged"
    return visible(f"{plan.source} {how}; jobs see it as {plan.name}")


def render_staged(result: "StageResult", *, as_json: bool) -> str:
    """Return the folder of a staged data set."""
    if as_json:
        return to_json("deephpc.data-stage/1", result.model_dump(mode="json"))
    return str(result.folder)


def render_collected(result: "CollectResult", *, as_json: bool) -> str:
    """Return what was collected, or would be."""
    if as_json:
        return to_json("deephpc.collect/1", result.model_dump(mode="json"))
    sent = f"{_files(result.transferred_files)}, {render_size(result.transferred_bytes)}"
    lines = [
        f"{result.destination}: {_files(result.files)}, {render_size(result.size_bytes)}",
        f"transferred {sent}" if result.done else f"would transfer {sent}",
    ]
    return "\n".join(visible(line) for line in lines)


def render_forgotten(run_id: str, folder: Path, destination: str | None, *, done: bool, as_json: bool) -> str:
    """Return which results are sent no more, or would not be."""
    if as_json:
        told = {"run_id": run_id, "folder": str(folder), "destination": destination, "done": done}
        return to_json("deephpc.collect-forgotten/1", told)
    if destination is None:
        return f"no results of {run_id} wait"
    how = "stay" if done else "would stay"
    return visible(f"results of {run_id} {how} in {folder}; they are not sent to {destination}")


def render_verdict(verdict: "Verdict", *, as_json: bool) -> str:
    """Return what hashing found."""
    if as_json:
        return to_json("deephpc.data-verify/1", {**verdict.model_dump(mode="json"), "sound": not verdict.faults})
    if not verdict.faults:
        return visible(f"{verdict.location}: {_files(verdict.files)} as in {verdict.against}")
    return "\n".join(visible(f"{fault.path}: {fault.reason}") for fault in verdict.faults)


@contextmanager
def showing_progress(*, quiet: bool) -> Iterator[Progress]:
    """Show a bar with rate and time left on stderr while the block runs; nothing where stderr is no terminal."""
    with showing_bars(quiet=quiet) as bars:
        yield Silent() if bars is None else _Bar(bars)


class _Bar:
    """One bar for all files; Rich locks for itself."""

    def __init__(self, bars: "RichProgress") -> None:
        self._bars = bars
        self._task = bars.add_task("looking", total=None)
        self._size_bytes = self._files = self._done = 0

    def expect(self, size_bytes: int, files: int) -> None:
        """Make the bar longer."""
        self._size_bytes += size_bytes
        self._files += files
        self._bars.update(self._task, total=self._size_bytes)
        self._describe()

    def advance(self, size_bytes: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, size_bytes)

    def finish_file(self) -> None:
        """Count a file."""
        self._done += 1
        self._describe()

    def _describe(self) -> None:
        self._bars.update(self._task, description=f"{self._done}/{self._files} files")


def _render_plan(result: "TransferResult") -> str:
    head = (
        f"would transfer {_files(result.transferred_files)} of {result.files}, {render_size(result.transferred_bytes)},"
        f" from {result.source} to {result.target}"
    )
    rows = [f"  {each.action:8} {each.path}" for each in result.planned[:_MANY]]
    more = len(result.planned) - _MANY
    lines = [head, *rows, *([f"  … and {more} more; all of them with --json"] if more > 0 else [])]
    return "\n".join(visible(line) for line in lines)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
