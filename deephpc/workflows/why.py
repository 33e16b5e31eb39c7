"""Says in words why a run waits or how it ended, and what to do next."""

from pathlib import Path

from deephpc.jobs.evidence import load_attempts, load_result
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.slurm_reasons import Explanation, explain_end, explain_pending, explain_refusal
from deephpc.jobs.state import JobState
from deephpc.model import Model
from deephpc.workflows.logs import read_tail

_LAST_LINES = 15


class Diagnosis(Model):
    """What is the matter with a run, and the next step."""

    run_id: str
    state: JobState
    raw_state: str
    text: str
    next_step: str
    last_lines: tuple[str, ...] = ()
    """The end of its log, where that tells more."""


def diagnose(job: Job, task: int | None) -> Diagnosis:
    """Explain how a run, or one task of its array, stands (login node)."""
    task = _telling_task(job) if task is None else task
    state = job.state if task is None else job.tasks[task]
    explanation = _explain(job, task, state)
    name = job.run_id if task is None else f"{job.run_id}_{task}"
    log = job.files.task(task).log
    wanted = state in (JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.TIMEOUT, JobState.NODE_FAIL, JobState.LOST)
    lines = _last_lines(log) if wanted and log.is_file() else ()
    return Diagnosis(
        run_id=name,
        state=state,
        raw_state=job.raw_state,
        text=explanation.text,
        next_step=explanation.next_step,
        last_lines=lines,
    )


def _last_lines(log: Path) -> tuple[str, ...]:
    """Return the end of a log as a terminal would show it: of a progress bar its last state."""
    text = read_tail(log, _LAST_LINES).decode(errors="replace")
    return tuple(line.rstrip("\r").rpartition("\r")[2] for line in text.removesuffix("\n").split("\n"))


def _telling_task(job: Job) -> int | None:
    """Return the first task of an array that ended as badly as the whole."""
    if not job.tasks or not job.state.is_final:
        return None
    return next((number for number in sorted(job.tasks) if job.tasks[number] is job.state), None)


def _explain(job: Job, task: int | None, state: JobState) -> Explanation:
    if job.raw_state == "REFUSED":
        return Explanation(f"the scheduler refused it: {job.reason}", explain_refusal(job.reason))
    if state.is_unsent:
        return Explanation(
            "the scheduler has not confirmed it yet", "repeat the command that made it; it goes on with this run"
        )
    if state is JobState.LOST:
        return _explain_lost(job)
    if state is JobState.PENDING:
        return explain_pending(job.reason)
    if state.is_final and state is not JobState.COMPLETED:
        return _explain_end(job, task, state)
    return explain_end(state)


def _explain_lost(job: Job) -> Explanation:
    if job.job_id is None:
        return Explanation(job.reason, "repeat the command that made it; it goes on with this run")
    return Explanation(
        job.reason or "no source knows this job any more",
        f"look at its log below and its output; run it again with `deephpc jobs rerun {job.run_id}`",
    )


def _explain_end(job: Job, task: int | None, state: JobState) -> Explanation:
    result = load_result(job.files.task(task))
    fate: Standing = Standing(state=state, exit_code=result.exit_code, signal=result.signal) if result else job
    ended = explain_end(state, fate.exit_code, fate.signal, job.resources.memory_mib)
    says_nothing = job.exit_code is None and job.signal is None
    reason = result.reason if result else (job.reason if says_nothing else "")
    attempts = load_attempts(job.files.task(task))
    if (
        not attempts
        and state in (JobState.NODE_FAIL, JobState.PREEMPTED, JobState.BOOT_FAIL, JobState.FAILED)
        and job.job_id
    ):
        return Explanation(
            f"{ended.text}; the program never started, so the site is at fault",
            f"run it again: deephpc jobs rerun {job.run_id}",
        )
    return Explanation(
        f"{ended.text} ({reason})" if reason and state is JobState.FAILED else ended.text, ended.next_step
    )
