"""Reads what the tasks of a batch have written so far, as the rows of its table, in the order of its inputs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from deephpc.errors import SiteError
from deephpc.jobs.run_folder import RunFolder, read_json
from deephpc.workflows.batch_predict import Batch, split
from deephpc.workflows.result_columns import LEFT_OUT, Cell, result_columns

_LARGEST_ANSWER = 2**20
"""Bytes: a larger one is not repeated in the table, but its columns are there."""
_LARGEST_TO_READ = 2**26


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row lies."""

    file: Path
    offset: int
    is_ok: bool
    task: int | None


def read_rows(folder: RunFolder, batch: Batch) -> Iterator[dict[str, Any]]:
    """Return the rows of the table in order; `ok` is None where a task has not said anything of an input."""
    inputs = list(json_lines(folder.path / "inputs" / "all.jsonl"))
    places = {**_index_done(folder), **_index_tasks(folder, batch.tasks)}
    done = {key for key, place in places.items() if place.task is None}
    todo = [one["key"] for _, one in inputs if one["key"] not in done]
    task_of = {key: task for task, part in enumerate(split(todo, batch.tasks)) for key in part}
    ends = {task: _end_of(folder, task) for task in range(batch.tasks)}
    with _Files() as files:
        for _, one in inputs:
            key, place = one["key"], places.get(one["key"])
            if place is not None and place.task is None:
                yield files.read(place)
                continue
            row = _empty_row(folder, one, task_of.get(key))
            if place is None:
                yield {**row, "error": ends.get(task_of.get(key, -1))}
            else:
                yield {**row, **_told(files.read(place), folder.task(place.task).output)}


def _empty_row(folder: RunFolder, one: Mapping[str, Any], task: int | None) -> dict[str, Any]:
    return {
        "key": one["key"],
        "input": one["args"],
        "ok": None,
        "output": None,
        "seconds": None,
        "error": None,
        "run": folder.path.name,
        "task": task,
        "result": None,
    }


def _told(line: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Return what a task says of an input (`jobscripts/deepaas_module.py predict`), in the words of the table."""
    file, seconds, error, result = (line.get(name) for name in ("file", "seconds", "error", "result"))
    is_ok = line.get("ok") is True
    path = output / file if isinstance(file, str) and file else None
    if is_ok and path is not None and not path.exists():
        return {"error": f"its answer {path} was removed"}
    return {
        "ok": is_ok,
        "output": str(path) if path else None,
        "seconds": seconds if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None,
        "error": None if is_ok else str(error or "the module gave no reason"),
        **(_load_answer(path) if is_ok and path is not None and result is None else {"result": result}),
    }


def _load_answer(path: Path) -> dict[str, Any]:
    """Return an answer that is JSON as `result`; of one that is too large for a table its `columns` alone."""
    if path.suffix != ".json":
        return {"result": None}
    try:
        size = path.stat().st_size
        if size > _LARGEST_TO_READ:
            return {"result": None, "columns": {LEFT_OUT: f"the answer ({size / 1e6:.0f} MB)"}}
        answer: JsonValue = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        return {"result": answer} if size <= _LARGEST_ANSWER else {"result": None, "columns": result_columns(answer)}
    except (OSError, ValueError, RecursionError):
        return {"result": None}


def columns_of(row: Mapping[str, Any]) -> Mapping[str, Cell]:
    """Return the columns of a row's result."""
    found: Mapping[str, Cell] = row.get("columns") or result_columns(row["result"])
    return found


def _index_tasks(folder: RunFolder, tasks: int) -> dict[str, _Place]:
    """Return where the newest row of each input lies; one with a result before any without."""
    found: dict[str, _Place] = {}
    for task in range(tasks):
        path = folder.task(task).output / "results.jsonl"
        for offset, line in json_lines(path):
            place = _Place(path, offset, line.get("ok") is True, task)
            before = found.get(line["key"])
            if before is None or place.is_ok or not before.is_ok:
                found[line["key"]] = place
    return found


def _index_done(folder: RunFolder) -> dict[str, _Place]:
    path = folder.path / "inputs" / "done.jsonl"
    return {line["key"]: _Place(path, offset, True, None) for offset, line in json_lines(path)}


def _end_of(folder: RunFolder, task: int) -> str | None:
    """Return how a task ended, as a reason why an input of it has no result; None while it has not."""
    result = read_json(folder.task(task).result)
    if result is None:
        return None
    if result.get("state") == "COMPLETED":
        return f"task {task} ended without saying anything of it"
    reason = f": {result['reason']}" if result.get("reason") else f" with exit code {result.get('exit_code')}"
    return f"task {task} ended {result.get('state')}{reason}"


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the JSON objects with a key of a file another machine may be writing, with where each begins."""
    try:
        with path.open("rb") as file:
            offset = 0
            for raw in file:
                value = _parse(raw)
                if value is not None:
                    yield offset, value
                offset += len(raw)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SiteError(
            f"cannot read {path}: {error.strerror}", "is its file system there? try again in a moment", transient=True
        ) from error


def _parse(raw: bytes) -> dict[str, Any] | None:
    """Read a line; None where it is half a line, or no row. JSON knows no NaN, though Python writes it."""
    try:
        value = json.loads(raw.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("key"), str) else None


class _Files:
    """The files rows are read from, each opened once."""

    def __init__(self) -> None:
        self._open: dict[Path, BufferedReader] = {}

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def read(self, place: _Place) -> dict[str, Any]:
        """Return the row at a place; files only grow."""
        file = self._open.get(place.file)
        if file is None:
            file = self._open[place.file] = place.file.open("rb")
        file.seek(place.offset)
        return _parse(file.readline()) or {}
