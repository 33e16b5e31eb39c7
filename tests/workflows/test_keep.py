"""Cancel, rerun and rebuild."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.errors import InputError, SiteError
from deephpc.jobs.record import JobFilter, Record
from deephpc.jobs.scheduler import Observation, Refused
from deephpc.jobs.spec import Array, Resources
from deephpc.jobs.state import JobState
from deephpc.workflows.keep import cancel_jobs, load_rerun, plan_cancel, plan_rerun, read_job, rebuild
from deephpc.workflows.launch import Asked, launch
from deephpc.workflows.request import JobOptions, load_run_request, load_train_request
from deephpc.workflows.watch import refresh
from tests.fakes.samples import NOON, a_job, after, settings_in
from tests.fakes.schedulers import ScriptedScheduler, seen, sighting

S = JobState
VALUES = {"KEY": 'it\'s\n$(x) "é"', "EMPTY": "", "export": "export"}


class DeafScheduler(ScriptedScheduler):
    """Answers no cancellation."""

    def cancel(self, job_ids):
        raise SiteError("scancel gave no answer within 15 s", transient=True)


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "state" / "deephpc.db") as opened:
        yield opened


def launched(record: Record, tmp_path: Path, job_id: str | Refused, options: JobOptions | None = None, **values: str):
    request = load_run_request(["echo", str(job_id)], tmp_path, options or JobOptions())
    asked = Asked(request, values, {"HOME": str(tmp_path)})
    return launch(asked, settings_in(tmp_path), record, ScriptedScheduler([job_id]), lambda: NOON)[0]


def cancel(words: list[str], record: Record, schedulers: dict[str, ScriptedScheduler]) -> None:
    cancel_jobs(plan_cancel(words, record, schedulers), record, schedulers, after(5))


def test_runs_and_tasks_are_cancelled_with_one_call(record: Record, tmp_path: Path):
    for number in (1, 2):
        (tmp_path / f"run-a-{number}").mkdir()
        record.add(a_job(tmp_path, f"run-a-{number}", job_id=str(number), tasks={0: S.RUNNING, 3: S.RUNNING}))
    scheduler = ScriptedScheduler()
    cancel(["run-a-1", "run-a-2_3"], record, {"slurm": scheduler})
    assert scheduler.cancelled == ["1", "2_3"]
    assert record.get("run-a-1").cancelled_at == after(5)
    assert record.get("run-a-2").cancelled_at is None


def test_a_run_that_ended_is_not_cancelled_again(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, state=S.COMPLETED))
    scheduler = ScriptedScheduler()
    cancel(["run-a-0001"], record, {"slurm": scheduler})
    assert scheduler.cancelled == []
    assert record.get("run-a-0001").cancelled_at is None


def test_a_task_that_ended_is_not_cancelled_again(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, tasks={0: S.COMPLETED, 1: S.RUNNING}, state=S.RUNNING))
    scheduler = ScriptedScheduler()
    cancel(["run-a-0001_0", "run-a-0001_1"], record, {"slurm": scheduler})
    assert scheduler.cancelled == ["4711_1"]


def test_a_run_whose_folder_is_gone_can_still_be_cancelled(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    scheduler = ScriptedScheduler()
    cancel(["run-a-0001"], record, {"slurm": scheduler})
    assert scheduler.cancelled == ["4711"]
    assert record.get("run-a-0001").cancelled_at == after(5)


def test_a_cancellation_nobody_heard_is_not_recorded(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path))
    with pytest.raises(SiteError):
        cancel(["run-a-0001"], record, {"slurm": DeafScheduler()})
    assert record.get("run-a-0001").cancelled_at is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"job_id": None, "state": S.SUBMITTING}, "has not reached the queue"),
        ({"scheduler": "local"}, "belongs to local"),
    ],
)
def test_a_run_that_cannot_be_cancelled_says_why(record: Record, tmp_path: Path, facts, message: str):
    record.add(a_job(tmp_path, **facts))
    with pytest.raises(InputError, match=message):
        plan_cancel(["run-a-0001"], record, {"slurm": ScriptedScheduler()})


def test_a_rerun_asks_for_the_same_with_the_same_values(record: Record, tmp_path: Path):
    options = JobOptions(resources=Resources(nodes=2, walltime=timedelta(hours=1)), variable_names=tuple(VALUES))
    job = launched(record, tmp_path, "4711", options, **VALUES)
    request, variables = load_rerun(job)
    assert request == load_run_request(["echo", "4711"], tmp_path, options)
    assert variables == VALUES


def test_a_rerun_of_a_program_that_is_gone_is_refused(record: Record, tmp_path: Path):
    program = tmp_path / "train.py"
    program.write_text("")
    request = load_train_request("train.py", [], tmp_path, JobOptions())
    asked = Asked(request, {}, {"HOME": str(tmp_path)})
    job, _, _ = launch(asked, settings_in(tmp_path), record, ScriptedScheduler(), lambda: NOON)
    program.unlink()
    with pytest.raises(InputError, match=r"train\.py, which run .* ran, is not there any more"):
        load_rerun(job)


STATES = {0: S.COMPLETED, 1: S.FAILED, 2: S.CANCELLED, 3: S.RUNNING, 7: S.TIMEOUT}


@pytest.mark.parametrize(
    ("words", "only_failed", "tasks"),
    [
        (["run-a-0001"], False, None),
        (["run-a-0001_3"], False, (3,)),
        (["run-a-0001_7", "4711_0", "run-a_7"], False, (0, 7)),
        (["run-a-0001_7", "run-a-0001"], False, None),
        (["run-a-0001"], True, (1, 2, 7)),
        (["run-a-0001_0", "run-a-0001_2"], True, (2,)),
    ],
)
def test_the_tasks_that_are_meant_run_again(
    record: Record, tmp_path: Path, words: list[str], only_failed: bool, tasks: tuple[int, ...] | None
):
    record.add(a_job(tmp_path, state=S.RUNNING, tasks=STATES))
    assert plan_rerun(words, record, only_failed=only_failed)[1] == tasks


def test_a_plain_run_that_failed_runs_again_as_a_whole(record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, state=S.TIMEOUT))
    assert plan_rerun(["run-a-0001"], record, only_failed=True) == (record.get("run-a-0001"), None)


@pytest.mark.parametrize(
    ("facts", "words", "only_failed", "message"),
    [
        ({"state": S.COMPLETED}, ["run-a-0001"], True, "nothing of run run-a-0001 has failed"),
        ({"tasks": {0: S.COMPLETED, 1: S.RUNNING}}, ["run-a-0001"], True, "nothing of run run-a-0001 has failed"),
        ({"tasks": STATES}, ["run-a-0001_0"], True, "nothing of run run-a-0001 has failed"),
        ({"tasks": STATES}, ["run-a-0001_9"], False, "has no array task 9"),
        ({"tasks": STATES}, ["run-a-0001_1", "run-b-0002"], False, "are two runs"),
        ({"tasks": STATES, "kind": "predict"}, ["run-a-0001_1"], False, "is a batch"),
        ({"tasks": STATES, "kind": "predict"}, ["run-a-0001"], True, "is a batch"),
    ],
)
def test_a_rerun_that_means_nothing_is_refused(
    record: Record, tmp_path: Path, facts: dict[str, object], words: list[str], only_failed: bool, message: str
):
    record.add(a_job(tmp_path, **facts))
    record.add(a_job(tmp_path, "run-b-0002", job_id="4712"))
    with pytest.raises(InputError, match=message):
        plan_rerun(words, record, only_failed=only_failed)


def test_a_request_for_some_tasks_keeps_all_else(tmp_path: Path):
    options = JobOptions(array=Array(tasks=(0, 1, 2, 3), at_once=2), resources=Resources(nodes=2))
    request = load_run_request(["true"], tmp_path, options)
    some = request.of_tasks((3, 1))
    assert some.options.array == Array(tasks=(1, 3), at_once=2)
    assert some.options.model_copy(update={"array": options.array}) == options
    assert request.of_tasks(None) is request


def test_a_rerun_without_a_plan_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="has no readable plan"):
        load_rerun(a_job(tmp_path))


def test_a_lost_record_is_rebuilt_equal_from_the_run_folders(record: Record, tmp_path: Path):
    waits = launched(record, tmp_path, "1")
    failed = launched(record, tmp_path, "2")
    array = launched(record, tmp_path, "3", JobOptions(array=Array(tasks=(0, 1, 5))))
    with pytest.raises(InputError):
        launched(record, tmp_path, Refused("Invalid account"))
    failed.files.task(None).metrics.write_text('{"loss": 0.5}\n')
    queue = seen(sighting("1", S.PENDING, reason="Priority"), sighting("2", S.FAILED, exit_code=7, started_at=after(3)),
                 *(sighting("3", S.COMPLETED, task=number) for number in (0, 1, 5)))  # fmt: skip
    local = {"local": ScriptedScheduler(observations=[Observation(queue=queue, accounting={})])}
    refresh(record, local, after(60))
    cancel([waits.run_id], record, local)
    before = record.find(JobFilter())
    with Record(tmp_path / "new" / "deephpc.db") as fresh:
        assert len(rebuild(fresh, [tmp_path / "work", tmp_path / "gone"])) == 4
        refresh(fresh, local, after(60))
        assert [_plain(job) for job in fresh.find(JobFilter())] == [_plain(job) for job in before]
        assert fresh.metrics([failed.run_id]) == {failed.run_id: {"loss": 0.5}}
    assert {job.state for job in before} == {S.PENDING, S.FAILED, S.COMPLETED}
    assert record.get(array.run_id).tasks == dict.fromkeys((0, 1, 5), S.COMPLETED)


def _plain(job):
    """Leave out when the run was last looked at, which no folder tells of a run that goes on."""
    return job if job.state.is_final else job.model_copy(update={"seen_at": None})


def test_what_is_no_run_folder_is_passed_over(record: Record, tmp_path: Path):
    job = launched(record, tmp_path, "1")
    work = job.folder.parent
    (work / "notes").mkdir()
    (work / "file").write_text("")
    shutil.copytree(job.folder, work / "copy of it")
    (work / "half").mkdir()
    (work / "half" / "plan.json").write_text('{"schema": "deephpc.plan/1"')
    assert [one.run_id for one in rebuild(record, [work])] == [job.run_id]


def test_a_run_that_was_killed_before_the_queue_answered_reads_as_submitting(record: Record, tmp_path: Path):
    job = launched(record, tmp_path, "1")
    job.files.submitted.unlink()
    again = read_job(job.files)
    assert again is not None
    assert (again.state, again.job_id) == (S.SUBMITTING, None)


def test_a_work_dir_that_cannot_be_read_is_one_line(record: Record, tmp_path: Path):
    (tmp_path / "work").write_text("")
    with pytest.raises(SiteError, match="cannot read"):
        rebuild(record, [tmp_path / "work"])
