"""Exactly one job, whatever the scheduler answers."""

import os
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Ambiguous, Observation, Refused, Submission
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import (
    Patience,
    Placed,
    describe_submitter,
    place,
    read_answer,
    read_said,
    submitter_lives,
    write_answer,
)
from tests.fakes.samples import NOON, a_spec
from tests.fakes.schedulers import NOTHING, SILENCE, ScriptedScheduler, seen, sighting

IMPATIENT = Patience(deadline_s=0.0, settle_s=0.0, pause_s=0.0)
PATIENT = Patience(deadline_s=60.0, settle_s=0.0, pause_s=0.0)
LOST_ANSWER = Ambiguous("Socket timed out on send/recv operation")


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    folder = tmp_path / "run-a-0001"
    folder.mkdir()
    return Submission(spec=a_spec(folder), script=folder / "job.sh", environment={})


def placed(submission: Submission, scheduler: ScriptedScheduler, patience: Patience = PATIENT, **facts: bool) -> Placed:
    may_be_queued = facts.get("may_be_queued", False)
    return place(submission, scheduler, created_at=NOON, may_be_queued=may_be_queued, patience=patience)


def in_queue(submission: Submission, *job_ids: str) -> Observation:
    return Observation(queue=seen(*(sighting(i, JobState.PENDING, name=submission.job_name) for i in job_ids)),
                       accounting=None)  # fmt: skip


def test_a_clear_answer_is_taken_without_a_look(submission: Submission):
    scheduler = ScriptedScheduler(["4711"])
    assert placed(submission, scheduler) == Placed("4711", was_adopted=False)
    assert not scheduler.questions


def test_a_refusal_is_passed_on_and_nothing_is_sent_again(submission: Submission):
    scheduler = ScriptedScheduler([Refused("Invalid account")])
    with pytest.raises(Refused, match="Invalid account"):
        placed(submission, scheduler)
    assert len(scheduler.submitted) == 1


def test_a_job_whose_answer_was_lost_is_adopted_and_not_sent_again(submission: Submission):
    scheduler = ScriptedScheduler([LOST_ANSWER], [NOTHING, in_queue(submission, "4711")])
    slow = Patience(deadline_s=60.0, settle_s=60.0, pause_s=0.0)
    assert placed(submission, scheduler, slow) == Placed("4711", was_adopted=True)
    assert len(scheduler.submitted) == 1
    assert scheduler.questions[0].job_names == (submission.job_name,)


def test_a_job_known_to_accounting_alone_is_adopted(submission: Submission):
    gone = Observation(queue={}, accounting=seen(sighting("4711", JobState.FAILED, name=submission.job_name)))
    assert placed(submission, ScriptedScheduler([LOST_ANSWER], [gone])).job_id == "4711"


def test_a_job_of_another_name_is_not_adopted(submission: Submission):
    other = Observation(queue=seen(sighting("1", JobState.RUNNING, name="run-a-0001.ffffffff")), accounting={})
    scheduler = ScriptedScheduler([LOST_ANSWER, "4711"], [other])
    assert placed(submission, scheduler) == Placed("4711", was_adopted=False)


def test_a_job_that_two_looks_did_not_find_is_sent_again(submission: Submission):
    scheduler = ScriptedScheduler([LOST_ANSWER, "4712"], [NOTHING])
    assert placed(submission, scheduler) == Placed("4712", was_adopted=False)
    assert len(scheduler.questions) == 2


def test_silence_between_two_looks_makes_the_first_one_void(submission: Submission):
    scheduler = ScriptedScheduler([LOST_ANSWER, "4712"], [NOTHING, SILENCE, NOTHING])
    assert placed(submission, scheduler).job_id == "4712"
    assert len(scheduler.questions) == 4


def test_an_earlier_unanswered_try_is_looked_up_before_anything_is_sent(submission: Submission):
    scheduler = ScriptedScheduler(["4712"], [in_queue(submission, "4711")])
    assert placed(submission, scheduler, may_be_queued=True) == Placed("4711", was_adopted=True)
    assert not scheduler.submitted


def test_a_queue_silent_beyond_the_deadline_leaves_the_run_to_the_next_command(submission: Submission):
    scheduler = ScriptedScheduler([LOST_ANSWER], [SILENCE])
    with pytest.raises(SiteError, match=r"run-a-0001: Socket timed out") as caught:
        placed(submission, scheduler, IMPATIENT)
    assert caught.value.transient
    assert len(scheduler.submitted) == 1


def test_an_sbatch_that_never_answers_clearly_is_not_tried_for_ever(submission: Submission):
    scheduler = ScriptedScheduler([Ambiguous("the site's filter says: come back in spring")], [NOTHING])
    with pytest.raises(SiteError, match="come back in spring") as caught:
        placed(submission, scheduler, IMPATIENT)
    assert caught.value.transient
    assert len(scheduler.submitted) == 1


def test_duplicates_are_cancelled_and_the_oldest_is_kept(submission: Submission):
    scheduler = ScriptedScheduler([LOST_ANSWER], [in_queue(submission, "10", "9", "11")])
    answer = placed(submission, scheduler)
    assert answer.job_id == "9"
    assert scheduler.cancelled == ["10", "11"]
    assert "10, 11" in answer.warning


def test_of_duplicates_the_one_that_runs_already_is_kept(submission: Submission):
    RunFolder(submission.spec.folder).claim.write_text("10\n")
    scheduler = ScriptedScheduler([LOST_ANSWER], [in_queue(submission, "9", "10")])
    assert placed(submission, scheduler).job_id == "10"
    assert scheduler.cancelled == ["9"]


def test_the_answer_kept_in_the_run_folder_reads_back(tmp_path: Path):
    folder = RunFolder(tmp_path)
    write_answer(folder, "4711;big", NOON)
    assert read_answer(folder) == ("4711;big", NOON)
    assert folder.submitted.stat().st_mode & 0o777 == 0o600


def test_what_the_site_said_of_each_job_of_a_run_is_kept_once(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert read_said(folder) == ()
    for job_id, said in (("1", ("moved to short",)), ("2", ()), ("3", ("moved to short", "2 h left"))):
        write_answer(folder, job_id, NOON, said)
    assert read_said(folder) == ("moved to short", "2 h left")
    assert read_answer(folder) == ("3", NOON)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"said": 5}', '{"said": null}'])
def test_an_answer_that_says_nothing_more_is_read(tmp_path: Path, text: str):
    (tmp_path / "submitted.json").write_text(text)
    assert read_said(RunFolder(tmp_path)) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"job_id": 1}', '{"job_id": "1", "submitted_at": "soon"}'])
def test_half_an_answer_is_none(tmp_path: Path, text: str):
    (tmp_path / "submitted.json").write_text(text)
    assert read_answer(RunFolder(tmp_path)) is None


def test_a_submitter_is_told_from_another_process_that_got_its_pid():
    host, pid, started = describe_submitter().split()
    assert submitter_lives(f"{host} {pid} {started}") is True
    assert submitter_lives(f"{host} {pid} {int(started) + 1}") is False
    assert submitter_lives(f"elsewhere {pid} {started}") is None
    assert submitter_lives("") is False
    assert pid == str(os.getpid())
