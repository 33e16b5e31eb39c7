"""When a task may start, given how the job it waits for stands."""

import pytest

from deephpc.jobs.local_job import JobView, ProcessMark, TaskView
from deephpc.jobs.state import JobState
from deephpc.node.dependencies import Verdict, judge

MARK = ProcessMark(1, 1, "boot", "host")
PENDING, RUNNING, COMPLETED, FAILED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED, JobState.FAILED
CANCELLED = JobState.CANCELLED
MET, WAITING, NEVER = Verdict.MET, Verdict.WAITING, Verdict.NEVER


def job(state: JobState) -> JobView:
    return JobView(MARK, (TaskView(None, state),))


def array(*states: JobState) -> JobView:
    return JobView(MARK, tuple(TaskView(number, state) for number, state in enumerate(states)))


@pytest.mark.parametrize(
    ("kind", "pending", "running", "completed", "failed", "cancelled"),
    [
        ("after", WAITING, MET, MET, MET, MET),
        ("afterany", WAITING, WAITING, MET, MET, MET),
        ("afterok", WAITING, WAITING, MET, NEVER, NEVER),
        ("afternotok", WAITING, WAITING, NEVER, MET, MET),
        ("aftercorr", WAITING, WAITING, MET, NEVER, NEVER),
    ],
)
def test_a_dependency_on_a_job(
    kind: str, pending: Verdict, running: Verdict, completed: Verdict, failed: Verdict, cancelled: Verdict
) -> None:
    states = (PENDING, RUNNING, COMPLETED, FAILED, CANCELLED)
    assert tuple(judge(kind, job(state), None, None) for state in states) == (
        pending,
        running,
        completed,
        failed,
        cancelled,
    )


def test_success_of_an_array_is_missed_as_soon_as_one_task_fails() -> None:
    assert judge("afterok", array(RUNNING, FAILED), None, None) is NEVER
    assert judge("afterok", array(COMPLETED, COMPLETED), None, None) is MET


def test_failure_of_an_array_is_known_when_all_of_it_has_ended() -> None:
    assert judge("afternotok", array(RUNNING, FAILED), None, None) is WAITING
    assert judge("afternotok", array(COMPLETED, FAILED), None, None) is MET


def test_a_task_waits_for_the_task_of_its_number() -> None:
    awaited = array(COMPLETED, FAILED, RUNNING)
    assert [judge("aftercorr", awaited, None, task) for task in (0, 1, 2)] == [MET, NEVER, WAITING]


def test_a_task_without_counterpart_never_starts() -> None:
    assert judge("aftercorr", array(COMPLETED), None, 7) is NEVER


def test_a_task_may_wait_for_a_job_that_is_no_array() -> None:
    assert judge("aftercorr", job(COMPLETED), None, 7) is MET


def test_one_task_may_be_waited_for() -> None:
    awaited = array(COMPLETED, FAILED)
    assert judge("afterok", awaited, 0, None) is MET
    assert judge("afterok", awaited, 1, None) is NEVER


@pytest.mark.parametrize("kind", ["after", "afterany", "afterok", "afternotok", "aftercorr"])
def test_nothing_is_ever_said_of_an_unknown_job(kind: str) -> None:
    assert judge(kind, None, None, None) is NEVER
