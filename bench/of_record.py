"""The record: 100 000 jobs against the same rows read with plain sqlite3, and whole commands as the record grows."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from bench.row import Row, cost_of, paired_costs, pairs_ms
from deephpc.jobs.job import Job
from deephpc.jobs.record import JobFilter, Record
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState

JOBS = 100_000
FEW = 3
SIZES = (10_000, JOBS)
_ROUNDS = 5
_RECORD = "deephpc.db"
_PROGRAM = (sys.executable, "-m", "deephpc")
#: Commands asked of a record: what they show, their words, how often, and the bar.
_COMMANDS: tuple[tuple[str, tuple[str, ...], int, str], ...] = (
    ("deephpc jobs", ("jobs",), _ROUNDS, "flat"),
    ("deephpc jobs show RUN", ("jobs", "show", "train-x-1"), _ROUNDS, "flat"),
    (f"deephpc --json jobs -n {JOBS}", ("--json", "jobs", "-n", str(JOBS)), 2, ""),
    ("deephpc run -- true", ("run", "--", "true"), _ROUNDS, "flat"),
)


def measure() -> list[Row]:
    """Fill records, time the questions `deephpc jobs` asks of one, and commands beside records of several sizes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        places = {runs: Path(folder) / str(runs) for runs in (FEW, *SIZES)}
        for runs, place in places.items():
            with Record(place / _RECORD) as record:
                _fill(record, runs)
        return [*_questions(places[JOBS] / _RECORD), *_growth(places)]


# --- questions, inside a process -------------------------------------------------------------------------------------


def _questions(path: Path) -> list[Row]:
    with Record(path) as record:
        plain = sqlite3.connect(path)
        rows = [
            _row(record, plain, "list the newest 50", JobFilter(), "order by created_at desc limit 50"),
            _row(
                record,
                plain,
                "filter by state",
                JobFilter(states=(JobState.FAILED,)),
                "where state = 'FAILED' order by created_at desc limit 50",
            ),
            _row(
                record,
                plain,
                "filter by text",
                JobFilter(text="-777"),
                "where instr(run_id, '-777') order by created_at desc limit 50",
            ),
        ]
        plain.close()
    return rows


def _row(record: Record, plain: sqlite3.Connection, what: str, wanted: JobFilter, rest: str) -> Row:
    def select() -> list[sqlite3.Row]:
        return plain.execute(f"select * from jobs {rest}").fetchall()

    found, wanted_runs = len(select()), len(record.find(wanted))
    stumbled = "" if found == wanted_runs else f"{found} rows, not {wanted_runs}"
    ours, peer = pairs_ms(lambda: record.find(wanted), select, 15)
    return Row(f"record of {JOBS} jobs: {what}", ours, "plain sqlite3", peer, "< 100 ms", stumbled=stumbled)


# --- whole commands, as the record grows -----------------------------------------------------------------------------


def _growth(places: Mapping[int, Path]) -> Iterator[Row]:
    """Compare each command beside a large record with the same command beside a small one."""
    few = _environ(places[FEW])
    for name, words, times, bar in _COMMANDS:
        for runs in SIZES:
            many = _environ(places[runs])
            argv = (*_PROGRAM, "--quiet", *words)
            ours, peer = paired_costs(partial(cost_of, argv, env=many), partial(cost_of, argv, env=few), times)
            what, beside = f"CPU time of `{name}`, {runs} runs recorded", f"the same with {FEW}"
            yield Row(what, ours.cpu_ms, beside, peer.cpu_ms, bar, ours.peak_mib, peer.peak_mib)
    for place in places.values():
        _await_runs(place)


def _environ(place: Path) -> dict[str, str]:
    """Return the environment of one who has this record, and no Slurm."""
    own = {"DEEPHPC_SITE": "local", "DEEPHPC_STATE_DIR": str(place), "DEEPHPC_WORK_DIR": str(place / "runs")}
    return {**os.environ, **own}


def _await_runs(place: Path) -> None:
    """Wait for what `deephpc run` started, so that nothing writes into a folder that is removed."""
    with Record(place / _RECORD) as record:
        started = [job.run_id for job in record.unfinished()]
    if started:
        _run(["jobs", "wait", *started], _environ(place))


def _run(words: Sequence[str], environ: Mapping[str, str]) -> None:
    subprocess.run([*_PROGRAM, "--quiet", *words], check=True, env=dict(environ), stdout=subprocess.DEVNULL)


# --- the record ------------------------------------------------------------------------------------------------------


def _fill(record: Record, runs: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    ends = (JobState.COMPLETED, JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED)
    example = Job(
        run_id="",
        token="",
        kind="train",
        target="train.py",
        site="s",
        scheduler="local",
        folder=Path("/x"),
        fingerprint="",
        created_at=start,
        state=JobState.COMPLETED,
        resources=Resources(),
    )
    record.put_back(
        example.model_copy(
            update={
                "run_id": f"train-x-{n}",
                "created_at": start + timedelta(seconds=n),
                "state": ends[n % 4],
                "job_id": str(n),
            }
        )
        for n in range(runs)
    )
