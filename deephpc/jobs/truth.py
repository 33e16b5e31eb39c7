"""Decides how a run stands from sources that may be missing, frozen, late or wrong. Pure.

The order of trust is: `result.json`, accounting, the queue, `events.jsonl`. A source that did not answer proves
nothing; only when every source that can know the job answered, twice and a minute apart, and none does is it LOST, and
LOST is never success.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deephpc.jobs.evidence import Attempt, Result
from deephpc.jobs.job import Standing
from deephpc.jobs.scheduler import Sighting
from deephpc.jobs.state import ACTIVE, JobState

#: Accounting lags the queue by seconds, and a shared file system shows a new file late: no verdict before this.
SETTLE = timedelta(seconds=60)
#: How far the clocks of node and login node may lie apart; a result tells whole seconds.
_CLOCK_SKEW = timedelta(seconds=5)
#: How long Slurm may take until a job that asked to be continued is in the queue again, as far as it tells.
_REQUEUE_WITHIN = timedelta(minutes=5)
#: Why a run waits that is between two lives of its job.
REQUEUES = "it asked to be continued, and is being queued again"
#: Why a run waits whose next job is still to be submitted.
AWAITS_SUCCESSOR = "its next job is still to be submitted"
#: How a job ended that ran and was cancelled through deephpc, in the words of the job script.
_TOLD_TO_END = "told to end (SIGTERM)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was seen of one job or array task in one look."""

    queue: Sighting | None = None
    queue_answered: bool = False
    accounting: Sighting | None = None
    accounting_answered: bool = False
    """True as well where a site keeps no accounting: nothing more will ever come from there."""
    result: Result | None = None
    attempts: tuple[Attempt, ...] = ()
    goes_on: str = ""
    """Where the run goes on, for people, if this job has ended to be continued in a successor."""
    cancelled_at: datetime | None = None
    """When its end was asked for through deephpc."""
    missed_since: datetime | None = None
    """Since when every look that was answered had nothing of it; None: this is the first, or it was seen since."""


def judge(known: Standing, evidence: Evidence, now: datetime) -> Standing:
    """Return how a job or array task stands.

    Parameters
    ----------
    known
        How it stood when last judged.
    """
    for rule in _RULES:
        standing = rule(evidence, now)
        if standing is not None:
            return _completed(standing, known, evidence, now)
    return _by_silence(known, evidence, now)


def _by_result(evidence: Evidence, now: datetime) -> Standing | None:
    result = evidence.result
    if result is None or _lives_on(result, evidence, now):
        return None
    state, word = result.state, ""
    for sighting in (evidence.accounting, evidence.queue):
        if sighting is None or not sighting.state.is_final:
            continue
        word = sighting.raw_state
        if result.ended_by == "signal" and _knows_why(sighting.state, result, evidence.cancelled_at):
            state = sighting.state
        elif sighting.state is JobState.OUT_OF_MEMORY and state is JobState.FAILED:
            state = JobState.OUT_OF_MEMORY
        break
    return Standing(
        state=state,
        raw_state=word,
        reason=result.reason,
        exit_code=result.exit_code,
        signal=result.signal,
        started_at=result.started_at,
        ended_at=result.ended_at,
        nodes=result.nodes,
        attempt=result.attempt,
        source="result",
        seen_at=now,
    )


def _knows_why(state: JobState, result: Result, cancelled_at: datetime | None) -> bool:
    """Whether the scheduler knows why a job was told to end, of which the node has only the signal.

    A node that wrote how a cancelled job ended had not failed yet: what became of the node later is no reason.
    """
    if state is JobState.NODE_FAIL:
        return cancelled_at is None or result.ended_at + _CLOCK_SKEW < cancelled_at
    return state not in (JobState.COMPLETED, JobState.FAILED)


def _lives_on(result: Result, evidence: Evidence, now: datetime) -> bool:
    """Whether a result may not be the last word: the job was queued again, or was told to end and may yet be."""
    queue, accounting = evidence.queue, evidence.accounting
    if result.ended_by == "signal":
        if queue is not None:
            return queue.state in ACTIVE
        return not evidence.queue_answered and (accounting is None or not accounting.state.is_final)
    if queue is None or queue.state not in (JobState.PENDING, JobState.RUNNING):
        return False
    if queue.state is JobState.RUNNING and queue.started_at is not None:
        return queue.started_at > result.ended_at
    return now - result.ended_at > timedelta(seconds=5)  # younger than that, the queue was asked before the end


def _by_live_queue(evidence: Evidence, now: datetime) -> Standing | None:
    queue, accounting = evidence.queue, evidence.accounting
    if queue is None or queue.state not in ACTIVE:
        return None
    ended_at = accounting.ended_at if accounting is not None and accounting.state.is_final else None
    if ended_at and queue.started_at and queue.started_at < ended_at:  # it lags behind the end of this very life
        return None
    return _seen(queue, "queue", now)


def _by_handing_on(evidence: Evidence, now: datetime) -> Standing | None:
    """Between two jobs of a chained run: what became of the last one is not what became of the run."""
    if not evidence.goes_on:
        return None
    return Standing(state=JobState.PENDING, reason=evidence.goes_on, source="events", seen_at=now)


def _by_requeue(evidence: Evidence, now: datetime) -> Standing | None:
    """Between two lives of one job: for a while Slurm may tell the end of the last life as that of the job."""
    last = evidence.attempts[-1] if evidence.attempts else None
    if last is None or last.continues != "requeue" or last.ended_at is None or evidence.cancelled_at is not None:
        return None
    told = [one for one in (evidence.accounting, evidence.queue) if one is not None and one.state.is_final]
    if not told or any(one.state is not JobState.FAILED for one in told) or now - last.ended_at > _REQUEUE_WITHIN:
        return None
    return Standing(state=JobState.PENDING, reason=REQUEUES, source="events", seen_at=now)


def _by_accounting(evidence: Evidence, now: datetime) -> Standing | None:
    accounting = evidence.accounting
    if accounting is None:
        return None
    if not accounting.state.is_final and evidence.queue_answered:
        return None  # the queue would hold it: accounting has not heard of the end yet
    return _seen(accounting, "accounting", now)


def _by_ended_queue(evidence: Evidence, now: datetime) -> Standing | None:
    return _seen(evidence.queue, "queue", now) if evidence.queue is not None else None


def _by_attempts(evidence: Evidence, now: datetime) -> Standing | None:
    """Believe the node's own last words where no one else knows the job any more."""
    if not evidence.attempts or not evidence.queue_answered:
        return None
    last = evidence.attempts[-1]
    state = last.state
    if state is None and last.was_terminated:
        state = JobState.TIMEOUT if last.at_limit else JobState.CANCELLED
    if state is None:
        return None
    return Standing(
        state=state,
        exit_code=last.exit_code,
        signal=last.signal,
        started_at=last.started_at,
        ended_at=last.ended_at,
        nodes=last.nodes,
        attempt=last.number,
        source="events",
        seen_at=now,
    )


def _by_accounting_alone(evidence: Evidence, now: datetime) -> Standing | None:
    """Believe accounting that a job lives which the queue does not list, until it says otherwise."""
    accounting = evidence.accounting
    if accounting is None or accounting.state not in ACTIVE or evidence.cancelled_at is not None:
        return None
    reason = f"accounting says {accounting.raw_state}, but the queue does not list it"
    return _seen(accounting, "accounting", now).model_copy(update={"reason": reason})


def _by_silence(known: Standing, evidence: Evidence, now: datetime) -> Standing:
    """Nobody who answered knows the job."""
    if known.state.is_final:
        return known
    if not evidence.queue_answered:
        return known
    if not evidence.accounting_answered or evidence.missed_since is None or now - evidence.missed_since < SETTLE:
        return known.model_copy(update={"reason": "left the queue; how it ended is not known yet"})
    if evidence.cancelled_at is not None:
        return known.model_copy(
            update={"state": JobState.CANCELLED, "reason": "cancelled through deephpc", "source": "record"}
        )
    reason = "no source knows this job any more"
    if evidence.attempts:
        reason = f"it started on {evidence.attempts[-1].nodes or 'a node'} and was never heard of again"
    return known.model_copy(update={"state": JobState.LOST, "reason": reason, "source": "record"})


_RULES: tuple[Callable[[Evidence, datetime], Standing | None], ...] = (
    _by_result,
    _by_live_queue,
    _by_handing_on,
    _by_requeue,
    _by_accounting,
    _by_ended_queue,
    _by_attempts,
    _by_accounting_alone,
)


def _seen(sighting: Sighting, source: str, now: datetime) -> Standing:
    code = sighting.exit_code
    if code is None and sighting.state is JobState.COMPLETED:
        code = 0
    return Standing(
        state=sighting.state,
        raw_state=sighting.raw_state,
        reason="" if sighting.reason == "None" else sighting.reason,
        exit_code=code if sighting.state.is_final else None,
        signal=(sighting.signal or None) if sighting.state.is_final else None,
        started_at=sighting.started_at if sighting.state is not JobState.PENDING else None,
        ended_at=sighting.ended_at if sighting.state.is_final else None,
        nodes=",".join(sighting.nodes),
        attempt=(sighting.restarts or 0) + 1 if sighting.restarts is not None else 0,
        source=source,
        seen_at=now,
    )


def _completed(standing: Standing, known: Standing, evidence: Evidence, now: datetime) -> Standing:
    """Fill what the winning source did not say from the node's events and from what was known."""
    attempt = max(standing.attempt, evidence.attempts[-1].number if evidence.attempts else 0, known.attempt)
    update: dict[str, object] = {"attempt": attempt}
    if standing.state.is_final and standing.ended_at is None:
        update["ended_at"] = known.ended_at or now
    if standing.state is not JobState.PENDING and standing.started_at is None:
        update["started_at"] = evidence.attempts[-1].started_at if evidence.attempts else known.started_at
    if not standing.nodes and standing.state is not JobState.PENDING:
        update["nodes"] = known.nodes
    was_told = standing.state is JobState.CANCELLED and evidence.cancelled_at is not None
    if was_told and not standing.reason and (standing.started_at or known.started_at or evidence.attempts):
        update["reason"] = _TOLD_TO_END  # what its own result says too, which may come later than Slurm's word
    return standing.model_copy(update=update)
