"""A chained run is followed from job to job, and its next job submitted where its node could not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.scheduler import Ambiguous, Observation, Question, Refused
from deephpc.jobs.spec import Array
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import describe_submitter, read_answer
from deephpc.jobs.truth import AWAITS_SUCCESSOR
from deephpc.workflows.dependencies import resolve_dependencies
from deephpc.workflows.keep import read_job
from deephpc.workflows.launch import Asked, launch
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobOptions, load_run_request
from deephpc.workflows.watch import refresh
from deephpc.workflows.why import diagnose
from tests.fakes.samples import NOON, after, settings_in
from tests.fakes.schedulers import NOTHING, SILENCE, ScriptedScheduler, seen, sighting

S = JobState
LATER = after(3600)
FAILED_75 = sighting("4711", S.FAILED, source="sacct", exit_code=75, ended_at=after(60))
ENDED = Observation(queue={}, accounting=seen(FAILED_75))
ENVIRON = {"PATH": "/usr/bin", "HOME": "/home/me", "USER": "me", "SECRET": "hush"}


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "state" / "deephpc.db") as opened:
        yield opened


@pytest.fixture
def job(record: Record, tmp_path: Path) -> Job:
    """A chained run whose first job has run."""
    request = load_run_request(("true",), tmp_path, JobOptions(chain=True, max_requeues=3))
    settings = settings_in(tmp_path, scheduler="slurm")
    made, _, _ = launch(Asked(request, {}, ENVIRON), settings, record, ScriptedScheduler(), lambda: NOON)
    note(made, "started", 1, "4711", nodes="n1")
    return made


def note(job: Job, event: str, attempt: int, job_id: str, **facts: object) -> None:
    line = {"at": after(30 * attempt).isoformat(), "event": event, "attempt": attempt, "job_id": job_id, **facts}
    with job.files.task(None).events.open("a") as file:
        file.write(json.dumps(line) + "\n")


def hand_on(job: Job, attempt: int = 1, job_id: str = "4711", successor: str | None = None) -> None:
    note(job, "continued", attempt, job_id, exit_code=75, by="chain")
    if successor:
        note(job, "chained", attempt, job_id, successor=successor)


def test_a_run_is_followed_into_the_job_its_node_submitted(record: Record, job: Job):
    hand_on(job, successor="4712")
    queue = Observation(queue=seen(sighting("4712", S.PENDING, reason="Priority")), accounting={})
    scheduler = ScriptedScheduler(observations=[ENDED, queue])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    now = record.get(job.run_id)
    assert (now.job_id, now.state, now.reason) == ("4712", S.PENDING, "Priority")
    assert [question.job_ids for question in scheduler.questions] == [("4711",), ("4712",)]
    assert scheduler.submitted == []
    told = diagnose(now, None).text
    assert told.startswith("attempt 1 asked to be continued (exit code 75); the next one waits: ")
    rebuilt = read_job(job.files)
    assert rebuilt is not None
    assert (rebuilt.job_id, rebuilt.submitted_at) == ("4712", job.submitted_at)


def test_a_run_that_went_through_many_jobs_unseen_is_found_in_the_last(record: Record, job: Job):
    hand_on(job, successor="4712")
    note(job, "started", 2, "4712")
    hand_on(job, 2, "4712", successor="4713")
    note(job, "started", 3, "4713")
    running = Observation(queue=seen(sighting("4713", S.RUNNING, started_at=after(90))), accounting={})
    refresh(record, {"slurm": ScriptedScheduler(observations=[ENDED, running])}, LATER)
    now = record.get(job.run_id)
    assert (now.job_id, now.state) == ("4713", S.RUNNING)


def test_a_run_that_goes_from_job_to_job_faster_than_one_looks_is_not_failed(record: Record, job: Job):
    hand_on(job, successor="4712")

    class Quick(ScriptedScheduler):
        def observe(self, question: Question) -> Observation:
            if self.questions:  # between the two looks its second job came and went
                note(job, "started", 2, "4712")
                hand_on(job, 2, "4712", successor="4713")
            return super().observe(question)

    gone = sighting("4712", S.FAILED, exit_code=75, ended_at=after(90))
    scheduler = Quick(observations=[ENDED, Observation(queue=seen(gone), accounting=seen(gone))])
    refresh(record, {"slurm": scheduler}, LATER)
    now = record.get(job.run_id)
    assert (now.job_id, now.state, now.reason) == ("4712", S.PENDING, "it goes on in job 4713")


def test_between_two_jobs_a_run_is_pending_not_failed(record: Record, job: Job):
    hand_on(job)
    refresh(record, {"slurm": ScriptedScheduler(observations=[ENDED])}, LATER)
    now = record.get(job.run_id)
    assert (now.job_id, now.state, now.reason) == ("4711", S.PENDING, AWAITS_SUCCESSOR)
    assert "its next job is still to be submitted" in diagnose(now, None).text


def test_a_successor_that_nobody_told_of_is_found_by_its_name(record: Record, job: Job):
    hand_on(job)
    named = Observation(
        queue=seen(sighting("4711", S.FAILED, name=job.job_name), sighting("4719", S.PENDING, name=job.job_name)),
        accounting=seen(FAILED_75),
    )
    scheduler = ScriptedScheduler(observations=[ENDED, named])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    assert scheduler.questions[1].job_names == (job.job_name,)
    assert record.get(job.run_id).job_id == "4719"
    assert scheduler.submitted == []


def test_a_next_job_that_is_not_listed_yet_is_not_lost_for_the_absence_of_the_last(record: Record, job: Job):
    hand_on(job)
    refresh(record, {"slurm": ScriptedScheduler(observations=[NOTHING])}, LATER)
    note(job, "chained", 1, "4711", successor="4712")
    refresh(record, {"slurm": ScriptedScheduler(observations=[NOTHING])}, after(3900))
    assert (record.get(job.run_id).job_id, record.get(job.run_id).state) == ("4712", S.PENDING)


@pytest.mark.parametrize("said", ["4712", "4712;box"])
def test_a_run_on_a_named_cluster_goes_on_there(record: Record, job: Job, said: str):
    record.change(job.run_id, lambda known: known.model_copy(update={"job_id": "4711;box"}), NOON)
    hand_on(job, successor=said)
    ended = Observation(queue={}, accounting=seen(replace(FAILED_75, job_id="4711;box")))
    there = Observation(queue=seen(sighting("4712;box", S.RUNNING)), accounting=None)
    scheduler = ScriptedScheduler(observations=[ended, there])
    refresh(record, {"slurm": scheduler}, LATER)
    assert [question.job_ids for question in scheduler.questions] == [("4711;box",), ("4712;box",)]
    assert (record.get(job.run_id).job_id, record.get(job.run_id).state) == ("4712;box", S.RUNNING)


@pytest.mark.slow
def test_the_next_job_of_a_run_on_a_named_cluster_is_looked_for_and_submitted_there(record: Record, job: Job):
    record.change(job.run_id, lambda known: known.model_copy(update={"job_id": "4711;box"}), NOON)
    hand_on(job)
    ended = Observation(queue={}, accounting=seen(replace(FAILED_75, job_id="4711;box")))
    scheduler = ScriptedScheduler(answers=["4712;box"], observations=[ended, NOTHING])
    refresh(record, {"slurm": scheduler}, LATER, environ={**ENVIRON, "SBATCH_CLUSTERS": "elsewhere"})
    assert {question.name_clusters for question in scheduler.questions[1:]} == {("box",)}
    (submission,) = scheduler.submitted
    assert submission.clusters == ("box",)
    assert record.get(job.run_id).job_id == "4712;box"


@pytest.mark.slow
def test_what_its_node_could_not_submit_the_next_command_does_once(record: Record, job: Job):
    hand_on(job)
    scheduler = ScriptedScheduler(answers=["4712"], observations=[ENDED, NOTHING])
    assert refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON) == ()
    now = record.get(job.run_id)
    assert (now.job_id, now.state, now.submitter) == ("4712", S.PENDING, "")
    (submission,) = scheduler.submitted
    assert submission.script == job.files.script
    assert "SECRET" not in submission.environment
    answer = read_answer(job.files)
    assert answer is not None
    assert answer[0] == "4712"
    waiting = Observation(queue=seen(sighting("4712", S.PENDING)), accounting={})
    refresh(record, {"slurm": ScriptedScheduler(observations=[waiting])}, LATER, environ=ENVIRON)
    assert record.get(job.run_id).job_id == "4712"


def test_a_next_job_that_another_command_is_submitting_is_left_to_it(record: Record, job: Job):
    hand_on(job)
    elsewhere = "login2 1234 5678"
    record.change(job.run_id, lambda known: known.model_copy(update={"submitter": elsewhere}), LATER)
    scheduler = ScriptedScheduler(observations=[ENDED, NOTHING])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    assert scheduler.submitted == []
    assert record.get(job.run_id).submitter == elsewhere
    assert describe_submitter() != elsewhere


@pytest.mark.slow
def test_a_refused_successor_ends_the_run_with_the_reason(record: Record, job: Job):
    hand_on(job)
    scheduler = ScriptedScheduler(answers=[Refused("Invalid account")], observations=[ENDED, NOTHING])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    now = record.get(job.run_id)
    assert (now.state, now.reason) == (S.FAILED, "its next job was refused: Invalid account")


@pytest.mark.slow
def test_a_successor_whose_submission_got_no_answer_is_adopted(record: Record, job: Job):
    hand_on(job)
    named = Observation(queue=seen(sighting("4712", S.PENDING, name=job.job_name)), accounting={})
    scheduler = ScriptedScheduler(answers=[Ambiguous("no answer")], observations=[ENDED, NOTHING])
    scheduler.on_submit = lambda _: scheduler.observations.append(named)
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    assert record.get(job.run_id).job_id == "4712"
    assert len(scheduler.submitted) == 1


def test_a_run_cancelled_between_two_jobs_stays_cancelled_and_its_late_job_ends(record: Record, job: Job):
    hand_on(job)
    record.change(job.run_id, lambda known: known.model_copy(update={"cancelled_at": LATER}), LATER)
    found = Observation(queue=seen(sighting("4712", S.PENDING, name=job.job_name)), accounting={})
    scheduler = ScriptedScheduler(observations=[ENDED, found])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    assert scheduler.cancelled == ["4712"]
    assert scheduler.submitted == []


def test_cancelled_with_no_further_job_it_is_cancelled(record: Record, job: Job):
    hand_on(job)
    record.change(job.run_id, lambda known: known.model_copy(update={"cancelled_at": LATER}), LATER)
    scheduler = ScriptedScheduler(observations=[ENDED, NOTHING])
    refresh(record, {"slurm": scheduler}, LATER, environ=ENVIRON)
    assert record.get(job.run_id).state is S.CANCELLED
    assert scheduler.submitted == []


def test_a_successor_that_ended_without_going_on_is_no_success(record: Record, job: Job):
    hand_on(job, successor="4712")
    ended = Observation(queue={}, accounting=seen(sighting("4712", S.COMPLETED, source="sacct", ended_at=after(90))))
    refresh(record, {"slurm": ScriptedScheduler(observations=[ENDED, ended])}, LATER)
    now = record.get(job.run_id)
    assert (now.state, now.reason) == (S.FAILED, "its job 4712 ended without going on with it")


def test_a_silent_queue_ends_no_run_that_goes_on(record: Record, job: Job):
    hand_on(job, successor="4712")
    silence = Observation(queue=None, accounting=seen(FAILED_75))
    refresh(record, {"slurm": ScriptedScheduler(observations=[silence, SILENCE])}, LATER)
    now = record.get(job.run_id)
    assert (now.job_id, now.state) == ("4712", S.PENDING)


def test_no_run_waits_for_a_chained_one_whose_last_job_is_not_there_yet(record: Record, job: Job):
    with pytest.raises(InputError, match=f"run {job.run_id} goes from job to job"):
        resolve_dependencies(f"afterok:{job.run_id}", record, "slurm")


def test_an_array_is_not_chained(tmp_path: Path):
    request = load_run_request(("true",), tmp_path, JobOptions(chain=True, array=Array(tasks=(1, 2))))
    with pytest.raises(InputError, match="--chain does not go with --array"):
        plan_job(request, settings_in(tmp_path, scheduler="slurm"), NewRun("run-a-0001", "0" * 32, NOON), environ={})
