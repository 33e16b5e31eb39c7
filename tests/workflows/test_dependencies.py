"""`--dependency` from run ids to the scheduler's."""

from pathlib import Path

import pytest

from deephpc.errors import InputError
from deephpc.jobs.record import Record
from deephpc.jobs.spec import Dependency
from deephpc.jobs.state import JobState
from deephpc.workflows.dependencies import resolve_dependencies
from tests.fakes.samples import a_job


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as opened:
        opened.add(a_job(tmp_path, "run-live-0001", job_id="11"))
        opened.add(a_job(tmp_path, "run-more-0002", job_id="12", state=JobState.RUNNING))
        opened.add(a_job(tmp_path, "run-done-0003", job_id="13", state=JobState.COMPLETED))
        opened.add(a_job(tmp_path, "run-fail-0004", job_id="14", state=JobState.FAILED))
        opened.add(a_job(tmp_path, "run-here-0005", job_id="local-1", scheduler="local"))
        opened.add(a_job(tmp_path, "run-sent-0006", job_id=None, state=JobState.SUBMITTING))
        tasks = {1: JobState.RUNNING, 2: JobState.COMPLETED, 3: JobState.FAILED}
        opened.add(a_job(tmp_path, "run-list-0007", job_id="17", state=JobState.RUNNING, tasks=tasks))
        opened.add(a_job(tmp_path, "run-away-0008", job_id="18;big", state=JobState.RUNNING, tasks=tasks))
        yield opened


def test_a_task_of_an_array_is_waited_for_alone(record: Record):
    resolved = resolve_dependencies("afterok:run-list-0007_1,afterany:run-away-0008_1", record, "slurm")
    assert resolved == (
        Dependency(kind="afterok", job_ids=("17_1",), run_ids=("run-list-0007_1",)),
        Dependency(kind="afterany", job_ids=("18_1;big",), run_ids=("run-away-0008_1",)),
    )


def test_a_task_is_judged_by_its_own_end_and_not_the_arrays(record: Record):
    assert resolve_dependencies("afterok:run-list-0007_2", record, "slurm") == ()
    with pytest.raises(InputError, match="afterok:run-list-0007_3 can never be fulfilled: it ended FAILED"):
        resolve_dependencies("afterok:run-list-0007_3", record, "slurm")


def test_runs_become_the_schedulers_ids(record: Record):
    resolved = resolve_dependencies("afterok:run-live-0001:run-m,afterany:4711", record, "slurm")
    assert resolved == (
        Dependency(kind="afterok", job_ids=("11", "12"), run_ids=("run-live-0001", "run-more-0002")),
        Dependency(kind="afterany", job_ids=("4711",)),
    )


def test_what_is_fulfilled_already_is_dropped(record: Record):
    assert resolve_dependencies("afterok:run-done-0003,afterany:run-fail-0004", record, "slurm") == ()
    assert resolve_dependencies("afternotok:run-fail-0004", record, "slurm") == ()


def test_no_dependency_is_none(record: Record):
    assert resolve_dependencies("", record, "slurm") == ()
    assert resolve_dependencies("", None, "slurm") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("afterok", "is not KIND:RUN"),
        ("afterok:", "is not KIND:RUN"),
        ("afterok:a::b", "is not KIND:RUN"),
        ("singleton:a", "is not KIND:RUN"),
        ("run-live-0001", "is not KIND:RUN"),
        ("afterok:nothing", "no run named 'nothing'"),
        ("afterok:run-fail-0004", "can never be fulfilled: it ended FAILED"),
        ("afternotok:run-done-0003", "can never be fulfilled: it ended COMPLETED"),
        ("afterok:run-here-0005", "belongs to local"),
        ("afterok:run-sent-0006", "has not reached the queue"),
        ("afterok:run-", "fits more than one run"),
    ],
)
def test_a_dependency_that_cannot_be_is_refused(record: Record, text: str, message: str):
    with pytest.raises(InputError, match=message):
        resolve_dependencies(text, record, "slurm")


def test_without_a_record_only_numbers_are_known():
    assert resolve_dependencies("afterok:4711", None, "slurm") == (Dependency(kind="afterok", job_ids=("4711",)),)
    assert resolve_dependencies("after:4711_3", None, "slurm") == (Dependency(kind="after", job_ids=("4711_3",)),)
    with pytest.raises(InputError, match="no run named 'run-a'"):
        resolve_dependencies("afterok:run-a", None, "slurm")
