"""Turns `--dependency afterok:RUN` into what the scheduler understands (pure but for the record's answers)."""

import re
from typing import get_args

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.scheduler import id_of_task
from deephpc.jobs.spec import Dependency, DependencyKind
from deephpc.jobs.state import JobState
from deephpc.workflows.plan import load_plan

#: The scheduler's own id of a job or array task.
_NUMBER = re.compile(r"[0-9]+(?:_[0-9]+)?", re.ASCII)
_KINDS: tuple[str, ...] = get_args(DependencyKind)


def resolve_dependencies(text: str, record: Record | None, scheduler: str) -> tuple[Dependency, ...]:
    """Read `afterok:RUN[:RUN…][,afterany:RUN…]`.

    RUN_N is one task of an array, and a number (`4711`, `4711_3`) the scheduler's own id of a job we do not know.
    Dependencies that are fulfilled already are dropped, since the scheduler forgets finished jobs.

    Parameters
    ----------
    record
        None where there is none yet: then only numbers are known.

    Raises
    ------
    InputError
        The text is malformed, names an unknown run, or can never be fulfilled.
    """
    resolved = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind, _, names = part.partition(":")
        if kind not in _KINDS or not names or not all(names.split(":")):
            raise InputError(f"--dependency {part!r} is not KIND:RUN[:RUN…]", f"kinds: {', '.join(_KINDS)}")
        run_ids, job_ids = [], []
        for name in names.split(":"):
            job, task = _find(record, name)
            if job is not None and _is_fulfilled(kind, job, task):
                continue
            job_ids.append(_job_id(name, job, task, scheduler))
            run_ids.append(_name(job, task) if job else "")
        if job_ids:
            fields = {"kind": kind, "job_ids": tuple(job_ids), "run_ids": tuple(filter(None, run_ids))}
            resolved.append(Dependency.model_validate(fields))
    return tuple(resolved)


def _find(record: Record | None, name: str) -> tuple[Job | None, int | None]:
    is_number = _NUMBER.fullmatch(name) is not None
    if record is None and not is_number:
        raise InputError(f"--dependency: no run named {name!r} is recorded", "nothing is recorded here yet")
    try:
        return record.resolve(name) if record else (None, None)
    except InputError:
        if is_number:
            return None, None
        raise


def _is_fulfilled(kind: str, job: Job, task: int | None) -> bool:
    state = job.state if task is None else job.tasks[task]
    if not state.is_final:
        return False
    succeeded = state is JobState.COMPLETED
    if (kind in ("afterok", "aftercorr") and not succeeded) or (kind == "afternotok" and succeeded):
        raise InputError(
            f"--dependency {kind}:{_name(job, task)} can never be fulfilled: it ended {state.value}",
            f"rerun it first: deephpc jobs rerun {job.run_id}",
        )
    return True


def _name(job: Job, task: int | None) -> str:
    return job.run_id if task is None else f"{job.run_id}_{task}"


def _job_id(name: str, job: Job | None, task: int | None, scheduler: str) -> str:
    if job is None:
        return name
    if job.scheduler != scheduler:
        raise InputError(
            f"--dependency: run {job.run_id} belongs to {job.scheduler}, this job goes to {scheduler}",
            f"wait for it first: deephpc jobs wait {job.run_id}",
        )
    plan = load_plan(job.files)
    if plan is not None and plan.spec.chain:
        raise InputError(
            f"--dependency: run {job.run_id} goes from job to job (--chain), and its last one is not there yet",
            f"wait for it first: deephpc jobs wait {job.run_id}",
        )
    if job.job_id is None:
        raise InputError(f"--dependency: run {job.run_id} has not reached the queue yet", "see `deephpc jobs`")
    return id_of_task(job.job_id, task)
