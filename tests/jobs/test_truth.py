"""How a run stands, whatever of the four sources is missing, frozen, late or wrong."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.evidence import Attempt, Result
from deephpc.jobs.job import Standing
from deephpc.jobs.scheduler import Sighting
from deephpc.jobs.state import ACTIVE, FINAL, JobState
from deephpc.jobs.truth import SETTLE, Evidence, judge
from tests.fakes.samples import A_TENTH, NOON, after
from tests.fakes.schedulers import sighting

S = JobState
STARTED, ENDED, NOW = after(0), after(600), after(700)
RAN = Standing(state=S.RUNNING, started_at=STARTED, nodes="n1", attempt=1, source="queue", seen_at=after(500))
WAITED = Standing(state=S.PENDING, source="queue", seen_at=after(500))
FORGOTTEN = Evidence(queue_answered=True, accounting_answered=True)
GONE = replace(FORGOTTEN, missed_since=after(640))
SILENT = Evidence()


def result(state: JobState, code: int = 0, *, ended_by: str = "program", **facts: object) -> Result:
    known: dict[str, object] = {
        "schema_name": "deephpc.result/1", "run_id": "r", "job_id": "1", "task": None, "attempt": 1, "state": state,
        "exit_code": code, "signal": None, "ended_by": ended_by, "reason": "", "host": "n1", "nodes": "n1", "cpus": 2,
        "started_at": STARTED, "ended_at": ENDED, "elapsed_s": 600, "cpu_s": 900.0,
    }  # fmt: skip
    return Result.model_validate({**known, **facts})


def queue(state: JobState, **facts: object) -> Sighting:
    return sighting("1", state, started_at=None if state is S.PENDING else STARTED, **facts)


def book(state: JobState, **facts: object) -> Sighting:
    ended_at = ENDED if state.is_final else None
    return sighting("1", state, source="sacct", started_at=STARTED, ended_at=ended_at, **facts)


def attempt(**facts: object) -> Attempt:
    return Attempt.model_validate({"number": 1, "job_id": "1", "nodes": "n1", "started_at": STARTED, **facts})


TOLD_TO_END = result(S.CANCELLED, 143, ended_by="signal", signal=15)
CONTINUED = attempt(continues="requeue", exit_code=75, ended_at=after(690))
CASES: dict[str, tuple[Evidence, JobState, str]] = {
    # between two lives of one job
    "accounting has only the end of the last life": (
        replace(FORGOTTEN, accounting=book(S.FAILED), attempts=(CONTINUED,)), S.PENDING, "events"),
    "so has the queue": (replace(FORGOTTEN, queue=queue(S.FAILED), attempts=(CONTINUED,)), S.PENDING, "events"),
    "the next life was ended by somebody": (
        replace(FORGOTTEN, accounting=book(S.CANCELLED), attempts=(CONTINUED,)), S.CANCELLED, "accounting"),
    "it was cancelled through deephpc": (
        replace(FORGOTTEN, accounting=book(S.FAILED), attempts=(CONTINUED,), cancelled_at=after(695)), S.FAILED,
        "accounting"),
    "it never came back to the queue": (
        replace(FORGOTTEN, accounting=book(S.FAILED), attempts=(attempt(continues="requeue", ended_at=after(300)),)),
        S.FAILED, "accounting"),
    "it failed and was not continued": (
        replace(FORGOTTEN, accounting=book(S.FAILED), attempts=(attempt(),)), S.FAILED, "accounting"),
    # one source alone
    "the result is proof whoever else is silent": (Evidence(result=result(S.COMPLETED)), S.COMPLETED, "result"),
    "the result is proof after everyone forgot": (replace(FORGOTTEN, result=result(S.FAILED, 7)), S.FAILED, "result"),
    "accounting alone": (Evidence(accounting=book(S.NODE_FAIL), accounting_answered=True), S.NODE_FAIL, "accounting"),
    "the queue alone, alive": (Evidence(queue=queue(S.RUNNING), queue_answered=True), S.RUNNING, "queue"),
    "the queue alone, ended": (Evidence(queue=queue(S.TIMEOUT), queue_answered=True), S.TIMEOUT, "queue"),
    "the node's last words alone": (
        replace(FORGOTTEN, attempts=(attempt(state=S.FAILED, exit_code=7, ended_at=ENDED),)), S.FAILED, "events"),
    "told to end at the limit, killed before it wrote a result": (
        replace(FORGOTTEN, attempts=(attempt(was_terminated=True, at_limit=True),)), S.TIMEOUT, "events"),
    "told to end early, killed before it wrote a result": (
        replace(FORGOTTEN, attempts=(attempt(was_terminated=True),)), S.CANCELLED, "events"),
    # sources against each other
    "accounting has not heard of the end": (
        Evidence(queue_answered=True, accounting=book(S.RUNNING), accounting_answered=True, result=result(S.COMPLETED)),
        S.COMPLETED, "result"),
    "the queue shows a job whose result lies there as still running": (
        Evidence(queue=queue(S.RUNNING), queue_answered=True, result=result(S.COMPLETED)), S.COMPLETED, "result"),
    "the queue lags behind accounting": (
        Evidence(queue=queue(S.RUNNING), queue_answered=True, accounting=book(S.COMPLETED, exit_code=0)),
        S.COMPLETED, "accounting"),
    "accounting lags behind the queue": (
        Evidence(queue=queue(S.COMPLETED), queue_answered=True, accounting=book(S.RUNNING)), S.COMPLETED, "queue"),
    "accounting still says running and the queue is frozen": (
        Evidence(accounting=book(S.RUNNING), accounting_answered=True), S.RUNNING, "accounting"),
    # the node knows that it was told to end, the scheduler why
    "the scheduler knows that it was the time limit": (
        Evidence(queue_answered=True, accounting=book(S.TIMEOUT), accounting_answered=True, result=TOLD_TO_END),
        S.TIMEOUT, "result"),
    "the scheduler knows that it was preempted": (
        Evidence(queue=queue(S.PREEMPTED), queue_answered=True, result=TOLD_TO_END), S.PREEMPTED, "result"),
    "told to end, but the queue says failed": (
        Evidence(queue=queue(S.FAILED), queue_answered=True, result=TOLD_TO_END), S.CANCELLED, "result"),
    "told to end for a node of its own that failed": (
        Evidence(queue=queue(S.NODE_FAIL), queue_answered=True, result=TOLD_TO_END), S.NODE_FAIL, "result"),
    "cancelled through us, and its node failed after it had told how it ended": (
        Evidence(queue=queue(S.NODE_FAIL), queue_answered=True, result=TOLD_TO_END, cancelled_at=after(590)),
        S.CANCELLED, "result"),
    "its node failed before it was cancelled through us": (
        Evidence(queue=queue(S.NODE_FAIL), queue_answered=True, result=TOLD_TO_END, cancelled_at=after(650)),
        S.NODE_FAIL, "result"),
    "told to end, and nobody remembers why": (replace(FORGOTTEN, result=TOLD_TO_END), S.CANCELLED, "result"),
    "the scheduler saw the memory limit, the script only a failure": (
        Evidence(queue_answered=True, accounting=book(S.OUT_OF_MEMORY), result=result(S.FAILED, 137)),
        S.OUT_OF_MEMORY, "result"),
    "a program that succeeded although a child was killed for memory": (
        Evidence(queue_answered=True, accounting=book(S.OUT_OF_MEMORY), result=result(S.COMPLETED)),
        S.COMPLETED, "result"),
    "cancelled just after it had completed": (
        Evidence(queue=queue(S.CANCELLED), queue_answered=True, result=result(S.COMPLETED)), S.COMPLETED, "result"),
    # several lives
    "queued again after its node was taken": (
        Evidence(queue=queue(S.PENDING), queue_answered=True, result=TOLD_TO_END), S.PENDING, "queue"),
    "about to be queued again: told to end, and the queue still holds it": (
        Evidence(queue=queue(S.COMPLETING), queue_answered=True, result=TOLD_TO_END), S.COMPLETING, "queue"),
    "queued again long after it completed": (
        Evidence(queue=queue(S.PENDING), queue_answered=True, result=result(S.COMPLETED)), S.PENDING, "queue"),
    "runs again": (
        Evidence(queue=replace(queue(S.RUNNING), started_at=after(650)), queue_answered=True, result=TOLD_TO_END),
        S.RUNNING, "queue"),
    "told to end, may be queued again, and nobody can be asked": (Evidence(result=TOLD_TO_END), S.RUNNING, "queue"),
    # nobody knows
    "no source answers": (SILENT, S.RUNNING, "queue"),
    "the queue forgot it, accounting is frozen": (Evidence(queue_answered=True), S.RUNNING, "queue"),
    "accounting does not know it, the queue is frozen": (Evidence(accounting_answered=True), S.RUNNING, "queue"),
    "everyone answered and none knows it, a minute ago neither": (GONE, S.LOST, "record"),
    "it started somewhere and was never heard of again": (
        replace(GONE, attempts=(attempt(),)), S.LOST, "record"),
    "everyone answered for the first time and none knows it": (FORGOTTEN, S.RUNNING, "queue"),
    "nobody knew it a moment ago either": (replace(FORGOTTEN, missed_since=after(641)), S.RUNNING, "queue"),
    "nobody knew it a minute ago, and now the queue is silent": (
        replace(GONE, queue_answered=False), S.RUNNING, "queue"),
    "nobody knew it a minute ago, and now accounting is silent": (
        replace(GONE, accounting_answered=False), S.RUNNING, "queue"),
    "the queue does not list what accounting says is running": (
        replace(GONE, accounting=book(S.RUNNING)), S.RUNNING, "accounting"),
    "the queue does not list what accounting says is waiting": (
        replace(GONE, accounting=book(S.PENDING)), S.PENDING, "accounting"),
    "the queue does not list what accounting says is ending": (
        replace(GONE, accounting=book(S.COMPLETING)), S.COMPLETING, "accounting"),
    "nor is it cancelled by that": (
        replace(GONE, accounting=book(S.RUNNING), cancelled_at=ENDED), S.CANCELLED, "record"),
    "a word nobody ever heard": (
        Evidence(queue=queue(S.UNKNOWN, raw_state="BAKING"), queue_answered=True), S.UNKNOWN, "queue"),
    "a word nobody ever heard, and a result": (
        Evidence(queue=queue(S.UNKNOWN), queue_answered=True, result=result(S.COMPLETED)), S.COMPLETED, "result"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_stands_as_its_sources_prove(case: str):
    evidence, state, source = CASES[case]
    standing = judge(RAN, evidence, NOW)
    assert (standing.state, standing.source) == (state, source)


def test_a_job_that_left_the_queue_just_now_is_not_lost():
    known = RAN.model_copy(update={"seen_at": NOW - SETTLE + timedelta(seconds=1)})
    standing = judge(known, FORGOTTEN, NOW)
    assert standing.state is S.RUNNING
    assert "not known yet" in standing.reason


def test_a_lost_run_comes_back_with_its_result():
    lost = judge(RAN, GONE, NOW)
    assert lost.state is S.LOST
    assert judge(lost, replace(FORGOTTEN, result=result(S.COMPLETED)), NOW).state is S.COMPLETED


def test_a_run_cancelled_through_us_while_it_waited_is_cancelled_once_everyone_forgot_it():
    assert judge(WAITED, replace(GONE, cancelled_at=ENDED), NOW).state is S.CANCELLED
    assert judge(WAITED, replace(FORGOTTEN, cancelled_at=ENDED), NOW).state is S.PENDING  # one look, which may be wrong
    assert judge(WAITED, replace(SILENT, cancelled_at=ENDED), NOW).state is S.PENDING


def test_a_run_that_was_told_to_end_says_so_whoever_is_heard_first():
    by_slurm = Evidence(queue_answered=True, accounting=book(S.CANCELLED), accounting_answered=True)
    assert judge(RAN, by_slurm, NOW).reason == "", "somebody else cancelled it"
    told = judge(RAN, replace(by_slurm, cancelled_at=ENDED), NOW)
    assert (told.state, told.reason) == (S.CANCELLED, "told to end (SIGTERM)")
    never = replace(book(S.CANCELLED), started_at=None)
    assert judge(WAITED, replace(by_slurm, accounting=never, cancelled_at=ENDED), NOW).reason == ""


def test_a_site_without_accounting_needs_queue_and_result_alone():
    live = Evidence(queue=queue(S.RUNNING), queue_answered=True, accounting_answered=True)
    assert judge(WAITED, live, NOW).state is S.RUNNING
    assert judge(RAN, replace(FORGOTTEN, result=result(S.COMPLETED)), NOW).state is S.COMPLETED


def test_a_final_state_outlives_the_memory_of_every_source():
    ended = judge(RAN, Evidence(result=result(S.COMPLETED)), NOW)
    assert judge(ended, FORGOTTEN, NOW + timedelta(days=30)) == ended


def test_a_result_says_when_where_and_how_it_ended():
    standing = judge(RAN, Evidence(result=result(S.FAILED, 7, attempt=2, reason="out of luck")), NOW)
    assert (standing.exit_code, standing.attempt, standing.reason) == (7, 2, "out of luck")
    assert (standing.started_at, standing.ended_at, standing.nodes) == (STARTED, ENDED, "n1")


def test_what_the_winning_source_does_not_say_stays_as_it_was_known():
    standing = judge(RAN, Evidence(queue=sighting("1", S.FAILED), queue_answered=True), NOW)
    assert (standing.started_at, standing.ended_at, standing.nodes, standing.attempt) == (STARTED, NOW, "n1", 1)


def test_a_waiting_job_has_no_start_and_no_exit_code():
    waits = sighting("1", S.PENDING, started_at=after(9999), exit_code=0, reason="Priority")
    standing = judge(WAITED, Evidence(queue=waits, queue_answered=True), NOW)
    assert (standing.started_at, standing.exit_code, standing.reason) == (None, None, "Priority")


times = st.none() | st.integers(-1000, 2000).map(after)
states = st.sampled_from(JobState)
sightings = st.none() | st.builds(
    Sighting, job_id=st.just("1"), task=st.none(), state=states, raw_state=st.text(max_size=5), source=st.just("q"),
    reason=st.sampled_from(["", "None", "Priority"]), exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(0, 64), started_at=times, ended_at=times, restarts=st.none() | st.integers(0, 3),
)  # fmt: skip
results = st.none() | st.builds(
    result, st.sampled_from([S.COMPLETED, S.FAILED, S.CANCELLED, S.TIMEOUT, S.OUT_OF_MEMORY]),
    ended_by=st.sampled_from(["program", "signal", "setup", "script"]), ended_at=st.integers(-1000, 2000).map(after),
)  # fmt: skip
attempts = st.lists(
    st.builds(attempt, number=st.integers(1, 4), state=st.none() | states, ended_at=times,
              was_terminated=st.booleans(), at_limit=st.booleans()), max_size=3,
).map(tuple)  # fmt: skip
evidences = st.builds(
    Evidence, queue=sightings, queue_answered=st.booleans(), accounting=sightings, accounting_answered=st.booleans(),
    result=results, attempts=attempts, cancelled_at=times, missed_since=times,
)  # fmt: skip
known_standings = st.builds(
    Standing, state=states, started_at=times, ended_at=times, seen_at=times, attempt=st.integers(0, 3)
)


@A_TENTH  # costly, and no text of Slurm's
@given(known=known_standings, evidence=evidences, seconds=st.integers(-100, 10_000))
def test_a_run_is_never_called_completed_unless_some_source_said_so(known: Standing, evidence: Evidence, seconds: int):
    standing = judge(known, evidence, after(seconds))
    said = {known.state, *(one.state for one in (evidence.queue, evidence.accounting, evidence.result) if one)}
    said |= {one.state for one in evidence.attempts}
    assert standing.state is not S.COMPLETED or S.COMPLETED in said
    assert standing.state is not S.LOST or known.state is S.LOST or S.LOST in said or (
        evidence.queue_answered and evidence.accounting_answered and evidence.result is None
        and evidence.missed_since is not None and after(seconds) - evidence.missed_since >= SETTLE
        and not (evidence.accounting and evidence.accounting.state in ACTIVE)
    )  # fmt: skip


@A_TENTH  # costly, and no text of Slurm's
@given(evidence=evidences, seconds=st.integers(601, 10_000))
def test_two_looks_at_the_same_evidence_agree(evidence: Evidence, seconds: int):
    first = judge(RAN, evidence, after(seconds))
    if first.state in FINAL and first.source != "record":
        assert judge(first, evidence, after(seconds)).state is first.state
    assert first.seen_at is None or first.seen_at >= NOON
