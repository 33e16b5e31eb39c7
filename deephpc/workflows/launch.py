"""One submission from request to queue: look for an unfinished one, plan, carry out."""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from deephpc.account import account_name
from deephpc.config import Settings
from deephpc.data.data_source import StagedData
from deephpc.data.location import join
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import NameTaken, Record
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Scheduler
from deephpc.jobs.submission import planned_clusters
from deephpc.serve.secret_arguments import render_secrets
from deephpc.serve.service import SERVICE, render_service
from deephpc.workflows.dependencies import resolve_dependencies
from deephpc.workflows.image_upkeep import hold_image
from deephpc.workflows.in_image import Enclosed
from deephpc.workflows.overlap import refuse_overlap
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobRequest
from deephpc.workflows.source import COMMAND_FILES, load_source_state, render_command_files
from deephpc.workflows.submit import Ready, carry_out, find_unfinished
from deephpc.workflows.work_dirs import remember_work_dir

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with what must not enter its plan."""

    request: JobRequest
    variables: Mapping[str, str]
    environ: Mapping[str, str]
    enclosed: Enclosed | None = None
    """Its image, made ready; None for a native run."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What else belongs into its run folder: path in it → text."""
    copies: Mapping[str, Path] = field(default_factory=dict)
    """Files of the user's that belong there too: path in it → file."""
    data: tuple[StagedData, ...] = ()
    """Its data, staged."""


def prepare(asked: Asked, settings: Settings, record: Record | None, now: datetime) -> tuple[Ready, Job | None]:
    """Plan a run, or the rest of one whose submission never got an answer; touches nothing.

    Parameters
    ----------
    record
        None where there is none yet (`--dry-run` makes none).
    """
    secrets = asked.enclosed.secrets if asked.enclosed else {}
    request = asked.request
    if asked.enclosed is not None and secrets:
        request = request.model_copy(update={"command": asked.enclosed.words})  # which are starred
    resumed = find_unfinished(record, request, settings, now) if record else None
    new = (
        NewRun(resumed.run_id, resumed.token, resumed.created_at)
        if resumed
        else new_run(request, settings, record, now)
    )
    scheduler = "local" if settings.scheduler == "local" else "slurm"
    dependencies = resolve_dependencies(request.options.dependency, record, scheduler)
    source, diff = load_source_state(_source_folder(request)) if request.program == "own" else (None, "")
    plan, script = plan_job(
        request,
        settings,
        new,
        dependencies=dependencies,
        environ=asked.environ,
        source=source,
        enclosed=asked.enclosed,
    )
    collect, folder = request.options.collect, plan.spec.folder
    if collect is not None and collect.startswith("/"):
        refuse_overlap(folder, [Path(collect, plan.spec.run_id)], "give --collect another folder than that of the runs")
    begun = planned_clusters(resumed.files) if resumed else None
    if begun is not None:  # where its job may be already, whatever is meant by now
        plan = plan.model_copy(update={"clusters": begun})
    files = {**asked.files, **render_secrets(secrets)}
    if request.service is not None:
        files[SERVICE] = render_service(request.service)
    own = render_command_files(request.command, request.workdir) if request.program == "own" else ""
    if own:
        files[COMMAND_FILES] = own
    return Ready(plan.with_data(asked.data), script, diff, asked.variables, files, asked.copies), resumed


def _source_folder(request: JobRequest) -> Path:
    return Path(request.command[1]).parent if request.kind == "train" else request.workdir


def launch(
    asked: Asked, settings: Settings, record: Record, scheduler: Scheduler, clock: Callable[[], datetime]
) -> tuple[Job, tuple[str, ...], bool]:
    """Bring a request into the queue exactly once; return the run, what to tell, and whether it was gone on with.

    Raises
    ------
    InputError, SiteError
        As `carry_out` does.
    """
    request = asked.request.options
    remember_work_dir(settings.state_dir, settings.work_dir)
    for _ in range(_TRIES):
        ready, resumed = prepare(asked, settings, record, clock())
        if request.collect is not None:
            record.transfers.expect(ready.plan.spec.run_id, join(request.collect, ready.plan.spec.run_id), clock())
        try:
            job, heard = carry_out(ready, record, scheduler, environ=asked.environ, clock=clock, resumed=resumed)
        except NameTaken:  # the same command, at the same moment, was faster: this is the next run of it
            continue
        if asked.enclosed is not None and asked.enclosed.container is not None:
            unfinished = {each.run_id for each in record.unfinished()}
            hold_image(asked.enclosed.container, job.run_id, account_name(), unfinished)
        return job, heard, resumed is not None
    raise InputError(f"no free name for {asked.request.slug!r} was found", "choose another --name")


def new_run(request: JobRequest, settings: Settings, record: Record | None, now: datetime) -> NewRun:
    """Choose id and token of a new run (pure but for the question whether they are taken).

    They follow from the request and from how often it was made before, so that `--dry-run` shows the very script that
    the next real run sends.
    """
    fingerprint = request.fingerprint(settings.site.name, settings.work_dir)
    for number in itertools.count(record.count(fingerprint) if record else 0):
        digest = hashlib.sha256(f"{fingerprint}\0{number}".encode()).hexdigest()
        run_id = f"{request.kind}-{request.slug}-{digest[:4]}"
        is_taken = (record is not None and record.has(run_id)) or RunFolder(settings.work_dir / run_id).path.exists()
        if not is_taken:
            return NewRun(run_id=run_id, token=digest[4:36], created_at=now)
    raise AssertionError("count() does not end")
