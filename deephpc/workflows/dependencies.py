"""Turns `--dependency afterok:RUN` into what the scheduler understands (pure but for the record's answers)."""

from typing import get_args

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.spec import Dependency, DependencyKind
from deephpc.jobs.state import JobState

_KINDS: tuple[str, ...] = get_args(DependencyKind)


def resolve_dependencies(text: str, record: Record | None, scheduler: str) -> tuple[Dependency, ...]:
    """Read `afterok:RUN[:RUN…][,afterany:RUN…]`; a number is the scheduler's own id of a job we do not know.

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
            job = _find(record, name)
            if job is not None and _is_fulfilled(kind, job):
                continue
            job_ids.append(_job_id(name, job, scheduler))
            run_ids.append(job.run_id if job else "")
        if job_ids:
            fields = {"kind": kind, "job_ids": tuple(job_ids), "run_ids": tuple(filter(None, run_ids))}
            resolved.append(Dependency.model_validate(fields))
    return tuple(resolved)


def _find(record: Record | None, name: str) -> Job | None:
    is_number = name.isascii() and name.isdecimal()
    if record is None and not is_number:
        raise InputError(f"--dependency: no run named {name!r} is recorded", "nothing is recorded here yet")
    try:
        return record.resolve(name)[0] if record else None
    except InputError:
        if is_number:
            return None
        raise


def _is_fulfilled(kind: str, job: Job) -> bool:
    if not job.state.is_final:
        return False
    succeeded = job.state is JobState.COMPLETED
    if (kind in ("afterok", "aftercorr") and not succeeded) or (kind == "afternotok" and succeeded):
        raise InputError(
            f"--dependency {kind}:{job.run_id} can never be fulfilled: it ended {job.state.value}",
            f"rerun it first: deephpc jobs rerun {job.run_id}",
        )
    return True


def _job_id(name: str, job: Job | None, scheduler: str) -> str:
    if job is None:
        return name
    if job.scheduler != scheduler:
        raise InputError(
            f"--dependency: run {job.run_id} belongs to {job.scheduler}, this job goes to {scheduler}",
            f"wait for it first: deephpc jobs wait {job.run_id}",
        )
    if job.job_id is None:
        raise InputError(f"--dependency: run {job.run_id} has not reached the queue yet", "see `deephpc jobs`")
    return job.job_id
