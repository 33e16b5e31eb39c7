"""The record follows the truth with one question to each scheduler."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deephpc.errors import SiteError
from deephpc.jobs.evidence import load_standing
from deephpc.jobs.job import Job
from deephpc.jobs.record import JobFilter, Record
from deephpc.jobs.scheduler import Observation
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import describe_submitter, write_answer
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobOptions, load_run_request
from deephpc.workflows.watch import refresh, wait_for
from tests.fakes.samples import NOON, TOKEN, a_job, after, settings_in
from tests.fakes.schedulers import NOTHING, SILENCE, ScriptedScheduler, seen, sighting

S = JobState
LATER = after(3600)


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as opened:
        yield opened


def known(record: Record, tmp_path: Path, run_id: str = "run-a-0001", **facts: object) -> Job:
    job = a_job(tmp_path, run_id, **facts)
    job.folder.mkdir()
    record.add(job)
    return job


def leave_result(job: Job, task: int | None = None, state: str = "COMPLETED", code: int = 0, **more: object) -> None:
    folder = job.files.task(task).path
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"schema": "deephpc.result/1", "run_id": job.run_id, "job_id": job.job_id, "task": task, "attempt": 1,
             "state": state, "exit_code": code, "signal": None, "ended_by": "program", "reason": "", "host": "n1",
             "nodes": "n1", "cpus": 2, "started_at": after(10).isoformat(), "ended_at": after(600).isoformat(),
             "elapsed_s": 590, "cpu_s": 1.0}  # fmt: skip
    (folder / "result.json").write_text(json.dumps({**facts, **more}))


def test_however_many_runs_each_scheduler_is_asked_once(record: Record, tmp_path: Path):
    for number in range(50):
        known(record, tmp_path, f"run-a-{number:04d}", job_id=str(number + 1))
    scheduler = ScriptedScheduler(
        observations=[Observation(queue=seen(*(sighting(str(n + 1), S.RUNNING) for n in range(50))), accounting=None)]
    )
    assert refresh(record, {"slurm": scheduler}, LATER) == ()
    assert len(scheduler.questions) == 1
    assert {job.state for job in record.find(JobFilter())} == {S.RUNNING}


def test_a_result_is_the_end_and_is_kept_with_its_metrics(record: Record, tmp_path: Path):
    job = known(record, tmp_path, state=S.RUNNING)
    leave_result(job, state="FAILED", code=7)
    job.files.task(None).metrics.write_text('{"loss": 1}\n{"loss": 0.5}\n')
    refresh(record, {"slurm": ScriptedScheduler(observations=[NOTHING])}, LATER)
    ended = record.get(job.run_id)
    kept = load_standing(job.files)
    assert (ended.state, ended.exit_code, ended.source) == (S.FAILED, 7, "result")
    assert kept is not None
    assert kept.standing.state is S.FAILED
    assert record.metrics([job.run_id]) == {job.run_id: {"loss": 0.5}}


def test_a_silent_scheduler_changes_nothing_and_is_said_so(record: Record, tmp_path: Path):
    known(record, tmp_path, state=S.RUNNING)
    assert refresh(record, {"slurm": ScriptedScheduler(observations=[SILENCE])}, LATER) == SILENCE.troubles
    assert record.get("run-a-0001").state is S.RUNNING


def test_a_run_nobody_knows_is_lost_and_comes_back_with_its_result(record: Record, tmp_path: Path):
    job = known(record, tmp_path, state=S.RUNNING)
    nobody = {"slurm": ScriptedScheduler(observations=[NOTHING])}
    refresh(record, nobody, LATER)
    assert (record.get(job.run_id).state, record.get(job.run_id).seen_at) == (S.RUNNING, NOON)
    refresh(record, nobody, LATER + timedelta(minutes=1))
    assert record.get(job.run_id).state is S.LOST
    leave_result(job)
    refresh(record, nobody, LATER + timedelta(hours=1))
    assert record.get(job.run_id).state is S.COMPLETED


BACK = Observation(queue=seen(sighting("4711", S.RUNNING, started_at=NOON)), accounting=None)
STALE = Observation(queue={}, accounting=seen(sighting("4711", S.RUNNING, source="sacct", started_at=NOON)))
FROZEN = Observation(queue={}, accounting=None)


@pytest.mark.parametrize(
    ("looks", "is_lost"),
    [
        ([NOTHING], False),
        ([NOTHING, NOTHING], True),
        ([NOTHING, SILENCE, NOTHING], True),
        ([NOTHING, SILENCE, SILENCE], False),
        ([NOTHING, FROZEN], False),
        ([NOTHING, BACK, NOTHING], False),
        ([NOTHING, STALE, NOTHING], False),
        ([NOTHING, BACK, NOTHING, NOTHING], True),
        ([STALE, STALE, STALE], False),
    ],
)
def test_one_empty_look_is_never_a_loss(record: Record, tmp_path: Path, looks: list[Observation], is_lost: bool):
    job = known(record, tmp_path, state=S.RUNNING)
    for number, look in enumerate(looks):
        refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, LATER + timedelta(minutes=number))
    now = record.get(job.run_id)
    assert now.state is (S.LOST if is_lost else S.RUNNING)
    if looks[-1] is STALE:
        assert now.reason == "accounting says RUNNING, but the queue does not list it"


def test_looks_in_quick_succession_are_one(record: Record, tmp_path: Path):
    job = known(record, tmp_path, state=S.RUNNING)
    nobody = {"slurm": ScriptedScheduler(observations=[NOTHING])}
    for seconds in range(0, 60, 7):
        refresh(record, nobody, LATER + timedelta(seconds=seconds))
        assert record.get(job.run_id).state is S.RUNNING


def test_each_task_of_an_array_is_missed_for_itself(record: Record, tmp_path: Path):
    job = known(record, tmp_path, tasks=dict.fromkeys(range(4), S.RUNNING))
    for minutes, live in enumerate([(1, 2, 3), (0, 2, 3), (2,), (2,)]):
        queue = seen(*(sighting("4711", S.RUNNING, task=number) for number in live))
        look = Observation(queue=queue, accounting={})
        refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, LATER + timedelta(minutes=minutes))
        if minutes == 2:
            assert record.get(job.run_id).tasks == {0: S.RUNNING, 1: S.LOST, 2: S.RUNNING, 3: S.RUNNING}
    assert record.get(job.run_id).tasks == {0: S.LOST, 1: S.LOST, 2: S.RUNNING, 3: S.LOST}
    assert set(record.absences.all()) == {job.run_id}
    gone = {"slurm": ScriptedScheduler(observations=[NOTHING])}
    for minutes in (4, 5):
        refresh(record, gone, LATER + timedelta(minutes=minutes))
    assert record.get(job.run_id).state is S.LOST
    assert record.absences.all() == {}


def test_a_run_of_another_machines_scheduler_keeps_its_state(record: Record, tmp_path: Path):
    known(record, tmp_path, state=S.RUNNING, scheduler="local", job_id="local-1")
    (trouble,) = refresh(record, {"slurm": ScriptedScheduler()}, LATER)
    assert "belong to local" in trouble
    assert record.get("run-a-0001").state is S.RUNNING


def test_the_tasks_of_an_array_are_judged_each_for_itself(record: Record, tmp_path: Path):
    tasks = dict.fromkeys(range(5), S.PENDING)
    job = known(record, tmp_path, tasks=tasks)
    leave_result(job, 0)
    leave_result(job, 1, state="FAILED", code=3)
    queue = seen(sighting("4711", S.RUNNING, task=2, started_at=after(20)), sighting("4711", S.PENDING, task=3))
    book = seen(sighting("4711", S.OUT_OF_MEMORY, task=4, source="sacct", ended_at=after(50)))
    refresh(record, {"slurm": ScriptedScheduler(observations=[Observation(queue=queue, accounting=book)])}, LATER)
    stands = record.get(job.run_id)
    assert stands.tasks == {0: S.COMPLETED, 1: S.FAILED, 2: S.RUNNING, 3: S.PENDING, 4: S.OUT_OF_MEMORY}
    assert stands.state is S.RUNNING


def test_an_array_that_ended_says_how_many_tasks_did_not_complete(record: Record, tmp_path: Path):
    job = known(record, tmp_path, tasks={0: S.RUNNING, 1: S.RUNNING})
    leave_result(job, 0)
    leave_result(job, 1, state="FAILED", code=3)
    refresh(record, {"slurm": ScriptedScheduler(observations=[NOTHING])}, LATER)
    stands = record.get(job.run_id)
    assert (stands.state, stands.reason) == (S.FAILED, "1 of 2 tasks did not complete")
    assert stands.ended_at == after(600)


def test_an_array_cancelled_as_a_whole_before_it_was_split(record: Record, tmp_path: Path):
    known(record, tmp_path, tasks={0: S.PENDING, 1: S.PENDING})
    book = seen(sighting("4711", S.CANCELLED, source="sacct", ended_at=after(50)))
    refresh(record, {"slurm": ScriptedScheduler(observations=[Observation(queue={}, accounting=book)])}, LATER)
    assert record.get("run-a-0001").tasks == {0: S.CANCELLED, 1: S.CANCELLED}


def test_an_unconfirmed_run_is_adopted_from_the_queue(record: Record, tmp_path: Path):
    job = known(record, tmp_path, job_id=None, state=S.SUBMITTING, submitter="gone")
    queue = seen(sighting("4711", S.RUNNING, name=job.job_name))
    scheduler = ScriptedScheduler(observations=[Observation(queue=queue, accounting={})])
    refresh(record, {"slurm": scheduler}, LATER)
    stands = record.get(job.run_id)
    assert (stands.job_id, stands.state) == ("4711", S.RUNNING)
    assert scheduler.questions[0].job_names == (job.job_name,)


def test_an_unconfirmed_run_is_adopted_from_its_folder(record: Record, tmp_path: Path):
    job = known(record, tmp_path, job_id=None, state=S.SUBMITTING, submitter="gone")
    write_answer(job.files, "4711", after(1))
    queue = seen(sighting("4711", S.PENDING))
    refresh(record, {"slurm": ScriptedScheduler(observations=[Observation(queue=queue, accounting={})])}, LATER)
    stands = record.get(job.run_id)
    assert (stands.job_id, stands.submitted_at, stands.state) == ("4711", after(1), S.PENDING)


@pytest.mark.parametrize(
    ("submitter", "observation", "seconds", "state"),
    [
        ("gone", NOTHING, (3600, 3660), S.LOST),
        ("gone", NOTHING, (3600,), S.SUBMITTING),
        ("gone", SILENCE, (3600, 3660), S.SUBMITTING),
        ("gone", NOTHING, (1, 30), S.SUBMITTING),
        ("", NOTHING, (3600, 7200), S.LOST),
    ],
)
def test_a_run_that_never_reached_the_queue_is_lost_once_that_is_certain(
    record: Record, tmp_path: Path, submitter: str, observation: Observation, seconds: tuple[int, ...], state: JobState
):
    known(record, tmp_path, job_id=None, state=S.SUBMITTING, submitter=submitter, seen_at=None)
    for each in seconds:
        refresh(record, {"slurm": ScriptedScheduler(observations=[observation])}, after(each))
    assert record.get("run-a-0001").state is state


def test_a_run_whose_command_still_submits_is_left_alone(record: Record, tmp_path: Path):
    known(record, tmp_path, job_id=None, state=S.SUBMITTING, submitter=describe_submitter(), seen_at=None)
    refresh(record, {"slurm": ScriptedScheduler(observations=[NOTHING])}, LATER)
    assert record.get("run-a-0001").state is S.SUBMITTING


def test_a_run_folder_that_is_gone_does_not_stop_the_others(record: Record, tmp_path: Path):
    gone = known(record, tmp_path, "run-gone-0001", job_id="1")
    gone.folder.rmdir()
    known(record, tmp_path, "run-here-0002", job_id="2")
    queue = seen(sighting("1", S.FAILED), sighting("2", S.COMPLETED))
    refresh(record, {"slurm": ScriptedScheduler(observations=[Observation(queue=queue, accounting={})])}, LATER)
    assert record.get("run-gone-0001").state is S.FAILED
    assert record.get("run-here-0002").state is S.COMPLETED


def test_waiting_tells_every_change_and_ends_with_the_last_run(record: Record, tmp_path: Path):
    known(record, tmp_path)
    stages = [S.PENDING, S.RUNNING, S.RUNNING, S.COMPLETED]
    observations = [Observation(queue=seen(sighting("4711", state)), accounting={}) for state in stages]
    told: list[str] = []
    ticks = iter(range(1000))
    (job,) = wait_for(
        record, {"slurm": ScriptedScheduler(observations=observations)}, [("run-a-0001", None)],
        clock=lambda: after(100 * next(ticks)), timeout=None, tell=told.append, sleep=leaves_a_result(tmp_path),
    )  # fmt: skip
    assert job.state is S.COMPLETED
    assert told == ["run-a-0001: PENDING", "run-a-0001: RUNNING", "run-a-0001: COMPLETED"]


def leaves_a_result(tmp_path: Path):
    """Return a sleep that ends at once: something that looks like a result appears."""
    result = tmp_path / "run-a-0001" / "result.json"

    def sleep(_: float) -> None:
        result.write_text("{}")

    def fresh(seconds: float) -> None:
        result.unlink(missing_ok=True)
        sleep(seconds)

    return fresh


def test_waiting_ends_with_its_timeout(record: Record, tmp_path: Path):
    known(record, tmp_path)
    waits = Observation(queue=seen(sighting("4711", S.PENDING)), accounting={})
    with pytest.raises(SiteError, match="not finished in time: run-a-0001") as caught:
        wait_for(record, {"slurm": ScriptedScheduler(observations=[waits])}, [("run-a-0001", None)], clock=lambda: NOON,
                 timeout=timedelta(0), tell=lambda _: None)  # fmt: skip
    assert caught.value.transient


def test_a_run_put_back_into_the_queue_after_its_end_lives_again(record: Record, tmp_path: Path):
    job = known(record, tmp_path, state=S.FAILED, job_id="4711", exit_code=3, ended_at=after(600), attempt=1)
    leave_result(job, state="FAILED", code=3)
    back = Observation(queue=seen(sighting("4711", S.RUNNING, started_at=after(700))), accounting=None)
    refresh(record, {"slurm": ScriptedScheduler(observations=[back])}, after(720))
    again = record.get(job.run_id)
    assert (again.state, again.exit_code, again.ended_at) == (S.RUNNING, None, None)


@pytest.mark.parametrize("silent", ["gone", "box"])
def test_a_cluster_that_does_not_answer_proves_nothing_of_its_own_runs_alone(
    record: Record, tmp_path: Path, silent: str
):
    for name in ("gone", "box"):
        known(record, tmp_path, f"run-{name}-0001", job_id=f"9;{name}", state=S.RUNNING)
    look = Observation(queue={}, accounting={}, silent_queues=frozenset({silent}))
    for at in (LATER, LATER + timedelta(minutes=2)):
        refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, at)
    states = {name: record.get(f"run-{name}-0001").state for name in ("gone", "box")}
    assert states == {"gone": S.LOST, "box": S.LOST, silent: S.RUNNING}


@pytest.mark.parametrize("silent", ["", "box"])
def test_a_run_is_not_unsent_while_a_cluster_that_may_have_it_is_silent(record: Record, tmp_path: Path, silent: str):
    request = load_run_request(("true",), tmp_path, JobOptions(raw_options=("--clusters=box",)))
    plan, _ = plan_job(request, settings_in(tmp_path, scheduler="slurm"), NewRun("run-a-0001", TOKEN, NOON), environ={})
    job = known(record, tmp_path, job_id=None, state=S.SUBMITTING)
    job.files.plan.write_text(plan.render())
    look = Observation(queue={}, accounting={}, silent_queues=frozenset({silent}))
    scheduler = ScriptedScheduler(observations=[look])
    for at in (LATER, LATER + timedelta(minutes=2)):
        refresh(record, {"slurm": scheduler}, at)
    assert scheduler.questions[0].name_clusters == ("box",)
    assert record.get(job.run_id).state is (S.SUBMITTING if silent == "box" else S.LOST)


OURS = f"run-a-0001.{TOKEN[:8]}"
OTHERS = {
    "an old job of somebody's": {"name": "bash", "submitted_at": NOON - timedelta(days=400)},
    "a job of mine of this morning": {"name": "sweep", "submitted_at": NOON - timedelta(hours=3)},
    "another run of mine, later": {"name": "run-b-0001.fedcba98", "submitted_at": after(300)},
    "another run of mine, before": {"name": "train-x-0001.00000000", "submitted_at": NOON - timedelta(minutes=2)},
}


@pytest.mark.parametrize("state", [S.FAILED, S.COMPLETED, S.RUNNING])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_became_of_another_job_of_the_same_id_is_nothing_of_the_runs(
    record: Record, tmp_path: Path, other: dict[str, Any], state: JobState
):
    known(record, tmp_path)
    row = sighting("4711", state, source="sacct", ended_at=after(1) if state.is_final else None, **other)
    ours = sighting("4711", S.RUNNING, source="sacct", name=OURS, submitted_at=after(1), started_at=after(2))
    for accounting in (seen(row), seen(ours, row), seen(row, ours)):
        for queue in (None, seen(replace(ours, source="squeue"))):
            look = Observation(queue=queue, accounting=accounting)
            refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, after(40))
            is_told = queue is not None or len(accounting["4711"]) > 1
            assert record.get("run-a-0001").state is (S.RUNNING if is_told else S.PENDING)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_ended_run_does_not_live_again_in_another_job_of_its_id(
    record: Record, tmp_path: Path, other: dict[str, Any]
):
    job = known(record, tmp_path, state=S.FAILED, exit_code=3)
    look = Observation(queue=seen(sighting("4711", S.RUNNING, **other)), accounting=None)
    refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, LATER)
    assert record.get(job.run_id) == job


def test_tasks_are_told_from_those_of_another_array_of_the_same_id(record: Record, tmp_path: Path):
    known(record, tmp_path, tasks={0: S.PENDING, 1: S.PENDING})
    old = [sighting("4711", S.FAILED, task=n, source="sacct", **OTHERS["an old job of somebody's"]) for n in (0, 1)]
    ours = sighting("4711", S.RUNNING, task=1, name=OURS, submitted_at=after(1))
    look = Observation(queue=None, accounting=seen(*old, ours))
    refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, after(40))
    assert record.get("run-a-0001").tasks == {0: S.PENDING, 1: S.RUNNING}


def test_a_run_whose_jobs_name_somebody_changed_is_known_by_when_it_was_submitted(record: Record, tmp_path: Path):
    known(record, tmp_path)
    before = sighting("4711", S.NODE_FAIL, name=OURS, source="sacct", submitted_at=after(1), ended_at=after(5))
    renamed = sighting("4711", S.RUNNING, name="mine", source="sacct", submitted_at=after(6), started_at=after(8))
    look = Observation(queue=None, accounting=seen(before, renamed))
    refresh(record, {"slurm": ScriptedScheduler(observations=[look])}, after(40))
    assert record.get("run-a-0001").state is S.RUNNING


def test_runs_that_ended_cost_one_question_to_the_queue_and_stay_as_they_are(record: Record, tmp_path: Path):
    job = known(record, tmp_path, state=S.FAILED, job_id="4711", exit_code=3)
    scheduler = ScriptedScheduler()
    refresh(record, {"slurm": scheduler}, LATER)
    (question,) = scheduler.questions
    assert (question.job_ids, question.job_names, question.ended_ids) == ((), (), ("4711",))
    assert record.get(job.run_id) == job


def test_the_question_tells_how_many_tasks_of_an_array_may_still_live(record: Record, tmp_path: Path):
    known(record, tmp_path, job_id="8", tasks={0: S.COMPLETED, 1: S.RUNNING, 2: S.PENDING})
    known(record, tmp_path, "run-b-0001", job_id="9")
    scheduler = ScriptedScheduler()
    refresh(record, {"slurm": scheduler}, LATER)
    assert scheduler.questions[0].live_tasks == {"8": 2}
