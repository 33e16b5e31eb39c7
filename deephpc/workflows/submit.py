"""The story of `train` and `run`: decide what to submit (pure), then bring it into the queue exactly once."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from deephpc import __version__
from deephpc.config import Settings
from deephpc.containers.engine import ENGINES
from deephpc.errors import InputError, SiteError
from deephpc.jobs.evidence import write_standing
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder, write_atomically
from deephpc.jobs.scheduler import Refused, Scheduler, Submission
from deephpc.jobs.script import render_script
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.jobs.slurm_options import Dialect, render_directives
from deephpc.jobs.slurm_reasons import explain_refusal
from deephpc.jobs.spec import Dependency, Environment, JobSpec
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import Patience, describe_submitter, place, submitter_lives, write_answer
from deephpc.model import Model
from deephpc.places import shipped
from deephpc.workflows.request import JobRequest
from deephpc.workflows.source import SourceState

#: A submission that another login node has in hand is left to it this long, and a dead one may be resumed this long.
_IN_OTHER_HANDS = timedelta(minutes=2)
_RESUMABLE = timedelta(days=1)

_PASSED_ON = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|LIBRARY_PATH|PYTHONPATH|VIRTUAL_ENV|CONDA_\w+"
    r"|MAMBA_\w+|MODULE\w*|LMOD_\w+|__LMOD_\w+|_LMFILES_|_ModuleTable\w*|LOADEDMODULES|SLURM_CONF|SBATCH_\w+|SCRATCH|WORK|PROJECT"
)


class JobPlan(Model):
    """What was decided for one run; kept as `plan.json`. Holds no secret."""

    schema_name: Literal["deephpc.plan/1"] = Field(
        "deephpc.plan/1", serialization_alias="schema", validation_alias="schema"
    )
    version: str = __version__
    created_at: datetime
    site: str
    scheduler: Literal["slurm", "local"]
    engine: str = "native"
    fingerprint: str
    request: JobRequest
    spec: JobSpec
    passed_on: tuple[str, ...] = ()
    """Names of the variables of the submitting shell that the job inherits."""
    source: SourceState | None = None

    def new_job(self, submitter: str = "") -> Job:
        """Return the run as it is recorded before anything is sent."""
        spec = self.spec
        return Job(
            run_id=spec.run_id,
            token=spec.token,
            kind=spec.kind,
            target=self.request.target,
            site=self.site,
            scheduler=self.scheduler,
            folder=spec.folder,
            fingerprint=self.fingerprint,
            submitter=submitter,
            created_at=self.created_at,
            resources=spec.resources,
            state=JobState.SUBMITTING,
            tasks=dict.fromkeys(spec.array.tasks if spec.array else (), JobState.PENDING),
        )

    def render(self) -> str:
        """Return the text of `plan.json`."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


@dataclass(frozen=True, slots=True)
class NewRun:
    """What makes a run itself and no other; taken over when an unfinished submission is gone on with."""

    run_id: str
    token: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan with what belongs to it but must not stand in it."""

    plan: JobPlan
    script: str
    diff: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of --env; they go to `secrets/env.sh` alone."""


def plan_job(
    request: JobRequest,
    settings: Settings,
    new: NewRun,
    *,
    dependencies: Sequence[Dependency] = (),
    environ: Mapping[str, str],
    source: SourceState | None = None,
) -> tuple[JobPlan, str]:
    """Decide everything about a run (pure): its spec and the exact script.

    Raises
    ------
    InputError
        What was asked contradicts the site, or cannot be carried by a job script.
    """
    options = request.options
    resources = settings.resources(options.resources)
    _check_against_site(resources.partition, settings)
    environment = settings.environment
    spec = JobSpec(
        run_id=new.run_id,
        token=new.token,
        kind=request.kind,
        folder=settings.work_dir / new.run_id,
        command=ENGINES["native"].argv(request.command),
        workdir=request.workdir,
        resources=resources,
        environment=Environment(
            modules=options.modules or environment.modules,
            setup=environment.setup,
            variables=environment.variables,
            venv=options.venv or environment.venv or options.active_venv,
        ),
        array=options.array,
        dependencies=tuple(dependencies),
        max_requeues=settings.max_requeues if options.max_requeues is None else options.max_requeues,
        grace=settings.grace if options.grace is None else options.grace,
        mail=options.mail,
        raw_options=options.raw_options,
        has_secrets=bool(options.variable_names),
    )
    plan = JobPlan(
        created_at=new.created_at,
        site=settings.site.name,
        scheduler="local" if settings.scheduler == "local" else "slurm",
        fingerprint=request.fingerprint(settings.site.name, settings.work_dir),
        request=request,
        spec=spec,
        passed_on=tuple(sorted(job_environment(environ))),
        source=source,
    )
    return plan, script_of(spec, settings)


def script_of(spec: JobSpec, settings: Settings) -> str:
    """Return the job script of a spec on a site.

    Raises
    ------
    InputError
        The words are too long for a script.
    """
    dialect = Dialect(gpu_request=settings.site.gpu_request, memory_request=settings.site.memory_request)
    slurms = spec if settings.scheduler != "local" else spec.model_copy(update={"dependencies": ()})  # ids of its own
    try:
        return render_script(spec, render_directives(slurms, dialect))
    except ValueError as error:
        raise InputError(str(error), "pass long lists in a file") from error


def job_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a job inherits from the submitting shell: what is loaded there, not what is secret there (pure).

    Slurm keeps a job's environment in its controller and shows it to administrators and, on many sites, to the job's
    account; so only the variables of the login itself, of modules, conda and venvs, and the user's SBATCH_… pass.
    """
    return {name: value for name, value in environment_for_sbatch(environ).items() if _PASSED_ON.fullmatch(name)}


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
    resumed: Job | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[Job, str]:
    """Record, write the run folder, submit. Return the run and one line of warning or "".

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
    job = _take_in_hand(record, plan, resumed)
    _write_or_leave_nothing(folder, ready, record, is_new=resumed is None)
    submission = Submission(spec=spec, script=folder.script, environment=job_environment(environ))
    try:
        placed = place(
            submission, scheduler, created_at=job.created_at, may_be_queued=resumed is not None, patience=patience
        )
    except Refused as refusal:
        reason = str(refusal)
        gone = {
            "state": JobState.FAILED,
            "raw_state": "REFUSED",
            "reason": reason,
            "submitter": "",
            "ended_at": plan.created_at,
        }
        refused = record.change(job.run_id, lambda known: known.model_copy(update=gone), plan.created_at, reason)
        write_standing(folder, refused, refused.tasks)
        raise InputError(
            f"the job was refused: {reason} (asked for: {spec.resources.describe() or 'the defaults'})",
            f"{explain_refusal(reason)}; its script stays in {folder.path}",
        ) from refusal
    write_answer(folder, placed.job_id, plan.created_at)
    return record.change(
        job.run_id, lambda known: accepted(known, placed.job_id, plan.created_at), plan.created_at
    ), placed.warning


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


def _take_in_hand(record: Record, plan: JobPlan, resumed: Job | None) -> Job:
    me = describe_submitter()
    if resumed is not None:

        def take(known: Job) -> Job:
            if known.submitter != resumed.submitter or known.job_id is not None:
                raise SiteError(
                    f"run {known.run_id} was taken on by another command just now", "see `deephpc jobs`", transient=True
                )
            return known.model_copy(update={"submitter": me, "state": JobState.SUBMITTING, "reason": ""})

        return record.change(resumed.run_id, take, plan.created_at, "gone on with")
    job = plan.new_job(me)
    record.add(job)
    return job


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
    if ready.variables:
        folder.secrets.mkdir(mode=0o700, exist_ok=True)
        lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in ready.variables.items())
        write_atomically(folder.secret_env, lines)
    write_atomically(folder.script, ready.script, mode=0o700)


def _check_against_site(partition: str | None, settings: Settings) -> None:
    known = settings.site.partitions
    if partition is not None and known and settings.site.name != "generic":
        missing = [name for name in partition.split(",") if name not in known]
        if missing:
            raise InputError(
                f"site {settings.site.name} has no partition {missing[0]!r}",
                f"it has {', '.join(sorted(known))}; `deephpc site init --force` reads them anew",
            )


def load_plan(folder: RunFolder) -> JobPlan | None:
    """Read `plan.json`; None where there is none that this version understands."""
    try:
        return JobPlan.model_validate_json(folder.plan.read_bytes())
    except (OSError, ValueError):
        return None


def render_plan_json(plan: JobPlan, script: str) -> str:
    """Return what `--dry-run --json` prints."""
    return json.dumps({"plan": json.loads(plan.render()), "script": script}, indent=2)
