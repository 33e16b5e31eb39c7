"""The record with 100 000 jobs: listing and filtering it, against the same rows read with plain sqlite3."""

import sqlite3
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

from bench.row import Row, pairs_ms
from deephpc.jobs.job import Job
from deephpc.jobs.record import JobFilter, Record
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState

JOBS = 100_000


def measure() -> list[Row]:
    """Fill a record and time the questions `deephpc jobs` asks of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deephpc.db"
        with Record(path) as record:
            _fill(record)
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
    ours, peer = pairs_ms(
        lambda: record.find(wanted), lambda: plain.execute(f"select * from jobs {rest}").fetchall(), 15
    )
    return Row(f"record of {JOBS} jobs: {what}", ours, "plain sqlite3", peer, "< 100 ms")


def _fill(record: Record) -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    ends = (JobState.COMPLETED, JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED)
    example = Job(
        run_id="",
        token="",
        kind="train",
        target="train.py",
        site="s",
        scheduler="slurm",
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
        for n in range(JOBS)
    )
