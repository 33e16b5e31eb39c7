"""Decides what a run is, before anything is touched (pure): JobPlan, and the exact script."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from deephpc import __version__
from deephpc.config import Settings
from deephpc.containers.container import JUPYTER_SERVER, MODULE_PROGRAM, MODULE_SERVER, Container
from deephpc.containers.engine import NATIVE
from deephpc.data.data_source import StagedData
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.launcher import plan_launch
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.script import render_script
from deephpc.jobs.slurm_controller import clusters_meant, without_clusters
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.jobs.slurm_options import Dialect, render_directives
from deephpc.jobs.spec import Collection, Dependency, Environment, Gateway, JobSpec
from deephpc.jobs.state import JobState
from deephpc.model import Model
from deephpc.workflows.partition_limits import check_limits
from deephpc.workflows.passed_on import is_passed_on
from deephpc.workflows.request import JobRequest
from deephpc.workflows.source import SourceState

if TYPE_CHECKING:
    from deephpc.workflows.in_image import Enclosed

_NOUNS = {"train": "training", "run": "run", "predict": "batch", "serve": "server"}


class JobPlan(Model):
    """What was decided for one run; kept as `plan.json`. Holds no secret."""

    schema_name: Literal["deephpc.plan/1"] = Field(
        "deephpc.plan/1", serialization_alias="schema", validation_alias="schema"
    )
    version: str = __version__
    created_at: datetime
    site: str
    scheduler: Literal["slurm", "local"]
    engine: str = NATIVE
    container: Container | None = None
    """How the run uses its image; None for a native run."""
    data: tuple[StagedData, ...] = ()
    """What was staged for it."""
    fingerprint: str
    request: JobRequest
    spec: JobSpec
    passed_on: tuple[str, ...] = ()
    """Names of the variables of the submitting shell that the job inherits."""
    source: SourceState | None = None
    clusters: tuple[str, ...] = ()
    """Where it may go, of several clusters; empty for the one it is submitted on."""

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

    def with_data(self, data: Sequence[StagedData]) -> "JobPlan":
        """Return the plan with what was staged for it, bound into its image where it has one."""
        from deephpc.workflows.run_data import showing_data  # start-up time: plans are read far more often than made

        container = self.container and showing_data(self.container, data)
        return self.model_copy(update={"data": tuple(data), "container": container})

    def render(self) -> str:
        """Return the text of `plan.json`."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


@dataclass(frozen=True, slots=True)
class NewRun:
    """What makes a run itself and no other; taken over when an unfinished submission is gone on with."""

    run_id: str
    token: str
    created_at: datetime


def plan_job(
    request: JobRequest,
    settings: Settings,
    new: NewRun,
    *,
    dependencies: Sequence[Dependency] = (),
    environ: Mapping[str, str],
    source: SourceState | None = None,
    enclosed: "Enclosed | None" = None,
) -> tuple[JobPlan, str]:
    """Decide everything about a run (pure): its spec and the exact script.

    Raises
    ------
    InputError
        What was asked contradicts the site, or cannot be carried by a job script.
    """
    spec = _spec(request, settings, new, dependencies)
    reserved = has_reservation(spec.raw_options, environ)
    check_limits(spec.resources, settings.site, f"this {_NOUNS[spec.kind]}", has_reservation=reserved)
    if enclosed is not None:
        spec = spec.model_copy(update={"command": enclosed.words, "in_container": True})
    plan = JobPlan(
        created_at=new.created_at,
        site=settings.site.name,
        scheduler="local" if settings.scheduler == "local" else "slurm",
        engine=_engine(request, enclosed),
        container=enclosed.container if enclosed else None,
        fingerprint=request.fingerprint(settings.site.name, settings.work_dir),
        request=request,
        spec=spec,
        passed_on=tuple(sorted(job_environment(environ))),
        source=source,
        clusters=clusters_meant(environ, request.options.raw_options) if settings.scheduler != "local" else (),
    )
    return plan, script_of(spec, settings)


def has_reservation(raw_options: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a job names a reservation, which may allow more than its partition does (pure)."""
    return bool(environ.get("SBATCH_RESERVATION")) or any(word.startswith("--reservation=") for word in raw_options)


def _engine(request: JobRequest, enclosed: "Enclosed | None") -> str:
    if enclosed is None:
        return NATIVE
    return enclosed.container.engine if enclosed.container else request.options.image.engine


def _spec(request: JobRequest, settings: Settings, new: NewRun, dependencies: Sequence[Dependency]) -> JobSpec:
    options = request.options
    site = settings.site
    resources, launch = plan_launch(
        options.launcher, settings.resources(options.resources), mpi=site.mpi, interface=site.network_interface
    )
    _check_against_site(resources.partition, settings)
    if options.chain and options.array:
        raise InputError(
            "--chain does not go with --array: each task would need jobs of its own",
            "leave --chain out, so that tasks are queued again, or submit them one by one",
        )
    environment = settings.environment
    return JobSpec(
        run_id=new.run_id,
        token=new.token,
        kind=request.kind,
        folder=settings.work_dir / new.run_id,
        command=_native_words(request.command, settings.work_dir / new.run_id),
        workdir=request.workdir,
        resources=resources,
        environment=Environment(
            modules=options.modules or environment.modules,
            loaded_modules=() if options.modules or environment.modules else options.loaded_modules,
            has_modules=options.has_modules,
            setup=environment.setup,
            variables=environment.variables,
            venv=options.venv or environment.venv or options.active_venv,
        ),
        array=options.array,
        dependencies=tuple(dependencies),
        max_requeues=settings.max_requeues if options.max_requeues is None else options.max_requeues,
        chain=options.chain and settings.scheduler != "local",
        grace=_grace(options.grace, settings.grace, resources.walltime),
        mail=options.mail,
        raw_options=options.raw_options,
        has_secrets=bool(options.variable_names),
        launch=launch,
        gateway=_gateway(request),
        collection=Collection(python=Path(sys.executable), cache_dir=settings.cache_dir) if options.collect else None,
        node_scratch=site.node_scratch,
    )


def _grace(asked: timedelta | None, usual: timedelta, walltime: timedelta | None) -> timedelta:
    """Return how long before its limit a program is told: as asked for; else as usual, at most half of the limit."""
    if asked is not None:
        return asked
    return usual if walltime is None else min(usual, walltime / 2)


def _gateway(request: JobRequest) -> Gateway | None:
    """Return what stands before a server: the very deephpc that is asked for it."""
    if request.service is None:
        return None
    return Gateway(python=Path(sys.executable), port_variable=request.service.port_variable)


def _native_words(command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Return the words of a run without an image; our own programs lie in the run folder then."""
    ours = (MODULE_PROGRAM, MODULE_SERVER, JUPYTER_SERVER)
    return tuple(str(folder / "container" / Path(word).name) if word in ours else word for word in command)


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
    account; so only the variables of the login itself, of modules, conda and venvs, the user's SBATCH_…, and those by
    which Slurm's commands find their controller pass. Clusters are named to sbatch itself, not to what runs in the job.
    """
    passed = without_clusters(environment_for_sbatch(environ))
    return {name: value for name, value in passed.items() if is_passed_on(name)}


def load_plan(folder: RunFolder) -> JobPlan | None:
    """Read `plan.json`; None where there is none that this version understands."""
    try:
        return JobPlan.model_validate_json(folder.plan.read_bytes())
    except (OSError, ValueError):
        return None


def _check_against_site(partition: str | None, settings: Settings) -> None:
    known = settings.site.partitions
    if partition is not None and known and settings.site.name != "generic":
        missing = [name for name in partition.split(",") if name not in known]
        if missing:
            raise InputError(
                f"site {settings.site.name} has no partition {missing[0]!r}",
                f"it has {', '.join(sorted(known))}; `deephpc site init --force` reads them anew",
            )
