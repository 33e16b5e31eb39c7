"""Says in words why a run waits or how it ended, and what to do next."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from deephpc.jobs.evidence import Attempt, Result, load_attempts, load_result
from deephpc.jobs.job import Job, Standing
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import TaskFolder
from deephpc.jobs.scheduler import Scheduler, Submission, id_of_task
from deephpc.jobs.slurm_outlook import Outlook
from deephpc.jobs.slurm_reasons import Explanation, explain_end, explain_pending, explain_refusal, explain_running
from deephpc.jobs.state import JobState
from deephpc.jobs.truth import REQUEUES
from deephpc.model import Model
from deephpc.workflows.chain import waits_for_successor
from deephpc.workflows.failures import recognise
from deephpc.workflows.idle import describe_idle
from deephpc.workflows.logs import read_tail
from deephpc.workflows.plan import JobPlan, job_environment, load_plan
from deephpc.workflows.unstarted import explain_stop

_LAST_LINES = 15
_TELLING_LINES = 200
_LOG_TELLS = (JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.TIMEOUT, JobState.NODE_FAIL, JobState.LOST)
_OLD_CHECKPOINTS = "a rerun gets a new checkpoint folder; the old checkpoints lie in"
_SITES_DOING = (JobState.NODE_FAIL, JobState.PREEMPTED, JobState.BOOT_FAIL, JobState.FAILED)
_USE_ALL = "start a process on each node, or for each GPU: --launcher (docs/how-to/train-on-many-nodes.md)"
_CONTINUE = 75
"""With which a program asks to be continued (EX_TEMPFAIL of sysexits.h)."""
_ASKED_TOO_EARLY = "it had asked to be continued (exit code 75), which is done at a time limit alone"
_UNHEARD = "nothing in its program listened for SIGUSR1, which tells it before its end (--grace)"
_LISTEN = "to save what it has, let it listen: docs/how-to/survive-the-time-limit.md"
_CRASHES = frozenset({6, 7, 11})
_CRASHED = re.compile(r"signal (6|7|11)\b")
_PROOT = "or proot itself crashed, as it does now and then: try --engine apptainer or udocker-r"
#: How Python, and programs of coreutils, name a place that cannot be written (errno EROFS).
_READ_ONLY = re.compile("(?:Read-only file system: |cannot [a-z ]+)['‘](?P<path>/[^'’]*)['’]")
_WRITE_ELSEWHERE = (
    "bind a folder of yours there (--bind DIR:FOLDER), say by --env where to write (many modules know MODELS_PATH), "
    "or take an engine that lets modules write (apptainer, udocker-r)"
)
_REFUSED = 2
"""With which the program that drives modules (jobscripts/deepaas_module.py) ends when arguments do not fit."""
_AFTER_A_BATCH = "`deephpc predict --results RUN` shows what has no result; `--resume RUN` predicts that"
#: What to do where the job script gave up before the program, by how its reason begins.
_SETUP_HINTS = {
    "cannot enter": "the folder you submit from must exist on the nodes: submit from one that they share",
    "module load": "the module must exist on the nodes: check its name with `module avail`",
    "cannot activate": "the venv must exist on the nodes: put it on a file system that they share",
    "the image does not start": "`deephpc site probe --nodes` tries the engines; --engine takes another one",
    "deephpc is not on": "install deephpc in a folder that the nodes see, and submit from there",
    "--bind": "give folders that exist on the nodes",
    "udocker-f shows nothing": "--engine takes another one, which binds there",
    "apptainer is not on": "`deephpc site probe --nodes` looks again; --engine takes another one",
    "apptainer cannot": "`deephpc image verify` checks the image; the whole story is in the log",
    "started": "`deephpc jobs show RUN` and `logs RUN` tell why it kept ending; submit it with more --max-requeues",
}


class Diagnosis(Model):
    """What is the matter with a run, and the next step."""

    run_id: str
    state: JobState
    raw_state: str
    text: str
    next_step: str
    last_lines: tuple[str, ...] = ()
    """The end of its log, where that tells more."""
    source: str = ""
    """Who told the state."""
    as_of: datetime | None = None
    """From when the state is, where no source has told it now."""
    outlook: Outlook | None = None
    """When it may start, where it waits and Slurm tells."""


def look_ahead(job: Job, task: int | None, scheduler: Scheduler | None, environ: Mapping[str, str]) -> Outlook | None:
    """Ask when a run, or one task of its array, may start (login node); None where it does not wait."""
    if scheduler is None or job.job_id is None or job.state_of(task) is not JobState.PENDING:
        return None
    plan = load_plan(job.files)
    submission = None
    if plan is not None:
        submission = Submission(spec=plan.spec, script=job.files.script, environment=job_environment(environ))
    return scheduler.outlook(id_of_task(job.job_id, task), submission)


def diagnose(job: Job, task: int | None, record: Record | None = None, now: datetime | None = None) -> Diagnosis:
    """Explain how a run, or one task of its array, stands (login node).

    Parameters
    ----------
    record
        Tells of the runs this one waits for.
    """
    one, number = job.alone(task), _telling_task(job) if task is None else task
    files = job.files.task(number)
    name = job.run_id if number is None else f"{job.run_id}_{number}"
    told = _explain(job, one, files, record)
    if task is None and job.tasks and job.state.is_final and job.kind != "predict":  # what completed is not run again
        again = told.next_step.replace("`deephpc jobs rerun RUN", "`deephpc jobs rerun RUN --failed")
        told = replace(told, next_step=again)
    told = _with_results(told, job, record, now)
    meant = job.run_id if task is None or job.kind == "predict" else name
    told = told.naming(meant, job.job_id and id_of_task(job.job_id, number))
    is_gone = job.job_id is not None and not job.folder.exists()
    return Diagnosis(
        run_id=name,
        state=one.state,
        raw_state=one.raw_state,
        text=told.text + (f"; its run folder {job.folder} is gone" if is_gone else ""),
        next_step=told.next_step,
        last_lines=_last_lines(files.log) if one.state in _LOG_TELLS and files.log.is_file() else (),
        source=one.source,
        as_of=one.stale_since(now) if now else None,
    )


def _with_results(told: Explanation, job: Job, record: Record | None, now: datetime | None) -> Explanation:
    """Add that the results of a run wait, and why, where they were to leave and have not."""
    if record is None or now is None or job.run_id not in record.transfers.owed(now):
        return told
    from deephpc.workflows.deliveries import find_owed  # start-up time: it loads all that moves data

    for owed in find_owed(record, now, [job.run_id]):
        last, collect = owed.last, f"deephpc collect {job.run_id}"
        if last.is_under_way(now):
            return replace(told, text=f"{told.text}; its job is sending its results to {last.destination}")
        why = f": {last.reason}" if last.reason else ""
        return Explanation(
            f"{told.text}; its results are not all at {last.destination}{why}",
            f"{told.next_step}; `{collect}` sends its results, `{collect} DEST` sends them elsewhere, "
            f"`{collect} --forget` leaves them here",
        )
    return told


def _last_lines(log: Path, number: int = _LAST_LINES) -> tuple[str, ...]:
    """Return the end of a log as a terminal would show it: of a progress bar its last state."""
    text = read_tail(log, number).decode(errors="replace")
    return tuple(line.rstrip("\r").rpartition("\r")[2] for line in text.removesuffix("\n").split("\n"))


def _telling_task(job: Job) -> int | None:
    """Return the first task of an array that ended as badly as the whole."""
    if not job.tasks or not job.state.is_final:
        return None
    return next((number for number in sorted(job.tasks) if job.tasks[number] is job.state), None)


def _explain(job: Job, one: Job, files: TaskFolder, record: Record | None) -> Explanation:
    """Explain a run, or `one` task of its array."""
    state = one.state
    if job.raw_state == "REFUSED":
        return Explanation(f"the scheduler refused it: {job.reason}", explain_refusal(job.reason))
    if state.is_unsent:
        return Explanation(
            "the scheduler has not confirmed it yet", "repeat the command that made it; it goes on with this run"
        )
    if state.is_final:
        return _explain_final(job, one, files, record)
    if state is JobState.PENDING:
        return _explain_dependency(job, files, record) or _explain_waiting(job, files)
    return explain_running(one.raw_state) if state is JobState.RUNNING else explain_end(state)


def _explain_final(job: Job, one: Job, files: TaskFolder, record: Record | None) -> Explanation:
    if one.state is JobState.COMPLETED:
        return _explain_completed(one, files)
    if one.state is JobState.LOST:
        return _explain_lost(one)
    may_wait = one.state is JobState.CANCELLED and job.cancelled_at is None
    return (_explain_dependency(job, files, record) if may_wait else None) or _explain_end(one, files)


def _explain_completed(one: Job, files: TaskFolder) -> Explanation:
    ended, plan = explain_end(one.state), load_plan(one.files)
    idle = describe_idle(plan, files) if plan is not None else ""
    if not idle:
        return ended
    return Explanation(f"{ended.text}; {idle} did nothing", f"{_USE_ALL}, or ask for less")


def _explain_lost(one: Job) -> Explanation:
    if one.job_id is None:
        return Explanation(one.reason, "repeat the command that made it; it goes on with this run")
    return Explanation(
        one.reason or "no source knows this job any more",
        "look at its log below and its output; run it again with `deephpc jobs rerun RUN`",
    )


def _explain_waiting(job: Job, files: TaskFolder) -> Explanation:
    """Explain why a run waits: for its first start, or to be continued."""
    told = _explain_pending(job)
    attempts = load_attempts(files)
    if not attempts:
        return told
    last = attempts[-1]
    how = f"asked to be continued (exit code {last.exit_code})" if last.continues else "was cut short"
    if waits_for_successor(job):
        told = Explanation(job.reason, "look again with `deephpc jobs`: it is submitted then")
    return replace(told, text=f"attempt {last.number} {how}; the next one waits: {told.text}")


def _explain_pending(job: Job) -> Explanation:
    if job.reason == REQUEUES:
        return Explanation("its job is being queued again", "look again with `deephpc jobs`")
    if job.state is not JobState.PENDING:
        return Explanation("its turn has not come; other tasks of its array have begun", "nothing to do but wait")
    return explain_pending(job.reason)


def _explain_dependency(job: Job, files: TaskFolder, record: Record | None) -> Explanation | None:
    """Explain a run that never started because one that it waits for ended otherwise."""
    plan = load_plan(job.files)
    if plan is None or record is None or load_attempts(files):
        return None
    for dependency in plan.spec.dependencies:
        for other in (record.get(run_id) for run_id in dependency.run_ids if record.has(run_id)):
            completed = other.state is JobState.COMPLETED
            wants_success = dependency.kind in ("afterok", "aftercorr")
            if (
                other.state.is_final
                and (wants_success or dependency.kind == "afternotok")
                and wants_success != completed
            ):
                fate = "completed" if completed else f"did not complete ({other.state.value})"
                next_step = f"`deephpc why {other.run_id}` says why; then submit this one again"
                return Explanation(f"{other.run_id} {fate}, so it never started", next_step)
    return None


def _explain_end(one: Job, files: TaskFolder) -> Explanation:
    result = load_result(files)
    if result is not None and result.ended_by == "setup":
        return _explain_setup(result)
    stopped = explain_stop(one, files)
    if stopped is not None:
        return stopped
    fate: Standing = Standing(state=one.state, exit_code=result.exit_code, signal=result.signal) if result else one
    attempts = load_attempts(files)
    given_mib = attempts[-1].memory_mib if attempts else None
    ended = explain_end(one.state, fate.exit_code, fate.signal, one.resources.memory_mib, given_mib)
    says_nothing = one.exit_code is None and one.signal is None
    reason = result.reason if result else (one.reason if says_nothing else "")
    if one.folder.exists() and not attempts and one.state in _SITES_DOING and one.job_id:
        return Explanation(
            f"{ended.text}; the program never started, so the site is at fault",
            "run it again: `deephpc jobs rerun RUN`",
        )
    if one.state is JobState.NODE_FAIL:
        ended = replace(ended, text=_lost_node(one, files))
    ended = _with_what_it_heard(ended, one, attempts, fate.exit_code)
    plan = load_plan(one.files) if one.state is JobState.FAILED else None
    if one.state is JobState.FAILED and files.log.is_file():
        known = recognise(_last_lines(files.log, _TELLING_LINES), plan)
        ended = ended if known is None else Explanation(f"{ended.text}: {known.text}", known.next_step)
    if plan is not None and plan.request.program == "module" and fate.exit_code == _REFUSED:
        ended = _explain_refused_arguments(plan)
    elif plan is not None:
        ended = replace(ended, next_step=f"{ended.next_step}{_entrypoint(plan)}")
    crashed = (fate.signal or (fate.exit_code or 0) - 128) in _CRASHES or _CRASHED.search(reason)
    if plan is not None and plan.engine.startswith("udocker-p") and crashed:
        ended = replace(ended, next_step=f"{ended.next_step}; {_PROOT}")
    closed = _closed_place(files.log) if plan is not None and plan.container is not None else None
    if closed is not None:
        ended = replace(ended, next_step=f"{closed} is read-only in {plan.engine}: {_WRITE_ELSEWHERE}")  # type: ignore[union-attr]
    if one.kind == "predict":
        ended = replace(ended, next_step=_AFTER_A_BATCH)
    if files.checkpoints.is_dir() and any(files.checkpoints.iterdir()):
        ended = replace(ended, next_step=f"{ended.next_step}; {_OLD_CHECKPOINTS} {files.checkpoints}")
    return replace(ended, text=f"{ended.text} ({reason})") if reason and one.state is JobState.FAILED else ended


def _with_what_it_heard(ended: Explanation, one: Job, attempts: Sequence[Attempt], code: int | None) -> Explanation:
    """Add that nobody in it listened when its end was near, or that it asked to go on where that is not done."""
    if one.state in (JobState.TIMEOUT, JobState.PREEMPTED) and attempts and attempts[-1].told is False:
        return Explanation(f"{ended.text}; {_UNHEARD}", f"{ended.next_step}; {_LISTEN}")
    if one.state is JobState.CANCELLED and code == _CONTINUE:
        return replace(ended, text=f"{ended.text}; {_ASKED_TOO_EARLY}")
    return ended


def _closed_place(log: Path) -> str | None:
    """Return the last place that a log says could not be written, as its file system is read-only there."""
    lines = _last_lines(log) if log.is_file() else ()
    found = [match["path"] for line in lines if "Read-only file system" in line and (match := _READ_ONLY.search(line))]
    return found[-1] if found else None


def _explain_refused_arguments(plan: JobPlan) -> Explanation:
    """Explain the end of a module that was given what it does not take."""
    return Explanation(
        "the module refused its arguments, before anything began: the last line of its log says which",
        f"`deephpc module show {shlex.quote(plan.request.target)}` says what it takes",
    )


def _entrypoint(plan: JobPlan) -> str:
    """Say that the program of an image took the user's words as its arguments, where it did."""
    words, given = plan.spec.command, plan.request.command
    if plan.request.program != "image" or not given or words == given:
        return ""
    entry = shlex.join(words[: len(words) - len(given)])
    how = "`deephpc run --image IMAGE -- …` starts them themselves"
    return f"; the image's ENTRYPOINT ({entry}) was given your words: {how}"


def _lost_node(one: Job, files: TaskFolder) -> str:
    """Return which node failed, and why the run was not queued again."""
    plan, attempts = load_plan(one.files), load_attempts(files)
    nodes = one.nodes or (attempts[-1].nodes if attempts else "")
    which = "a node it ran on failed" if not nodes or "," in nodes or "[" in nodes else f"its node {nodes} failed"
    among = f" (it ran on {nodes})" if nodes and nodes not in which else ""
    allowed = plan.spec.max_requeues if plan else None
    if allowed == 0:
        among += "; it may not be queued again (--max-requeues 0)"
    elif allowed is not None and sum(not one.free for one in attempts[1:]) >= allowed:
        among += f"; its {allowed} requeues are used"
    return which + among


def _explain_setup(result: Result) -> Explanation:
    hints = (hint for start, hint in _SETUP_HINTS.items() if result.reason.startswith(start))
    begun = result.reason if result.reason.startswith("started") else f"the program never started: {result.reason}"
    return Explanation(begun, next(hints, "see the end of `deephpc logs RUN`"))
