"""The record's table of transfers: where the results of runs go, and how far they are."""

from datetime import datetime, timedelta
from typing import Any

from deephpc.jobs.delivery import Delivery
from deephpc.jobs.record_file import RecordFile
from deephpc.jobs.record_rows import text_of
from deephpc.jobs.state import FINAL

#: How long the results of a run are looked after by every command that looks at runs, from its submission on.
_LOOKED_AFTER = timedelta(days=60)
#: How long what was said of the results of a run is not said again.
_SILENT = timedelta(days=1)
_KEY = ("run_id", "destination")
_COLUMNS: dict[str, type] = {
    "run_id": str, "destination": str, "asked": int, "state": str, "by": str, "at": str, "files": int,
    "size_bytes": int, "transferred_files": int, "transferred_bytes": int, "digest": str, "reason": str,
    "told": str, "told_at": str,
}  # fmt: skip


class Transfers:
    """One row for each run and destination. The table is made when the first row is written."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file

    def expect(self, run_id: str, destination: str, now: datetime) -> None:
        """Note that a run's results are to go somewhere when it ends (`--collect`); what is known of it stays."""
        row = {"run_id": run_id, "destination": destination, "asked": 1, "state": "waiting", "at": text_of(now)}
        self._write(row, replace=False)

    def note(self, run_id: str, delivery: Delivery) -> None:
        """Note how results left."""
        facts = delivery.model_dump(mode="json", exclude={"left_s"})
        self._write({"run_id": run_id, **facts, "at": text_of(delivery.at)}, replace=True)

    def of(self, run_id: str) -> tuple[Delivery, ...]:
        """Return where a run's results went, or are to go."""
        return tuple(map(_delivery, self._rows("transfers where run_id = ? order by rowid", [run_id])))

    def owed(self, now: datetime) -> dict[str, Delivery]:
        """Return the last word on the results, by run, of runs that ended, when these were not all sent anywhere.

        Those that went elsewhere are among them until their job's own last word is known.
        """
        final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
        ended = f"asked = 1 and jobs.state in ({final}) and job_id not null and created_at >= ?"
        settled = "run_id in (select run_id from transfers where state = 'done')"  # there, or elsewhere
        open_ = f"transfers.state != 'done' and not (transfers.state = 'failed' and {settled})"
        rest = f"(select transfers.* from transfers join jobs using (run_id) where {ended} and {open_})"  # noqa: S608 - our text
        return {row["run_id"]: _delivery(row) for row in self._rows(rest, [text_of(now - _LOOKED_AFTER)])}

    def went_anywhere(self, run_id: str) -> bool:
        """Whether the results of a run are all at one of the places to which they were sent."""
        return any(each.state == "done" for each in self.of(run_id))

    def forget(self, run_id: str) -> None:
        """Note that the results of a run stay where they are; what is known of them stays, too."""
        for each in self.of(run_id):
            self._write({"run_id": run_id, "destination": each.destination, "asked": 0}, replace=True)

    def is_news(self, run_id: str, destination: str, what: str, now: datetime) -> bool:
        """Say whether something was not said of a run's results within a day, and note that it is said now."""
        rows = self._rows("transfers where run_id = ? and destination = ?", [run_id, destination])
        if any(row.get("told") == what and (row["told_at"] or "") > text_of(now - _SILENT) for row in rows):
            return False
        told = {"run_id": run_id, "destination": destination, "told": what, "told_at": text_of(now)}
        self._write(told, replace=True)
        return True

    def _rows(self, rest: str, values: list[Any]) -> list[dict[str, Any]]:
        if not self._file.rows("sqlite_master where name = 'transfers'", []):
            return []
        return self._file.rows(rest, values)

    def _write(self, row: dict[str, Any], *, replace: bool) -> None:
        def write() -> None:
            table = self._file.table("transfers")
            table.create(_COLUMNS, pk=_KEY, if_not_exists=True)
            if replace:
                table.upsert(row, pk=_KEY, alter=True)  # a table of an earlier version lacks columns
            else:
                table.insert(row, pk=_KEY, ignore=True)

        self._file.write(write)


def _delivery(row: dict[str, Any]) -> Delivery:
    """Return a row as a value; columns that were never filled have their defaults."""
    known = {name: row[name] for name in Delivery.model_fields if row.get(name) is not None}
    return Delivery.model_validate({"by": "login", **known})
