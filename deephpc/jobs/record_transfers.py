"""The record's table of transfers: where the results of runs go, and how far they are."""

from datetime import datetime, timedelta
from typing import Any

from deephpc.jobs.delivery import Delivery
from deephpc.jobs.record_file import RecordFile
from deephpc.jobs.record_rows import text_of
from deephpc.jobs.state import FINAL

#: How long the results of a run are looked after by every command that looks at runs, from its submission on.
_LOOKED_AFTER = timedelta(days=60)
_KEY = ("run_id", "destination")
_COLUMNS: dict[str, type] = {
    "run_id": str, "destination": str, "asked": int, "state": str, "by": str, "at": str, "files": int,
    "size_bytes": int, "transferred_files": int, "transferred_bytes": int, "digest": str, "reason": str,
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
        """Return the last word on the results, by run, of runs that ended, when these are not all where they belong."""
        final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
        ended = f"asked = 1 and jobs.state in ({final}) and job_id not null and created_at >= ?"
        rest = (
            f"(select transfers.* from transfers join jobs using (run_id) where transfers.state != 'done' and {ended})"  # noqa: S608 - our text
        )
        return {row["run_id"]: _delivery(row) for row in self._rows(rest, [text_of(now - _LOOKED_AFTER)])}

    def _rows(self, rest: str, values: list[Any]) -> list[dict[str, Any]]:
        if not self._file.rows("sqlite_master where name = 'transfers'", []):
            return []
        return self._file.rows(rest, values)

    def _write(self, row: dict[str, Any], *, replace: bool) -> None:
        def write() -> None:
            table = self._file.table("transfers")
            table.create(_COLUMNS, pk=_KEY, if_not_exists=True)
            if replace:
                table.upsert(row, pk=_KEY)
            else:
                table.insert(row, pk=_KEY, ignore=True)

        self._file.write(write)


def _delivery(row: dict[str, Any]) -> Delivery:
    """Return a row as a value; columns that were never filled have their defaults."""
    known = {name: row[name] for name in Delivery.model_fields if row.get(name) is not None}
    return Delivery.model_validate({"by": "login", **known})
