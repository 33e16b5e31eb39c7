"""Brings the record up to date with the truth: one look at each scheduler, then at the run folders."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from deephpc.errors import DeephpcError, SiteError
from deephpc.jobs.evidence import write_standing
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.record import Record
from deephpc.jobs.record_absences import Missed
from deephpc.jobs.scheduler import Observation, Question, Scheduler
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import find_by_name, planned_clusters, read_answer, submitter_lives, write_answer
from deephpc.jobs.truth import SETTLE
from deephpc.workflows.chain import (
    HandedOn,
    adopt_successors,
    find_handed_on,
    place_successors,
    waits_for_successor,
)
from deephpc.workflows.found_metrics import run_series
from deephpc.workflows.metrics import last_values
from deephpc.workflows.verdict import Numbers, Tasks, judge_job, missing_tasks, still_stands

#: LOST is looked at again for this long: a file system that was away may come back with a result.
_SECOND_THOUGHTS = timedelta(days=7)
#: Sources are asked from a little before the oldest run: clocks of nodes differ.
_CLOCK_SKEW = timedelta(minutes=10)
_LONGEST_POLL_S = 10.0

Schedulers = Mapping[str, Scheduler]


@dataclass(frozen=True, slots=True)
class _Asleep:
    """Runs of which nothing more is expected, but which the queue is looked through for all the same."""

    ended: Mapping[str, str] = field(default_factory=dict)
    """Job id → run id of those that ended."""
    never_sent: tuple[Job, ...] = ()
    """Those called LOST that no scheduler ever confirmed."""
    lost: tuple[Job, ...] = ()
    """Those called LOST that were queued once."""


def refresh(
    record: Record,
    schedulers: Schedulers,
    now: datetime,
    only: Iterable[Job] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Bring unfinished runs up to date; return one line for each source that did not answer (login node).

    However many runs there are, each scheduler is asked once; once more where runs have gone on in another job. Runs
    whose scheduler is not here keep their last state.

    Parameters
    ----------
    environ
        What jobs are submitted with that their nodes could not submit; None leaves those to another command.
    """
    by_scheduler: dict[str, list[Job]] = defaultdict(list)
    if only is None:
        jobs, asleep = record.unfinished(), _asleep(record, schedulers, now - _SECOND_THOUGHTS)
    else:
        jobs, asleep = [job for job in only if not job.state.is_final], _Asleep()
    for job in (*jobs, *asleep.lost):
        by_scheduler[job.scheduler].append(job)
    if asleep.ended or asleep.never_sent:
        by_scheduler.setdefault("slurm", [])
    troubles: list[str] = []
    for name, group in by_scheduler.items():
        scheduler = schedulers.get(name)
        if scheduler is None:
            troubles.append(f"{len(group)} unfinished runs belong to {name}, which is not on this machine")
            continue
        sleepers = asleep if name == "slurm" else _Asleep()
        observation = scheduler.observe(_question(group, sleepers))
        troubles += observation.troubles
        seen = [*group, *_woken(record, sleepers, observation)]
        handed_on = find_handed_on(record, seen, observation, now)
        gone = {job.run_id for job in (*handed_on.moved, *handed_on.waiting)}
        _settle(record, [job for job in seen if job.run_id not in gone], observation, now)
        if gone:
            troubles += _settle_handed_on(record, scheduler, handed_on, now, environ)
    return tuple(troubles)


def _settle_handed_on(
    record: Record, scheduler: Scheduler, handed_on: HandedOn, now: datetime, environ: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Look at runs that have gone on in another job; submit that where its node could not."""
    observation = scheduler.observe(handed_on.question)
    jobs = [*handed_on.moved, *adopt_successors(record, handed_on.waiting, observation, now)]
    _settle(record, jobs, observation, now)
    late = [job.job_id for job in jobs if job.cancelled_at is not None and job.job_id and job not in handed_on.waiting]
    if late:  # submitted by a node while its run was cancelled here
        scheduler.cancel(late)
    if environ is None:
        return observation.troubles
    waiting = [job for job in (record.get(job.run_id) for job in handed_on.waiting) if waits_for_successor(job)]
    return (*observation.troubles, *place_successors(record, waiting, scheduler, environ, now))


def wait_for(  # noqa: PLR0913 - clock and sleep are for tests
    record: Record,
    schedulers: Schedulers,
    wanted: Sequence[tuple[str, int | None]],
    *,
    clock: Callable[[], datetime],
    timeout: timedelta | None,
    tell: Callable[[str], None],
    look: Callable[[Sequence[Job]], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Job]:
    """Wait until runs are final, and return them; `tell` gets one line per change of state.

    Parameters
    ----------
    wanted
        Ids of runs, each with None, or with one task of its array, which is returned as a run of its own.
    look
        Shown the runs as they stand after each look.
    environ
        As for `refresh`.

    Raises
    ------
    SiteError
        The timeout passed first (transient).
    """
    started, pause = time.monotonic(), 0.5
    last_seen: dict[str, JobState] = {}
    while True:
        whole = [record.get(run_id) for run_id, _ in wanted]
        open_jobs = [job for job in whole if not job.state.is_final]
        if open_jobs:
            refresh(record, schedulers, clock(), only=open_jobs, environ=environ)
            whole = [record.get(run_id) for run_id, _ in wanted]
        jobs = [job.alone(task) for job, (_, task) in zip(whole, wanted, strict=True)]
        for job in jobs:
            if last_seen.get(job.run_id) != job.state:
                last_seen[job.run_id] = job.state
                pause = 0.5
                tell(f"{job.run_id}: {job.state.value}{f' ({job.reason})' if job.reason else ''}")
        look(jobs)
        if all(job.state.is_final for job in jobs):
            return jobs
        if timeout is not None and time.monotonic() - started > timeout.total_seconds():
            names = ", ".join(job.run_id for job in jobs if not job.state.is_final)
            raise SiteError(
                f"not finished in time: {names}", "the runs go on; wait again, or `deephpc why ID`", transient=True
            )
        _sleep_until_result(whole, pause, sleep)
        pause = min(pause * 1.5, _LONGEST_POLL_S)


def adopt(job: Job, observation: Observation, now: datetime) -> Job:
    """Return an unconfirmed run with the id it was found under, in its folder or in the queue."""
    answer = read_answer(job.files)
    found = find_by_name(job.job_name, observation.queue, observation.accounting)
    if answer is not None:
        job_id, at = answer
    elif found:
        job_id, at = found[0], now
        write_answer(job.files, job_id, at)
    else:
        return job
    return job.model_copy(
        update={
            "job_id": job_id,
            "submitted_at": at,
            "submitter": "",
            "state": JobState.PENDING,
            "reason": "",
            "seen_at": now,
        }
    )


def _unless_confirmed(adopted: Job, row: Job) -> Job:
    """Return the adopted run, unless its own command has confirmed it meanwhile."""
    return adopted if row.job_id is None else row


def _asleep(record: Record, schedulers: Schedulers, since: datetime) -> _Asleep:
    lost = record.lost_since(since)
    return _Asleep(
        ended=record.ended_ids("slurm", since) if "slurm" in schedulers else {},
        never_sent=tuple(job for job in lost if job.job_id is None and job.scheduler in schedulers),
        lost=tuple(job for job in lost if job.job_id is not None),
    )


def _woken(record: Record, asleep: _Asleep, observation: Observation) -> list[Job]:
    """Return the runs that stand in the queue against all expectation: put back by hand, or queued very late."""
    queue = observation.queue or {}
    alive = (JobState.PENDING, JobState.RUNNING)
    ids = [job_id for job_id in asleep.ended if any(one.state in alive for one in queue.get(job_id, ()))]
    ended = (record.get(asleep.ended[job_id]) for job_id in ids)
    back = [job for job in ended if any(one.name in ("", job.job_name) for one in queue[job.job_id or ""])]
    late = [job for job in asleep.never_sent if find_by_name(job.job_name, observation.queue)]
    return [*back, *late]


def _question(jobs: Sequence[Job], asleep: _Asleep) -> Question:
    unsent = [job for job in jobs if job.job_id is None]
    return Question(
        ended_ids=tuple(asleep.ended),
        live_tasks={
            job.job_id: sum(not state.is_final for state in job.tasks.values())
            for job in jobs
            if job.job_id is not None and job.tasks
        },
        lost_names=tuple(job.job_name for job in asleep.never_sent),
        name_clusters=tuple(dict.fromkeys(one for job in (*unsent, *asleep.never_sent) for one in _may_be_on(job))),
        job_ids=tuple(job.job_id for job in jobs if job.job_id is not None),
        job_names=tuple(job.job_name for job in unsent),
        since=min(job.created_at for job in jobs) - _CLOCK_SKEW if jobs else None,
    )


def _may_be_on(job: Job) -> tuple[str, ...]:
    """Return the clusters a run may have been sent to whose submission got no answer."""
    return planned_clusters(job.files) or ("",)


def _settle(record: Record, jobs: Sequence[Job], observation: Observation, now: datetime) -> None:
    standings: dict[str, tuple[Standing, Tasks]] = {}
    missed = record.absences.all()
    for job in jobs:
        if still_stands(job, observation, now):
            continue
        since = missed.get(job.run_id, {})
        if job.job_id is None:
            known = adopt(job, observation, now)
            if known.job_id is not None:
                job = record.change(job.run_id, partial(_unless_confirmed, known), now, "adopted")  # noqa: PLW2901 - as it is now
            else:
                standings[job.run_id] = (_unsent(job, observation, now, since.get(None)), job.tasks)
                continue
        standings[job.run_id] = judge_job(job, observation, now, since)
    changed = record.settle(standings, now)
    _note_absences(record, jobs, standings, missed, observation, now)
    for job in jobs:
        standing, tasks = standings.get(job.run_id, (job, job.tasks))
        is_news = job.run_id in changed or job.run_id not in standings  # else another process has kept it
        if is_news and standing.state.is_final and standing.state is not JobState.LOST:
            _close(record, job, standing, tasks)


def _note_absences(
    record: Record,
    jobs: Sequence[Job],
    standings: Mapping[str, tuple[Standing, Tasks]],
    missed: Mapping[str, Missed],
    observation: Observation,
    now: datetime,
) -> None:
    """Keep which runs and tasks nobody knew in this look, and forget those that are there again or have ended."""
    missing: dict[str, Iterable[int | None]] = {}
    back: dict[str, Iterable[int | None]] = {}
    for job in jobs:
        before = missed.get(job.run_id, {}).keys()
        standing, _ = standings.get(job.run_id, (job, {}))
        if standing.state.is_final:
            back[job.run_id] = before
            continue
        if job.run_id not in standings and not before:
            continue
        lacking, there = _missing(job, observation)
        missing[job.run_id], back[job.run_id] = lacking - before, there & before
    record.absences.note(missing, back, now)


def _missing(job: Job, observation: Observation) -> tuple[Numbers, Numbers]:
    """Return what of a run nobody knew in this look, and what somebody did."""
    if job.job_id is not None:
        return missing_tasks(job, observation)
    itself: Numbers = frozenset([None])
    if find_by_name(job.job_name, observation.queue, observation.accounting):
        return frozenset(), itself
    return itself if observation.queue_answers(*_may_be_on(job)) else frozenset(), frozenset()


def _close(record: Record, job: Job, standing: Standing, tasks: Tasks) -> None:
    """Keep in the run folder how a run ended, so that the record can be rebuilt, and its last metrics in the record."""
    try:
        write_standing(job.files, standing, tasks)
        keep_last_metrics(record, job)
    except DeephpcError:  # the folder is gone or its disk is full: the record has it
        return


def keep_last_metrics(record: Record, job: Job) -> None:
    """Keep the last value of each metric of a run that ended, or of each task of its array, in the record.

    Raises
    ------
    SiteError
        A folder cannot be read, or the record not be written.
    """
    folders = {f"{job.run_id}_{number}": job.files.task(number) for number in job.tasks}
    folders = folders or {job.run_id: job.files.task(None)}
    record.keep_metrics({name: last_values(run_series(folder)) for name, folder in folders.items()})


def _unsent(job: Job, observation: Observation, now: datetime, missed_since: datetime | None) -> Standing:
    """Judge a run that no scheduler confirmed and that was not found, neither now nor a minute ago."""
    is_silent = not observation.queue_answers(*_may_be_on(job))
    if submitter_lives(job.submitter) or is_silent or missed_since is None or now - missed_since < SETTLE:
        return job
    reason = "it never reached the queue: its command ended first; repeat the command to go on with it"
    return job.model_copy(update={"state": JobState.LOST, "reason": reason, "source": "record"})


def _sleep_until_result(jobs: Sequence[Job], pause_s: float, sleep: Callable[[float], None]) -> None:
    """Sleep, but no longer than until a plain run leaves its result: one stat costs less than asking the scheduler."""
    results = (job.files.task(None).result for job in jobs if not job.state.is_final and not job.tasks)
    waiting = [path for path in results if not path.exists()]  # an earlier attempt may have left one
    wake_at = time.monotonic() + pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    while (left := wake_at - time.monotonic()) > 0:
        sleep(min(left, 0.5))
        if any(path.exists() for path in waiting):
            return
