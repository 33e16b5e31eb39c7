"""The story of `train` and `run` after the plan: record, write the run folder, submit exactly once."""

import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from deephpc.config import Settings
from deephpc.containers.container import JUPYTER_SCRIPT, MODULE_SCRIPTS
from deephpc.data.data_source import write_links
from deephpc.errors import InputError, SiteError
from deephpc.jobs.evidence import write_standing
from deephpc.jobs.job import Job
from deephpc.jobs.launcher import LAUNCH_SCRIPTS
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder, unwritable, write_atomically
from deephpc.jobs.scheduler import Refused, Scheduler, Submission
from deephpc.jobs.slurm_reasons import explain_refusal
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import Patience, describe_submitter, place, submitter_lives, write_answer
from deephpc.places import shipped
from deephpc.workflows.conversion import copy_scripts, write_scripts
from deephpc.workflows.plan import JobPlan, job_environment
from deephpc.workflows.request import JobRequest

#: A submission that another login node has in hand is left to it this long, and a dead one may be resumed this long.
_IN_OTHER_HANDS = timedelta(minutes=2)
_RESUMABLE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan with what belongs to it but must not stand in it."""

    plan: JobPlan
    script: str
    diff: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of --env; they go to `secrets/env.sh` alone."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What else belongs into the run folder: path in it → text."""
    copies: Mapping[str, Path] = field(default_factory=dict)
    """Files that belong there too: path in it → file."""


def find_unfinished(record: Record, request: JobRequest, settings: Settings, now: datetime) -> Job | None:
    """Return the run of this very request whose submission never got an answer, if its command is dead.

    Raises
    ------
    SiteError
        Another login node has had it in hand for less than two minutes (transient).
    """
    fingerprint = request.fingerprint(settings.site.name, settings.work_dir)
    for job in record.unsent(fingerprint, now - _RESUMABLE):
        lives = submitter_lives(job.submitter)
        if lives is None and now - job.created_at < _IN_OTHER_HANDS:
            raise SiteError(
                f"run {job.run_id} of this very command is being submitted on {job.submitter.split()[0]}",
                "wait two minutes if that command was killed; give another --name to run it twice",
                transient=True,
            )
        if not lives:
            return job
    return None


def carry_out(
    ready: Ready,
    record: Record,
    scheduler: Scheduler,
    *,
    environ: Mapping[str, str],
    clock: Callable[[], datetime],
    resumed: Job | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[Job, tuple[str, ...]]:
    """Record, write the run folder, submit. Return the run and what the user should hear, a line each.

    Parameters
    ----------
    resumed
        The recorded run to go on with; its id and token are those of the plan.

    Raises
    ------
    InputError
        The scheduler refused the job; the run folder stays, recorded as FAILED.
    SiteError
        Nothing can be written (nothing is left behind), or no clear answer came (the run stays SUBMITTING).
    """
    plan, spec = ready.plan, ready.plan.spec
    folder = RunFolder(spec.folder)
    job = _take_in_hand(record, plan, resumed, clock())
    _write_or_leave_nothing(folder, ready, record, is_new=resumed is None)
    submission = Submission(
        spec=spec, script=folder.script, environment=job_environment(environ), clusters=plan.clusters
    )
    try:
        placed = place(
            submission, scheduler, created_at=job.created_at, may_be_queued=resumed is not None, patience=patience
        )
    except Refused as refusal:
        raise _refused(ready.plan, record, str(refusal), clock()) from refusal
    now = clock()
    write_answer(folder, placed.job_id, now, placed.said)
    heard = (*filter(None, [placed.warning]), *(f"the site says: {line}" for line in placed.said))
    return record.change(job.run_id, lambda known: accepted(known, placed.job_id, now), now), heard


def accepted(job: Job, job_id: str, at: datetime) -> Job:
    """Return a run the scheduler has confirmed; one that a look found further on already stays there (pure)."""
    update: dict[str, object] = {
        "job_id": job_id,
        "submitted_at": job.submitted_at or at,
        "submitter": "",
        "seen_at": at,
    }
    if job.state.is_unsent or job.job_id is None:
        update |= {"state": JobState.PENDING, "reason": "", "source": "queue"}
    return job.model_copy(update=update)


def _take_in_hand(record: Record, plan: JobPlan, resumed: Job | None, now: datetime) -> Job:
    me = describe_submitter()
    if resumed is not None:

        def take(known: Job) -> Job:
            if known.submitter != resumed.submitter or known.job_id is not None:
                raise SiteError(
                    f"run {known.run_id} was taken on by another command just now", "see `deephpc jobs`", transient=True
                )
            return known.model_copy(update={"submitter": me, "state": JobState.SUBMITTING, "reason": ""})

        return record.change(resumed.run_id, take, now, "gone on with")
    job = plan.new_job(me)
    record.add(job)
    return job


def _refused(plan: JobPlan, record: Record, reason: str, now: datetime) -> InputError:
    """Record that the scheduler said no, and return the error that says so; the script stays to be looked at."""
    spec = plan.spec
    update = {"state": JobState.FAILED, "raw_state": "REFUSED", "reason": reason, "submitter": "", "ended_at": now}
    job = record.change(spec.run_id, lambda known: known.model_copy(update=update), now, reason)
    write_standing(RunFolder(spec.folder), job, job.tasks)
    return InputError(
        f"the job was refused: {reason} (asked for: {spec.resources.describe() or 'the defaults'})",
        f"{explain_refusal(reason)}; its script stays in {spec.folder}",
    )


def _write_or_leave_nothing(folder: RunFolder, ready: Ready, record: Record, *, is_new: bool) -> None:
    """Write the run folder; a new run that cannot be written leaves neither folder nor row."""
    is_ours = False
    try:
        if is_new or not folder.path.is_dir():
            folder.create()
            is_ours = True
        _write_run_folder(folder, ready)
    except BaseException:
        if is_ours:
            shutil.rmtree(folder.path, ignore_errors=True)
        if is_new:
            record.forget(ready.plan.spec.run_id)
        raise


def _write_run_folder(folder: RunFolder, ready: Ready) -> None:
    write_atomically(folder.plan, ready.plan.render())
    write_atomically(
        folder.path / "sample_usage.py", (shipped("jobscripts") / "sample_usage.py").read_text(encoding="utf-8")
    )
    if ready.diff:
        write_atomically(folder.path / "source.diff", ready.diff)
    for name, text in ready.files.items():
        (folder.path / name).parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(folder.path / name, text)
    for name, source in ready.copies.items():
        _copy(source, folder.path / name)
    if ready.plan.data:
        write_links(folder.path / "data", ready.plan.data)
    if ready.variables:
        folder.secrets.mkdir(mode=0o700, exist_ok=True)
        lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in ready.variables.items())
        write_atomically(folder.secret_env, lines)
    if ready.plan.container is not None:
        names = (*ready.plan.spec.environment.variables, *ready.variables, *_told_by_gateway(ready.plan))
        write_scripts(ready.plan.container, folder.container, folder.path, names)
    elif ready.plan.request.program == "module":
        copy_scripts((MODULE_SCRIPTS,), folder.container)
    if ready.plan.spec.gateway is not None:
        copy_scripts((JUPYTER_SCRIPT,), folder.container)
    if ready.plan.spec.launch is not None:
        copy_scripts(LAUNCH_SCRIPTS, folder.container)
    write_atomically(folder.script, ready.script, mode=0o700)


def _told_by_gateway(plan: JobPlan) -> tuple[str, ...]:
    gateway = plan.spec.gateway
    return (gateway.port_variable,) if gateway is not None and gateway.port_variable else ()


def _copy(source: Path, target: Path) -> None:
    """Copy a file of the user's into the run folder, owner-only.

    Raises
    ------
    InputError
        It cannot be read.
    SiteError
        The run folder cannot be written.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}", "is it the right file?") from error
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(content)
    except OSError as error:
        raise unwritable(target.parent, error) from error
