"""Since when runs, or tasks of arrays, are missing from every source: one empty look is no proof that they are lost."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from deephpc.jobs.record_file import RecordFile
from deephpc.jobs.record_rows import text_of

#: When the run (None) or each task of its array was first missed.
Missed = dict[int | None, datetime]
_WHOLE = -1
_KEY = ("run_id", "task")
_COLUMNS: dict[str, type] = {"run_id": str, "task": int, "since": str}


class Absences:
    """The table of what is missed, empty nearly always; it is made when the first row is written."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file

    def all(self) -> dict[str, Missed]:
        """Return what is missed of each run."""
        found: dict[str, Missed] = {}
        for row in self._file.rows("absences", []) if self._is_there() else ():
            task = None if row["task"] == _WHOLE else int(row["task"])
            found.setdefault(row["run_id"], {})[task] = datetime.fromisoformat(row["since"])
        return found

    def note(
        self,
        missing: Mapping[str, Iterable[int | None]],
        back: Mapping[str, Iterable[int | None]],
        now: datetime,
    ) -> None:
        """Keep what is missed from now on, where it was not missed before, and forget what is there or has ended."""
        added = [{**row, "since": text_of(now)} for row in _keys(missing)]
        gone = _keys(back)

        def write() -> None:
            table = self._file.table("absences")
            table.create(_COLUMNS, pk=_KEY, if_not_exists=True)
            table.insert_all(added, pk=_KEY, ignore=True)
            for row in gone:
                table.delete_where("run_id = ? and task = ?", [row["run_id"], row["task"]])

        if added or gone:
            self._file.write(write)

    def _is_there(self) -> bool:
        return bool(self._file.rows("sqlite_master where name = 'absences'", []))


def _keys(runs: Mapping[str, Iterable[int | None]]) -> list[dict[str, Any]]:
    return [
        {"run_id": run_id, "task": _WHOLE if task is None else task} for run_id, tasks in runs.items() for task in tasks
    ]
