"""Keeps account of results that are to leave: which did, which a job is at, which a login node still owes."""

import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from deephpc.data.deadline import within
from deephpc.data.progress import Progress
from deephpc.errors import DataError, InputError, SiteError
from deephpc.jobs.delivery import Delivery, last_delivery, note_delivery
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder
from deephpc.workflows.collect import CollectPlan, CollectResult, carry_out_collect, plan_collect
from deephpc.workflows.data_places import DataPlaces
from deephpc.workflows.plan import load_plan
from deephpc.workflows.results import piece_of, pieces_of

#: After a failure such commands leave storage alone this long; as long as the run has ended then, and at most a day.
_PAUSE, _LONGEST_PAUSE = timedelta(minutes=10), timedelta(days=1)
_MOMENT_S = 10.0
_COUNTS = ("files", "size_bytes", "transferred_files", "transferred_bytes")
Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Owed:
    """A run that ended and whose results are not all where they are to be."""

    job: Job
    last: Delivery
    """The last that was heard of them."""

    def may_be_tried(self, now: datetime) -> bool:
        """Whether nobody is at it, and it did not fail a moment ago."""
        failed_here = self.last.state == "failed" and self.last.by == "login"
        tried_for = self.last.at - (self.job.ended_at or self.last.at)
        pause = min(max(tried_for, _PAUSE), _LONGEST_PAUSE)
        return not self.last.is_under_way(now) and not (failed_here and now < self.last.at + pause)


def place_of(job: Job) -> str | None:
    """Return where a run's results were to go when it was submitted; None where nobody said."""
    plan = load_plan(job.files)
    return plan.request.options.collect if plan else None


def find_owed(record: Record, now: datetime, only: Collection[str] | None = None) -> tuple[Owed, ...]:
    """Return the runs that ended and whose results wait, after a look at what their jobs said of it (login node)."""
    found = []
    for run_id, row in record.transfers.owed(now).items():
        if only is not None and run_id not in only:
            continue
        job = record.get(run_id)
        if not job.folder.is_dir():  # removed, or its file system is away: there is nothing to send
            continue
        told = _told(job, row.destination)
        if told is not None and (told.state, told.at) != (row.state, row.at):
            record.transfers.note(run_id, told)
        last = told or row
        if last.state != "done" and not record.transfers.went_anywhere(run_id):
            found.append(Owed(job, last))
    return tuple(found)


def wait_for_job(record: Record, owed: Owed, clock: Clock) -> Owed | None:
    """Give a job that says it sends its results a moment to do so, or to take the lock; return what is owed then."""
    until = time.monotonic() + _MOMENT_S
    now: Owed | None = owed
    while now is not None and now.last.is_under_way(clock()) and time.monotonic() < until:
        time.sleep(0.5)
        now = next(iter(find_owed(record, clock(), [owed.job.run_id])), None)
    return now


def deliver(
    record: Record, plan: CollectPlan, job: Job, places: DataPlaces, clock: Clock, progress: Progress | None = None
) -> CollectResult:
    """Carry a plan out on a login node, and keep account of it.

    Raises
    ------
    DataError
        A file could not be sent; those that were stay, and the same command goes on.
    """
    try:
        result = carry_out_collect(plan, places, progress)
    except DataError as error:
        failure = Delivery(
            destination=plan.destination, state="failed", by="login", at=_now(clock), reason=error.message
        )
        _keep(record, plan, job, failure)
        raise
    _keep(record, plan, job, _delivery(result, "login", _now(clock)))
    return result


def deliver_owed(
    record: Record, owed: Owed, places: DataPlaces, clock: Clock, seconds: float, progress: Progress | None = None
) -> tuple[bool, str]:
    """Bring the results of a run home, as long as it takes no longer than that; return whether, and how in one line."""
    job = owed.job
    try:
        with within(seconds, "it takes longer"):
            result = deliver(record, plan_collect(job, None, place_of(job)), job, places, clock, progress)
    except (DataError, InputError, SiteError) as error:
        return False, f"results of {job.run_id} wait here ({error.message}); `deephpc collect {job.run_id}` sends them"
    sent = ", ".join(filter(None, (f"{result.files} files", result.stays)))
    return True, f"results of {job.run_id} are at {result.destination}: {sent}"


def deliver_table(job: Job, places: DataPlaces, seconds: float) -> str | None:
    """Send what lies beside an array's tasks, its plan and table, where their results went (login node).

    Returns how it went in one line; None where results go nowhere, or the run has not ended.
    """
    place = place_of(job)
    if not place or not job.state.is_final:
        return None
    plan = CollectPlan(run_id=job.run_id, task=None, folder=job.folder, place=place, pieces=pieces_of(job, None)[-1:])
    try:
        with within(seconds, "it takes longer"):
            result = carry_out_collect(plan, places)
    except (DataError, InputError, SiteError) as error:
        return f"the table of {job.run_id} waits here ({error.message}); `deephpc collect {job.run_id}` sends it"
    return f"the table of {job.run_id} is at {result.destination}"


def deliver_in_job(folder: RunFolder, task: int | None, seconds: float, places: DataPlaces, clock: Clock) -> None:
    """Send what a job left, from its node, as long as it has time; how it went is told by an event, never by an error.

    Raises
    ------
    InputError
        The run folder says nowhere to send it.
    """
    kept = load_plan(folder)
    place = kept.request.options.collect if kept else None
    if not kept or not place:
        raise InputError(f"{folder.plan} does not say where results go", "this is for job scripts")
    run_id = kept.spec.run_id
    pieces = (piece_of(task, is_final=True),)
    plan = CollectPlan(run_id=run_id, task=task, folder=folder.path, place=place, pieces=pieces)
    try:
        with within(seconds, "the job's time was over before all was sent"):
            delivery = _delivery(carry_out_collect(plan, places), "job", _now(clock))
    except (DataError, InputError, SiteError) as error:
        delivery = Delivery(
            destination=plan.destination, state="failed", by="job", at=_now(clock), reason=error.message
        )
    environ = places.around.environ
    facts = {"attempt": int(environ.get("DEEPHPC_ATTEMPT", "1")), "job_id": environ.get("DEEPHPC_COLLECT_JOB", "")}
    note_delivery(folder.task(task), delivery, {**facts, "host": os.uname().nodename})


def _now(clock: Clock) -> datetime:
    """Return the present as events tell it."""
    return clock().replace(microsecond=0)


def _told(job: Job, destination: str) -> Delivery | None:
    """Return what the folders of a run tell of its results; of an array's tasks together."""
    tasks = [last_delivery(job.files.task(number), destination) for number in sorted(job.tasks) or (None,)]
    told = [each.model_copy(update={"destination": destination}) for each in tasks if each is not None]
    unfinished = [each for each in told if each.state != "done"]
    if unfinished or not told:
        return max(unfinished, key=lambda each: each.at, default=None)
    if len(told) < len(tasks):
        return None
    sums = {name: sum(getattr(each, name) for each in told) for name in _COUNTS}
    last = max(told, key=lambda each: each.at)
    return last.model_copy(update={**sums, "digest": last.digest if len(told) == 1 else ""})


def _delivery(result: CollectResult, by: str, at: datetime) -> Delivery:
    sent = result.model_dump(include={"destination", *_COUNTS})
    state = "done" if result.whole else "partial"
    told = {**sent, "state": state, "by": by, "at": at, "digest": result.digest or "", "reason": result.stays}
    return Delivery.model_validate(told)


def _keep(record: Record, plan: CollectPlan, job: Job, delivery: Delivery) -> None:
    """Note a delivery in the record, and in the events of what has ended: a job that runs writes those itself."""
    if plan.task is None:
        record.transfers.note(job.run_id, delivery)
    facts: dict[str, object] = {"attempt": job.attempt or 1, "job_id": job.job_id or "", "host": os.uname().nodename}
    for piece in plan.pieces:
        if piece.is_final and (piece.task is not None or not job.tasks):
            with contextlib.suppress(SiteError):  # its disk is full: the record has it
                note_delivery(job.files.task(piece.task), delivery, facts)
