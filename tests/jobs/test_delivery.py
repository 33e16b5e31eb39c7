"""What the events of a run say of its results."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.jobs.delivery import Delivery, delivery_of, last_delivery, note_delivery
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.state import JobState
from tests.fakes.samples import NOON, a_job, after

FACTS = {"attempt": 1, "job_id": "4711", "host": "c1"}
STARTED = {"event": "started", "at": "2026-11-21T12:00:00Z"}


def told(state: str, destination: str = "s3://b/run", **more: object) -> dict[str, object]:
    return {
        "event": "collect",
        "at": "2026-11-21T12:00:00Z",
        "by": "job",
        "state": state,
        "destination": destination,
        **more,
    }


def state_of(*events: dict[str, object]) -> str | None:
    found = delivery_of(events, "s3://b/run")
    return found and found.state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), None),
        ((STARTED, told("started", ""), told("done")), "done"),
        ((STARTED, told("done"), STARTED), None),  # the next attempt makes it old
        ((STARTED, told("done"), told("failed", "rshare:/elsewhere/run")), "done"),
        ((STARTED, told("failed"), told("done", by="login")), "done"),
        ((STARTED, told("done"), told("some new word"), told("done", files="many"), {"event": "collect"}), "done"),
    ],
)
def test_the_last_word_on_the_last_attempt_counts(events: tuple[dict[str, object], ...], state: str | None):
    assert state_of(*events) == state


def test_a_delivery_is_read_as_it_was_noted(tmp_path: Path):
    files = RunFolder(tmp_path).task(None)
    said = Delivery(destination="s3://b/run", state="failed", by="login", at=NOON, files=3, reason='it\'s "odd"\nψ')
    note_delivery(files, said, FACTS)
    assert last_delivery(files, "s3://b/run") == said


def test_a_job_that_said_nothing_more_is_not_waited_for_for_ever():
    began = Delivery(state="started", by="job", at=NOON, left_s=25)
    assert began.is_under_way(after(80))
    assert not began.is_under_way(after(90))
    assert not began.model_copy(update={"state": "failed"}).is_under_way(after(1))


def test_what_was_said_is_not_said_again_for_a_day_unless_it_changes(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as record:
        record.add(a_job(tmp_path, "run", state=JobState.FAILED))
        record.transfers.expect("run", "s3://b/run", NOON)

        def is_news(what: str, later: timedelta) -> bool:
            return record.transfers.is_news("run", "s3://b/run", what, NOON + later)

        assert is_news("waiting", timedelta())
        assert not is_news("waiting", timedelta(hours=23))
        assert is_news("waiting", timedelta(hours=24))
        assert is_news("under way", timedelta(hours=25))
        assert is_news("waiting", timedelta(hours=26))
        record.transfers.note("run", Delivery(destination="s3://b/run", state="failed", by="login", at=NOON))
        assert not is_news("waiting", timedelta(hours=27))  # another failure is no news


def test_a_table_of_an_earlier_version_remembers_what_was_said(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as record:
        record.add(a_job(tmp_path, "run", state=JobState.FAILED))
        record.transfers.expect("run", "s3://b/run", NOON)
    with closing(sqlite3.connect(tmp_path / "deephpc.db")) as file:
        for column in ("told", "told_at"):
            file.execute(f"alter table transfers drop column {column}")
        file.commit()
    with Record(tmp_path / "deephpc.db") as record:
        assert set(record.transfers.owed(NOON)) == {"run"}
        assert record.transfers.is_news("run", "s3://b/run", "waiting", NOON)
        assert not record.transfers.is_news("run", "s3://b/run", "waiting", NOON)
        record.transfers.forget("run")
        assert record.transfers.owed(NOON) == {}
        assert [each.state for each in record.transfers.of("run")] == ["waiting"]


def test_only_the_results_of_runs_that_ended_are_owed_until_they_are_there(tmp_path: Path):
    place = "s3://b/run"
    with Record(tmp_path / "deephpc.db") as record:
        assert record.transfers.of("run-a-0001") == ()
        for name, state in (("ended", JobState.FAILED), ("runs", JobState.RUNNING), ("lost", JobState.LOST)):
            record.add(a_job(tmp_path, name, state=state))
            record.transfers.expect(name, place, NOON)
        record.add(a_job(tmp_path, "refused", state=JobState.FAILED, job_id=None))
        record.transfers.expect("refused", place, NOON)
        record.add(a_job(tmp_path, "unasked", state=JobState.FAILED))
        record.transfers.note("unasked", Delivery(destination=place, state="failed", by="login", at=NOON))
        assert set(record.transfers.owed(NOON)) == {"ended", "lost"}
        assert record.transfers.owed(NOON + timedelta(days=61)) == {}
        done = Delivery(destination=place, state="done", by="job", at=NOON, files=2, digest="sha256:x")
        record.transfers.note("ended", done)
        record.transfers.expect("ended", place, NOON)  # what is known stays
        assert record.transfers.of("ended") == (done,)
        assert set(record.transfers.owed(NOON)) == {"lost"}
