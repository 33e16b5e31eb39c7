"""Judges a run, task by task, from one look at its scheduler and at its run folder."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from deephpc.jobs.evidence import Attempt, awaits_successor, load_attempts, load_result, newest_job
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.record import LOOKS_APART
from deephpc.jobs.scheduler import Observation, Sighting, cluster_of
from deephpc.jobs.state import ACTIVE, JobState, summarize
from deephpc.jobs.truth import AWAITS_SUCCESSOR, Evidence, judge

Tasks = dict[int, JobState]
Numbers = frozenset[int | None]
"""Tasks of an array; None is the run itself."""
_NOTHING_MISSED: Mapping[int | None, datetime] = {}


def still_stands(job: Job, observation: Observation, now: datetime) -> bool:
    """Whether a live run was seen moments ago, is in the queue as it was then, and has left no result since.

    It spares thousands of waiting jobs the whole judgement.
    """
    queue = job.own((observation.queue or {}).get(job.job_id or "", ()))
    if not queue or job.seen_at is None or now - job.seen_at >= LOOKS_APART:
        return False
    if not job.tasks:
        sighting = queue[0]
        as_known = (job.raw_state, job.reason) == (sighting.raw_state, _reason(sighting))
        return as_known and _lives_on(job, None, job.state, sighting)
    alive = {number: state for number, state in job.tasks.items() if not state.is_final}
    seen = {sighting.task: sighting for sighting in queue}
    return seen.keys() == alive.keys() and all(
        _lives_on(job, number, state, seen[number]) for number, state in alive.items()
    )


def missing_tasks(job: Job, observation: Observation) -> tuple[Numbers, Numbers]:
    """Return which unfinished tasks, or whether the run itself (None), all sources lack, and which a source has."""
    sources = [(source or {}).get(job.job_id or "", ()) for source in (observation.queue, observation.accounting)]
    seen = {one.task for source in sources for one in job.own(source)}
    tasks: Numbers = frozenset(number for number, state in job.tasks.items() if not state.is_final) or frozenset([None])
    if None in seen:  # it stands for tasks that were never split off
        return frozenset(), tasks
    cluster = cluster_of(job.job_id)
    is_sure = observation.queue_answers(cluster) and observation.accounting_answers(cluster)
    return tasks - seen if is_sure else frozenset(), tasks & seen


def judge_job(
    job: Job, observation: Observation, now: datetime, missed: Mapping[int | None, datetime] = _NOTHING_MISSED
) -> tuple[Standing, Tasks]:
    """Return how a run stands, and each task of its array.

    Parameters
    ----------
    missed
        Since when the run (None), or each task, is missing from every source that answered.
    """
    queue = job.own((observation.queue or {}).get(job.job_id or "", ()))
    accounting = job.own((observation.accounting or {}).get(job.job_id or "", ()))
    if not job.tasks:
        seen = (_last(queue), _last(accounting))
        return _judge_one(job, (job, None), seen, observation, (now, missed.get(None))), {}
    in_queue = {sighting.task: sighting for sighting in queue}
    in_accounting = {sighting.task: sighting for sighting in accounting}
    whole = in_queue.get(None) or in_accounting.get(None)  # it stands for tasks that were never split off
    standings: dict[int, Standing] = {}
    for number, state in job.tasks.items():
        known = Standing(state=state, seen_at=job.seen_at, attempt=0 if state is JobState.PENDING else job.attempt)
        if not state.is_final or state is JobState.LOST:
            seen = (in_queue.get(number) or whole, in_accounting.get(number))
            known = _judge_one(known, (job, number), seen, observation, (now, missed.get(number)))
        standings[number] = known
    return _summary(job, standings), {number: standing.state for number, standing in standings.items()}


def _lives_on(job: Job, number: int | None, known: JobState, sighting: Sighting) -> bool:
    if known is not sighting.state or known not in ACTIVE:
        return False
    waits_first = known is JobState.PENDING and job.attempt == 0
    return waits_first or not job.files.task(number).result.exists()


def _judge_one(
    known: Standing,
    task: tuple[Job, int | None],
    seen: tuple[Sighting | None, Sighting | None],
    observation: Observation,
    times: tuple[datetime, datetime | None],
) -> Standing:
    """Judge a job or array task by what queue and accounting have of it, since when it is missed, and its folder."""
    (job, number), (queue, accounting), (now, missed_since) = task, seen, times
    waits_first = queue is not None and queue.state is JobState.PENDING and known.attempt == 0
    files = job.files.task(number)
    result = None if waits_first else load_result(files)
    lives = queue is not None and queue.state in ACTIVE
    attempts = load_attempts(files) if result is None and not lives else ()
    evidence = Evidence(
        queue=queue,
        queue_answered=observation.queue_answers(cluster_of(job.job_id)),
        accounting=accounting,
        accounting_answered=observation.accounting_answers(cluster_of(job.job_id)),
        result=result,
        attempts=attempts,
        goes_on=_where_it_goes_on(job, attempts),
        cancelled_at=job.cancelled_at,
        missed_since=missed_since,
    )
    standing = judge(known.standing(), evidence, now)
    if evidence.goes_on == AWAITS_SUCCESSOR and job.cancelled_at is not None:
        return standing.model_copy(update={"state": JobState.CANCELLED, "reason": "cancelled through deephpc"})
    if standing.state is JobState.COMPLETED and result is None and attempts and attempts[-1].continues:
        reason = f"its job {job.job_id} ended without going on with it"
        return standing.model_copy(update={"state": JobState.FAILED, "reason": reason, "exit_code": None})
    return standing


def _where_it_goes_on(job: Job, attempts: Sequence[Attempt]) -> str:
    if awaits_successor(job.job_id, attempts):
        return AWAITS_SUCCESSOR
    newest = newest_job(job.job_id, attempts) if job.job_id is not None else None
    return "" if newest == job.job_id else f"it goes on in job {newest}"


def _summary(job: Job, standings: Mapping[int, Standing]) -> Standing:
    """Return how an array stands as a whole: the liveliest task, then the worst end."""
    all_of_them = standings.values()
    state = summarize(frozenset(standing.state for standing in all_of_them))
    example = next(standing for standing in all_of_them if standing.state is state)
    return example.model_copy(
        update={
            "reason": _array_reason(standings) if state.is_final else example.reason,
            "started_at": _least(job.started_at, (standing.started_at for standing in all_of_them)),
            "ended_at": _most(job.ended_at, (standing.ended_at for standing in all_of_them))
            if state.is_final
            else None,
            "nodes": "",
            "seen_at": _most(job.seen_at, (standing.seen_at for standing in all_of_them)),
        }
    )


def _array_reason(standings: Mapping[int, Standing]) -> str:
    failed = sum(standing.state is not JobState.COMPLETED for standing in standings.values())
    return f"{failed} of {len(standings)} tasks did not complete" if failed else ""


def _least(known: datetime | None, times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in (known, *times) if time), default=None)


def _most(known: datetime | None, times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in (known, *times) if time), default=None)


def _last(sightings: Sequence[Sighting]) -> Sighting | None:
    return sightings[-1] if sightings else None


def _reason(sighting: Sighting) -> str:
    return "" if sighting.reason == "None" else sighting.reason
