"""Decides whether a task may start, given how the job it waits for stands."""

from enum import Enum

from deephpc.jobs.local_job import JobView
from deephpc.jobs.state import FAILURES, JobState


class Verdict(Enum):
    """What a dependency says; the greater it is, the more it weighs."""

    MET = 0
    WAITING = 1
    NEVER = 2


def judge(kind: str, awaited: JobView | None, awaited_task: int | None, task: int | None) -> Verdict:
    """Judge one dependency.

    Parameters
    ----------
    kind
        `after` (has begun or was cancelled), `afterany` (has ended), `afterok` (all of it succeeded), `afternotok`
        (some of it failed), `aftercorr` (the task of the same number succeeded).
        Source: sbatch(1) of Slurm 24.11, --dependency.
    awaited
        How the other job stands; None when nobody knows it, so that nothing can ever be said of it.
    awaited_task
        The one task of the other job that counts, or None for all.
    task
        The task that waits.
    """
    states = _states(awaited, awaited_task, task if kind == "aftercorr" else None)
    have_ended = all(state.is_final for state in states)
    has_failed = any(state in FAILURES for state in states)
    if not states:
        return Verdict.NEVER
    if kind == "after":
        return Verdict.WAITING if JobState.PENDING in states else Verdict.MET
    if kind in ("afterok", "aftercorr") and has_failed:
        return Verdict.NEVER
    if not have_ended:
        return Verdict.WAITING
    return Verdict.NEVER if kind == "afternotok" and not has_failed else Verdict.MET


def _states(awaited: JobView | None, awaited_task: int | None, own_task: int | None) -> tuple[JobState, ...]:
    """Return the states that count: of the task named, of the one with our own number in an array, or of all."""
    tasks = awaited.tasks if awaited else ()
    is_array = any(one.task is not None for one in tasks)
    wanted = awaited_task if awaited_task is not None else own_task if is_array else None
    return tuple(one.state for one in tasks if wanted is None or one.task == wanted)
