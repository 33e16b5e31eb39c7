"""One table of a batch's results, made on the login node from what its tasks have written, as often as wanted."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from pydantic import JsonValue, ValidationError

from deephpc.errors import InputError
from deephpc.jobs.run_folder import RunFolder, read_text, unwritable
from deephpc.model import Model
from deephpc.whole_file import replacing
from deephpc.workflows.batch_predict import Batch
from deephpc.workflows.batch_rows import columns_of, json_lines, read_rows
from deephpc.workflows.trained import tell_opened

_MOST_FAILURES = 100
_MOST_COLUMNS = 500


class Failure(Model):
    """An input without a result, and why."""

    key: str
    input: Mapping[str, JsonValue]
    error: str


class BatchSummary(Model):
    """How a batch stands, and where its table lies."""

    run_id: str
    inputs: int
    ok: int
    failed: int
    missing: int
    """Not predicted (yet)."""
    results: Path
    """JSON lines, one for each input, in order."""
    table: Path
    """The same as CSV, with each result in columns."""
    failures: tuple[Failure, ...] = ()
    """The first hundred that failed."""
    opened: str = ""
    """Which files of its models it opened, as a sentence; empty where nothing noted that."""


def results_file(folder: RunFolder) -> Path:
    """Return where the JSON lines of the table lie."""
    return folder.path / "results.jsonl"


def table_file(folder: RunFolder) -> Path:
    """Return where the CSV of the table lies."""
    return folder.path / "results.csv"


def load_batch(folder: RunFolder) -> Batch:
    """Read what a batch was asked.

    Raises
    ------
    InputError
        The run is no batch of predictions, or one that this version does not understand.
    """
    try:
        return Batch.model_validate_json(read_text(folder.path / "inputs" / "batch.json") or "")
    except ValidationError as error:
        raise InputError(
            f"run {folder.path.name} is no batch of predictions", "`deephpc jobs --kind predict` lists those"
        ) from error


def merge_results(folder: RunFolder) -> BatchSummary:
    """Write the table anew from what there is; the same bytes when nothing has changed.

    Raises
    ------
    InputError
        The run is no batch.
    SiteError
        The table cannot be written.
    """
    batch = load_batch(folder)
    counts: Counter[bool | None] = Counter()
    failures: list[Failure] = []
    columns: dict[str, None] = {}
    results, table = results_file(folder), table_file(folder)
    with _replacing(results) as out:
        for row in read_rows(folder, batch):
            counts[row["ok"]] += 1
            if row["ok"] is False and len(failures) < _MOST_FAILURES:
                failures.append(Failure(key=row["key"], input=row["input"], error=row["error"] or ""))
            for name in [f"input.{each}" for each in row["input"]] + list(columns_of(row)):
                columns.setdefault(name)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    with _replacing(table) as out:
        _write_csv(out, results, list(columns)[:_MOST_COLUMNS])
    return BatchSummary(
        run_id=folder.path.name,
        inputs=counts.total(),
        ok=counts[True],
        failed=counts[False],
        missing=counts[None],
        results=results,
        table=table,
        failures=tuple(failures),
        opened=tell_opened(folder) if counts[True] else "",
    )


def load_done(folder: RunFolder) -> dict[str, str]:
    """Return the rows of a batch that have a result, by key, as lines of JSON; writes nothing.

    An answer that was removed since counts as none.

    Raises
    ------
    InputError
        The run is no batch.
    """
    good = (row for row in read_rows(folder, load_batch(folder)) if row["ok"])
    return {row["key"]: json.dumps(row) for row in good if row["output"] is None or Path(row["output"]).exists()}


def _write_csv(out: IO[str], results: Path, names: Sequence[str]) -> None:
    inputs = [name for name in names if name.startswith("input.")]
    answers = [name for name in names if not name.startswith("input.")]
    shown = ["input"] if len(inputs) == 1 else inputs
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", *shown, "ok", "output", "seconds", "error", *answers])
    for _, row in json_lines(results):
        ok = {True: "true", False: "false"}.get(row["ok"], "")
        given = [row["input"].get(name.removeprefix("input."), "") for name in inputs]
        found = columns_of(row)
        facts = [ok, *("" if row[name] is None else row[name] for name in ("output", "seconds", "error"))]
        writer.writerow([row["key"], *given, *facts, *(found.get(name, "") for name in answers)])


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """Write a text whole or not at all."""
    try:
        with replacing(path) as file:
            text = TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
            yield text
            text.detach()  # flushes
    except OSError as error:
        raise unwritable(path.parent, error) from error
