"""A stand-in for pyslurm 24.11 where there is no Slurm: its documented classes, as far as deephpc uses them.

Not pyslurm: `make test-pyslurm SRC=DIR` runs the same contract on the real one. It keeps what is peculiar about the
real one: task 0 reads as None, and exit codes from 128 up have lost 128.
Source: https://pyslurm.github.io/24.11/reference, Job, Jobs, db.Job, db.Jobs, db.JobFilter, RPCError.
"""

import os
from dataclasses import dataclass

from deephpc.jobs.local_job import LocalJob, TaskView
from deephpc.jobs.state import JobState
from tests.jobs.stand_in.slurm_on_local import cancel, jobs

from . import db as db
from .errors import RPCError as RPCError

__version__ = os.environ.get("STAND_IN_PYSLURM_VERSION", "24.11.0")


@dataclass
class Job:
    """One job, or one task of an array, or all tasks of one that wait."""

    id: int
    name: str = ""
    state: str = ""
    state_reason: str = "None"
    user_id: int = 0
    array_id: int | None = None
    array_task_id: int | None = None
    array_tasks_waiting: str | None = None
    submit_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    exit_code: int = 0
    exit_code_signal: int = 0
    cpus: int = 1
    allocated_nodes: str | None = None
    requeue_count: int = 0

    def cancel(self) -> None:
        """End the job; one that is gone is no error."""
        cancel(str(self.id))


class config:  # noqa: N801 - pyslurm's name
    """The cluster's configuration, from pyslurm's old API."""

    def get(self) -> dict[str, str]:
        """Return it by name."""
        storage = "none" if os.environ.get("STAND_IN_DATABASE") == "none" else "slurmdbd"
        return {"accounting_storage_type": f"accounting_storage/{storage}"}


class Jobs(dict[int, Job]):
    """Jobs by id."""

    @staticmethod
    def load() -> "Jobs":
        """Return every job of the queue."""
        if os.environ.get("STAND_IN_CONTROLLER") == "down":
            raise RPCError(msg="Unable to contact slurm controller (connect failure)")
        found = Jobs()
        for number, job in jobs():
            for record in _records(number, job):
                found[record.id] = record
        return found


def _records(number: int, job: LocalJob) -> list[Job]:
    order, view = job.load_order(), job.load_view()
    assert order is not None and view is not None
    base = Job(number, order.name, "PENDING", user_id=os.getuid(), submit_time=int(order.submitted_at), cpus=order.cpus)
    is_array = order.tasks != (None,)
    waiting = [task for task in view.tasks if is_array and task.state is JobState.PENDING]
    records = [_record(base, task, is_array) for task in view.tasks if task not in waiting]
    if waiting:
        base.array_id = number
        base.array_tasks_waiting = ",".join(str(task.task) for task in waiting)
        base.state_reason = waiting[0].reason or "Priority"
        records.append(base)
    return records


def _record(base: Job, view: TaskView, is_array: bool) -> Job:
    code = view.exit_code or 0
    return Job(
        id=base.id + 1_000_000 * ((view.task or 0) + 1) if is_array else base.id,
        name=base.name,
        state=view.state.value,
        state_reason=view.reason or "None",
        user_id=base.user_id,
        array_id=base.id if is_array else None,
        array_task_id=view.task or None,
        submit_time=base.submit_time,
        start_time=int(view.started_at) if view.started_at else None,
        end_time=int(view.ended_at) if view.ended_at else None,
        exit_code=code - 128 if code >= 128 else code,
        exit_code_signal=view.signal or 0,
        cpus=base.cpus,
        allocated_nodes=view.keeper.host if view.keeper else None,
    )
