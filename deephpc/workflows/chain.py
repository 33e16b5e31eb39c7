"""Follows a run from job to job, where it goes on in successors (`--chain`), and submits those that nodes could not.

A successor carries the name of the jobs before it. The node that submits it tells its id in the run folder; where no
answer came, the queue is asked for the name; where there is none, a command on the login node submits it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from deephpc.errors import SiteError
from deephpc.jobs.evidence import awaits_successor, load_attempts, newest_job, write_standing
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.scheduler import JobId, Observation, Question, Refused, Scheduler, Submission, cluster_of
from deephpc.jobs.state import ACTIVE, JobState
from deephpc.jobs.submission import Patience, describe_submitter, find_by_name, place, submitter_lives, write_answer
from deephpc.jobs.truth import AWAITS_SUCCESSOR


@dataclass(frozen=True, slots=True)
class HandedOn:
    """Runs that have left the job they were last known in."""

    moved: tuple[Job, ...] = ()
    """Those whose next job is known, with its id."""
    waiting: tuple[Job, ...] = ()
    """Those whose next job nobody has told of yet."""

    @property
    def question(self) -> Question:
        """What to look up about them."""
        jobs = (*self.moved, *self.waiting)
        return Question(
            job_ids=tuple(job.job_id for job in self.moved if job.job_id is not None),
            job_names=tuple(job.job_name for job in self.waiting),
            name_clusters=tuple({cluster_of(job.job_id) for job in self.waiting}),
            since=min((job.created_at for job in jobs), default=None),
        )


def find_handed_on(record: Record, jobs: Sequence[Job], observation: Observation, now: datetime) -> HandedOn:
    """Return which of the runs go on in another job than the one that was looked for, and record those known."""
    moved, waiting = [], []
    for job in jobs:
        if job.job_id is None or job.tasks or job.scheduler != "slurm" or not _has_ended(job, observation):
            continue
        attempts = load_attempts(job.files.task(None))
        newest = newest_job(job.job_id, attempts)
        if newest != job.job_id:
            moved.append(_move(record, job, newest, now))
        elif awaits_successor(job.job_id, attempts):
            waiting.append(job)
    return HandedOn(tuple(moved), tuple(waiting))


def adopt_successors(record: Record, waiting: Sequence[Job], observation: Observation, now: datetime) -> list[Job]:
    """Return the waiting runs, with the job that stands in the queue for each; it is recorded."""
    adopted = []
    for job in waiting:
        found = find_by_name(job.job_name, observation.queue, observation.accounting)
        known = _jobs_so_far(job)
        new = [job_id for job_id in found if job_id not in known]
        adopted.append(_move(record, job, new[0], now) if new else job)
    return adopted


def place_successors(
    record: Record,
    jobs: Sequence[Job],
    scheduler: Scheduler,
    environ: Mapping[str, str],
    now: datetime,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[str, ...]:
    """Submit the next job of each run that waits for it (login node); return one line for each that it failed for."""
    from deephpc.workflows.plan import job_environment, load_plan  # start-up time: most looks find none

    troubles = []
    for job in jobs:
        plan = load_plan(job.files)
        if plan is None or job.cancelled_at is not None or not _take_in_hand(record, job, now):
            continue
        submission = Submission(
            spec=plan.spec,
            script=job.files.script,
            environment=job_environment(environ),
            clusters=tuple(filter(None, [cluster_of(job.job_id)])),
        )
        try:
            placed = place(
                submission,
                scheduler,
                created_at=job.created_at,
                may_be_queued=True,
                but_not=_jobs_so_far(job),
                patience=patience,
            )
        except Refused as refusal:
            _end(record, job, f"its next job was refused: {refusal}", now)
        except SiteError as error:
            troubles.append(f"the next job of {job.run_id} is not submitted yet: {error.message}")
        else:
            _move(record, job, placed.job_id, now, placed.said)
    return tuple(troubles)


def waits_for_successor(job: Job) -> bool:
    """Whether a run waits for its next job to be submitted."""
    return job.state is JobState.PENDING and job.reason == AWAITS_SUCCESSOR


def _has_ended(job: Job, observation: Observation) -> bool:
    """Whether a run's job is not alive in the queue or, where that is silent, accounting tells of its end."""
    if observation.queue_answers(cluster_of(job.job_id)):
        return not any(one.state in ACTIVE for one in job.own((observation.queue or {}).get(job.job_id or "", ())))
    told = job.own((observation.accounting or {}).get(job.job_id or "", ()))
    return bool(told) and told[-1].state.is_final


def _jobs_so_far(job: Job) -> frozenset[JobId]:
    numbers = {attempt.job_id for attempt in load_attempts(job.files.task(None))}
    cluster = cluster_of(job.job_id)
    return frozenset(f"{number};{cluster}" if cluster else number for number in numbers)


def _move(record: Record, job: Job, job_id: JobId, now: datetime, said: Sequence[str] = ()) -> Job:
    """Record the job in which a run goes on, and keep it in the run folder for a rebuild."""
    if job.submitted_at is not None:
        write_answer(job.files, job_id, job.submitted_at, said)
    update = {
        "job_id": job_id,
        "submitter": "",
        "state": JobState.PENDING,
        "raw_state": "",
        "reason": "",
        "seen_at": now,
    }
    record.absences.note({}, {job.run_id: [None]}, now)  # of the job before
    return record.change(job.run_id, lambda known: known.model_copy(update=update), now, f"goes on in job {job_id}")


def _take_in_hand(record: Record, job: Job, now: datetime) -> bool:
    """Whether this command is the one to submit the next job; another that lives may be at it."""
    me = describe_submitter()

    def take(known: Job) -> Job:
        is_free = not known.submitter or submitter_lives(known.submitter) is False
        return known.model_copy(update={"submitter": me}) if is_free and known.job_id == job.job_id else known

    return record.change(job.run_id, take, now).submitter == me


def _end(record: Record, job: Job, reason: str, now: datetime) -> None:
    update = {"state": JobState.FAILED, "raw_state": "REFUSED", "reason": reason, "submitter": "", "ended_at": now}
    ended = record.change(job.run_id, lambda known: known.model_copy(update=update), now, reason)
    write_standing(job.files, ended, ended.tasks)
