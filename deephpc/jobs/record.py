"""The record of jobs: what runs there are and how they stand, safe with several login nodes writing at once.

The run folders are the truth: whatever is lost here comes back by `deephpc jobs rebuild`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from deephpc.errors import InputError
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.record_absences import Absences
from deephpc.jobs.record_file import RecordFile
from deephpc.jobs.record_rows import job_of, known_state, row_of, text_of
from deephpc.jobs.record_transfers import Transfers
from deephpc.jobs.state import FINAL, UNSENT, JobState
from deephpc.model import Model

#: A run seen again as it stood is written again only after this.
LOOKS_APART = timedelta(seconds=20)


class JobEvent(Model):
    """One transition of a run as this record saw it."""

    run_id: str
    at: datetime
    from_state: JobState | None
    to_state: JobState
    source: str
    detail: str = ""


class JobFilter(Model):
    """Which jobs to list; None or empty is any."""

    states: tuple[JobState, ...] = ()
    kind: str | None = None
    text: str | None = None
    """Part of the run id or target."""
    since: datetime | None = None
    limit: int = 50


class Tally(Model):
    """How many runs a question is about."""

    matching: int
    """Runs that fit the question, whatever its limit."""
    recorded: int
    """All runs of the record."""


class NameTaken(InputError):  # noqa: N818 - says what happened; callers go on with the next name
    """Another run has this id."""


class Record:
    """The jobs of one user. Opening makes the file (0600) in its folder (0700) if need be.

    Raises
    ------
    SiteError
        The folder cannot be written, or the file is not a record of this version.
    """

    def __init__(self, path: Path) -> None:
        self._file = RecordFile(path)
        self._unreadable: set[str] = set()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def transfers(self) -> Transfers:
        """Where the results of runs go."""
        return Transfers(self._file)

    @cached_property
    def absences(self) -> Absences:
        """Since when runs are missing from every source."""
        return Absences(self._file)

    @property
    def troubles(self) -> tuple[str, ...]:
        """One line for each row met so far that cannot be read, and was passed over."""
        return tuple(
            f"the record cannot read its row of {run_id}; `deephpc jobs rebuild` writes it anew from the run folder"
            for run_id in sorted(self._unreadable)
        )

    # --- writing ---

    def add(self, job: Job, detail: str = "") -> None:
        """Record a new run.

        Raises
        ------
        NameTaken
            Another run has this id.
        """

        def write() -> None:
            self._file.table("jobs").insert(row_of(job))
            self._note(job.run_id, None, job, job.created_at, detail)

        try:
            self._file.write(write)
        except sqlite3.IntegrityError as error:
            raise NameTaken(f"a run named {job.run_id} is recorded already", "choose another --name") from error

    def change(self, run_id: str, change: Callable[[Job], Job], now: datetime, detail: str = "") -> Job:
        """Read a run, change it and write it back in one transaction; a change of state becomes an event.

        Raises
        ------
        InputError
            No such run.
        """

        def write() -> Job:
            before = self.get(run_id)
            after = change(before)
            if after != before:
                self._write(before, after, now, detail)
            return after

        return self._file.write(write)

    def settle(self, standings: Mapping[str, tuple[Standing, Mapping[int, JobState]]], now: datetime) -> frozenset[str]:
        """Write where runs stand now, all in one transaction; return the ids of those whose rows changed.

        Rows that did not change are left alone, and so are those that another process has looked at since.
        """

        def write() -> frozenset[str]:
            changed = set()
            for before in self._read_many(standings):
                standing, tasks = standings[before.run_id]
                after = before.with_standing(standing).model_copy(update={"tasks": dict(tasks)})
                if _differs(before, after) and not _is_older(standing, before):
                    self._write(before, after, now, standing.reason)
                    changed.add(before.run_id)
            return frozenset(changed)

        return self._file.write(write) if standings else frozenset()

    def forget(self, run_id: str) -> None:
        """Remove a run of which nothing was sent and nothing was kept."""

        def write() -> None:
            self._file.table("jobs").delete_where("run_id = ?", [run_id])
            self._file.table("job_events").delete_where("run_id = ?", [run_id])

        self._file.write(write)

    def put_back(self, jobs: Iterable[Job]) -> int:
        """Write rows as they are, over whatever stands there (`jobs rebuild`); return how many."""
        rows = [row_of(job) for job in jobs]

        def write() -> None:
            self._file.table("jobs").upsert_all(rows, pk="run_id")

        self._file.write(write)
        return len(rows)

    def keep_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Keep `{run: {metric: last value}}` of runs that ended; the tasks of an array stand as RUN_N."""
        rows = [
            {"run_id": run_id, "name": name, "value": value}
            for run_id, values in metrics.items()
            for name, value in values.items()
        ]

        def write() -> None:
            self._file.table("metrics").upsert_all(rows, pk=("run_id", "name"))

        if rows:
            self._file.write(write)

    # --- reading ---

    def get(self, run_id: str) -> Job:
        """Return a run by its exact id.

        Raises
        ------
        InputError
            No such run.
        """
        for job in self._read_many([run_id]):
            return job
        raise InputError(
            f"no run named {run_id!r} is recorded", "`deephpc jobs` lists the runs; `jobs rebuild` looks on disk"
        )

    def has(self, run_id: str) -> bool:
        """Whether a run of this exact id is recorded."""
        return bool(self._file.rows("jobs where run_id = ? limit 1", [run_id]))

    def count(self, fingerprint: str) -> int:
        """Return how many runs of one request are recorded."""
        (row,) = self._file.rows("(select count(*) as runs from jobs where fingerprint = ?)", [fingerprint])
        return int(row["runs"])

    def resolve(self, word: str) -> tuple[Job, int | None]:
        """Find a run by id, by the start of one, by the scheduler's id; with `_N` behind it, one task of its array.

        Raises
        ------
        InputError
            None fits, several do, or the run has no such task.
        """
        exact = self._find(word)
        if exact is not None:
            return exact, None
        plain, semicolon, cluster = word.partition(";")
        name, _, number = plain.rpartition("_")
        name += semicolon + cluster
        job = self._find(name) if name and number.isdecimal() else None
        if job is None:
            raise InputError(
                f"no run named {word!r} is recorded", "`deephpc jobs` lists the runs; `jobs rebuild` looks on disk"
            )
        if int(number) not in job.tasks:
            raise InputError(f"run {job.run_id} has no array task {number}", f"its tasks: {_few(job.tasks)}")
        return job, int(number)

    def find(self, wanted: JobFilter) -> list[Job]:
        """Return the newest runs that fit, newest first."""
        where, values = _condition(wanted)
        return self._select(f"where {where} order by created_at desc, run_id desc limit {int(wanted.limit)}", values)

    def tally(self, wanted: JobFilter) -> Tally:
        """Return how many runs fit, beyond the limit too, and how many there are."""
        where, values = _condition(wanted)
        counted = self._file.rows(f"(select count(*) as recorded, sum({where}) as matching from jobs)", values)[0]  # noqa: S608 - our text
        return Tally(matching=counted["matching"] or 0, recorded=counted["recorded"])

    def unfinished(self) -> list[Job]:
        """Return every run that is not final, oldest first."""
        final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
        return self._select(f"where state not in ({final}) order by created_at", [])

    def ended_ids(self, scheduler: str, since: datetime) -> dict[str, str]:
        """Return `{job id: run id}` of the plain jobs of a scheduler that were made after a time and have ended.

        Of several runs that were given the same id it is the newest.
        """
        final = ", ".join(f"'{state.value}'" for state in sorted(FINAL - {JobState.LOST}))
        where = f"where state in ({final}) and scheduler = ? and job_id not null and tasks = '{{}}' and created_at >= ?"
        query = f"(select job_id, run_id from jobs {where} order by created_at)"  # noqa: S608 - our text
        rows = self._file.rows(query, [scheduler, text_of(since)])
        return {row["job_id"]: row["run_id"] for row in rows}

    def lost_since(self, since: datetime) -> list[Job]:
        """Return the runs called LOST that were made after a time; evidence may still turn up for them."""
        return self._select("where state = 'LOST' and created_at >= ?", [text_of(since)])

    def unsent(self, fingerprint: str, since: datetime) -> list[Job]:
        """Return the runs of one request that the scheduler never confirmed, oldest first."""
        states = ", ".join(f"'{state.value}'" for state in sorted({*UNSENT, JobState.LOST}))
        return self._select(
            f"where fingerprint = ? and job_id is null and state in ({states}) and created_at >= ? order by created_at",
            [fingerprint, text_of(since)],
        )

    def events(self, run_id: str) -> list[JobEvent]:
        """Return the transitions of a run, oldest first."""
        rows = self._file.rows("job_events where run_id = ? order by rowid", [run_id])
        return [
            JobEvent(**{**row, "from_state": before and known_state(before), "to_state": known_state(row["to_state"])})
            for row, before in ((row, row["from_state"] or None) for row in rows)
        ]

    def metrics(self, run_ids: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return the last values of the metrics of runs that ended."""
        found: dict[str, dict[str, float]] = {}
        for chunk in _chunks(list(run_ids)):
            for row in self._file.rows(f"metrics where run_id in ({', '.join('?' * len(chunk))})", chunk):
                found.setdefault(row["run_id"], {})[row["name"]] = row["value"]
        return found

    # --- inside ---

    def _find(self, word: str) -> Job | None:
        found = self._select("where run_id = ? or job_id = ? order by created_at desc limit 1", [word, word])
        if not found and word.isdecimal():  # on one of several clusters
            found = self._select("where substr(job_id, 1, ?) = ? limit 11", [len(word) + 1, f"{word};"])
        if not found:
            found = self._select("where substr(run_id, 1, ?) = ? limit 11", [len(word), word]) if word else []
        if len(found) > 1:
            names = ", ".join(sorted(job.run_id for job in found[:10]))
            raise InputError(f"{word!r} fits more than one run", f"one of: {names}{', …' if len(found) > 10 else ''}")
        return found[0] if found else None

    def _write(self, before: Job, after: Job, now: datetime, detail: str) -> None:
        old, new = row_of(before), row_of(after)
        self._file.table("jobs").update(before.run_id, {key: new[key] for key in new if new[key] != old[key]})
        if before.state != after.state:
            self._note(before.run_id, before.state, after, now, detail)

    def _note(self, run_id: str, old: JobState | None, job: Job, now: datetime, detail: str) -> None:
        row = {
            "run_id": run_id,
            "at": text_of(now),
            "from_state": old.value if old else "",
            "to_state": job.state.value,
            "source": job.source,
            "detail": detail,
        }
        self._file.table("job_events").insert(row)

    def _read_many(self, run_ids: Iterable[str]) -> Iterator[Job]:
        for chunk in _chunks(list(run_ids)):
            yield from self._select(f"where run_id in ({', '.join('?' * len(chunk))})", chunk)

    def _select(self, rest: str, values: list[Any]) -> list[Job]:
        found = []
        for row in self._file.rows(f"jobs {rest}", values):
            try:
                found.append(job_of(row))
            except (ValueError, TypeError):  # one bad row must not hide the others
                self._unreadable.add(str(row["run_id"]))
        return found


def _condition(wanted: JobFilter) -> tuple[str, list[str]]:
    """Return what a run must fulfil to fit, as SQL with its values."""
    clauses: list[str] = ["1"]
    values: list[str] = []
    if wanted.states:
        clauses.append(f"state in ({', '.join('?' * len(wanted.states))})")
        values += [state.value for state in wanted.states]
    if wanted.kind:
        clauses.append("kind = ?")
        values.append(wanted.kind)
    if wanted.text:
        clauses.append("(instr(run_id, ?) or instr(target, ?))")
        values += [wanted.text, wanted.text]
    if wanted.since:
        clauses.append("created_at >= ?")
        values.append(text_of(wanted.since))
    return " and ".join(clauses), values


def _differs(before: Job, after: Job) -> bool:
    """Whether a row is worth writing: another look at the same state counts only after a while."""
    if after.seen_at and before.seen_at and after.seen_at - before.seen_at < LOOKS_APART:
        after = after.model_copy(update={"seen_at": before.seen_at})
    return after != before


def _is_older(look: Standing, known: Standing) -> bool:
    """Whether a look at a run began before another process saw it end, or saw it at all."""
    if known.seen_at is None or look.seen_at is None:
        return known.seen_at is not None
    return known.state.is_final and look.seen_at < known.seen_at


def _chunks(values: list[str], size: int = 500) -> Iterator[list[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _few(tasks: Mapping[int, JobState]) -> str:
    if not tasks:
        return "none, it is not an array"
    numbers = sorted(tasks)
    return ", ".join(map(str, numbers[:8])) + (f", … {numbers[-1]}" if len(numbers) > 8 else "")
