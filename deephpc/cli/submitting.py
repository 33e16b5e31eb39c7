"""What `train`, `run` and `jobs rerun` do once they know what to run."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.homecoming import bring_home
from deephpc.cli.queue_line import queue_line
from deephpc.cli.streams import write_answer
from deephpc.errors import InputError, SiteError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deephpc.cli.context import Context
    from deephpc.data.data_source import StagedData
    from deephpc.jobs.job import Job
    from deephpc.jobs.record import Record
    from deephpc.serve.module_description import ModuleDescription
    from deephpc.workflows.in_image import Enclosed, ImageDesk
    from deephpc.workflows.module_resources import Use
    from deephpc.workflows.request import JobRequest

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and the exact script, and do nothing.")]
Wait = Annotated[
    bool, typer.Option("--wait", "-w", help="Show the output and end as the run ends; exit 6 if it fails.")
]

Models = Annotated[
    str | None,
    typer.Option(
        help="What to use instead of the image's own models: a training run, or a folder.",
        metavar="RUN|DIR",
        autocompletion=complete_run_id,
        show_default=False,
    ),
]

_SHOWN_NAMES = 6


@dataclass(frozen=True)
class ReadyBatch:
    """What a batch of predictions, or a server, brings to its submission."""

    files: Mapping[str, str]
    enclosed: "Enclosed | None" = None
    """Its image, where that was made ready before."""
    copies: Mapping[str, Path] = field(default_factory=dict)
    """Files of the user's for its run folder: path in it → file."""


def submit(
    here: "Context",
    request: "JobRequest",
    variables: Mapping[str, str],
    *,
    dry_run: bool,
    wait: bool,
    batch: ReadyBatch | None = None,
) -> "Job | None":
    """Submit a request and print the run's id; with --wait stay until it ends. Returns nothing of a dry run.

    Raises
    ------
    ProgramError
        The run did not complete (only with `wait`).
    """
    from deephpc.render.answer import visible
    from deephpc.render.jobs import render_plan, render_submitted
    from deephpc.serve.secret_arguments import PRIVATE_ARGUMENTS, parse_secrets
    from deephpc.workflows.launch import Asked, launch, prepare

    more = batch or ReadyBatch({})
    if request.options.collect is not None and not dry_run:
        _try_target(here, request.options.collect)
    enclosed = more.enclosed
    if enclosed is None:
        enclosed, _ = enclose(here, request, dry_run=dry_run, kept=parse_secrets(more.files.get(PRIVATE_ARGUMENTS)))
    data = stage_data(here, request, dry_run=dry_run)
    asked = Asked(request, variables, here.environ, enclosed, more.files, more.copies, data)
    _tell_of_variables(here, variables)
    _tell_of_grace(here, request)
    _tell_of_limits(here, request)
    if dry_run:
        with here.open_record_if_any() as record:
            ready, _ = prepare(asked, here.settings, record, here.clock())
        write_answer(render_plan(ready.plan, ready.script, as_json=here.json))
        return None
    with here.open_record() as record:
        scheduler = here.scheduler()
        job, heard, was_resumed = launch(asked, here.settings, record, scheduler, here.clock)
        if was_resumed:
            here.say(f"note: went on with run {job.run_id}, whose submission had got no answer")
        for line in heard:
            here.say(f"note: {visible(line)}")
        try:
            write_answer(render_submitted(job, as_json=here.json))
        except SiteError as error:
            raise SiteError(f"run {job.run_id} is submitted, but {error.message}", error.hint) from error
        if wait:
            stay(here, record, job)
    return job


def with_surroundings_as_trained(
    here: "Context", request: "JobRequest", variables: dict[str, str]
) -> "tuple[JobRequest, dict[str, str]]":
    """Complete a request's `--env` and `--bind` by those of the training whose models it takes, and say so."""
    from deephpc.workflows.trained import surroundings_as_trained

    request, completed, added = surroundings_as_trained(request, variables)
    if added:
        here.say(f"note: {', '.join(added)} as the training had {'it' if len(added) == 1 else 'them'}")
    return request, completed


def fit_to_module(here: "Context", request: "JobRequest", use: "Use") -> "JobRequest":
    """Complete a request by what the catalogue says its module needs, if it is one of the catalogue.

    Raises
    ------
    InputError
        The catalogue has no such module, or the partition has less than the job asks for.
    """
    from deephpc.containers.reference import ModuleImage, parse_target

    target = parse_target(request.target) if request.program == "module" else None
    if not isinstance(target, ModuleImage):
        return request
    from deephpc.cli.image_places import find_module, module_image
    from deephpc.workflows.module_resources import fit_module

    try:
        module = find_module(here, target.module)
    except InputError:
        if request.options.image.engine != "native":  # where it is installed here, wherever it comes from
            module_image(here, target)  # the store may have what the catalogue has not
        return request
    fit = fit_module(module, use, request.options.resources, here.settings)
    for line in fit.notes:
        here.say(line)
    return request.model_copy(update={"options": request.options.model_copy(update={"resources": fit.asked})})


def enclose(
    here: "Context", request: "JobRequest", *, dry_run: bool, kept: "Mapping[str, JsonValue] | None" = None
) -> "tuple[Enclosed | None, ModuleDescription | None]":
    """Make the image of a run ready, or in a dry run foresee it, and ask a module in it what it declares.

    None for what a native run has not, or nobody could tell.

    Parameters
    ----------
    kept
        As `checked_training` has it.
    """
    from deephpc.workflows.in_image import runs_in_image

    if not runs_in_image(request):
        return None, None
    from deephpc.cli.image_places import image_desk
    from deephpc.render.image import showing_progress
    from deephpc.workflows.in_image import foresee, make_ready

    desk = image_desk(here)
    if dry_run:
        enclosed = foresee(request, desk)
        if enclosed.container is None:
            here.say(
                "note: the image is not here yet, or the nodes were not asked for their engines; a real run does both"
            )
        return _check_module(request, enclosed, desk, kept, ask=False)
    with showing_progress(quiet=here.options.quiet) as progress:
        enclosed = make_ready(request, replace(desk, progress=progress))
    return _check_module(request, enclosed, desk, kept)


def described(here: "Context", request: "JobRequest") -> "ModuleDescription":
    """Return what the module of a request says of itself, asked in its image.

    Raises
    ------
    EngineError
        Nobody on this machine can ask it.
    """
    from deephpc.errors import EngineError

    _, description = enclose(here, request.model_copy(update={"kind": "predict"}), dry_run=False)
    if description is None:
        raise EngineError(
            f"the module of {request.target} cannot be asked on this machine",
            "a note above may say why; else it needs the engine here, and a converted image: `deephpc doctor`",
        )
    return description


def stage_data(here: "Context", request: "JobRequest", *, dry_run: bool) -> "tuple[StagedData, ...]":
    """Stage the data of a run, or in a dry run say what is known of them.

    Raises
    ------
    DataError
        Something could not be brought; the same command goes on.
    """
    sources = request.options.data
    if not sources:
        return ()
    from deephpc.render.data import showing_progress
    from deephpc.workflows.data_places import open_places
    from deephpc.workflows.run_data import bring_data, foresee_data

    places = open_places(here.environ, here.home, request.workdir, here.settings.cache_dir)
    if dry_run:
        return foresee_data(sources, places)
    with showing_progress(quiet=here.options.quiet) as progress:
        return bring_data(sources, places, here.say, progress)


def _check_module(
    request: "JobRequest",
    enclosed: "Enclosed",
    desk: "ImageDesk",
    kept: "Mapping[str, JsonValue] | None",
    *,
    ask: bool = True,
) -> "tuple[Enclosed, ModuleDescription | None]":
    """Ask a module what it declares, and check the arguments of its training against that."""
    if request.program != "module":
        return enclosed, None
    from deephpc.workflows.module_use import checked_training, describe_module, with_files, with_folders
    from deephpc.workflows.request import selecting_words

    described = describe_module(enclosed, desk, selecting_words(request.target, request.options.image), ask=ask)
    enclosed = with_folders(enclosed, described)
    if request.kind == "train":
        enclosed = with_files(checked_training(enclosed, described, request.workdir, _own_options(), kept), described)
    return enclosed, described


def _try_target(here: "Context", place: str) -> None:
    """Refuse a run whose results have nowhere to go; say so where that is not known now."""
    from deephpc.cli.homecoming import storage_places
    from deephpc.workflows.collect_target import try_target

    doubt = try_target(place, storage_places(here, 1))
    if doubt is not None:
        here.say(f"note: {doubt}; the run's results are sent there all the same when it ends")


def _own_options() -> tuple[str, ...]:
    """Return the options of a command that submits, as they are written."""
    from deephpc.cli.options import JobOptionWords

    names = (*(f.name for f in fields(JobOptionWords)), "wait", "dry_run")
    return tuple(f"--{name.replace('_', '-')}" for name in names)


def _tell_of_variables(here: "Context", variables: Mapping[str, str]) -> None:
    """Note which variables that are set here the run does not follow, or may miss."""
    from deephpc.jobs.slurm_environment import contradicting_sbatch_variables
    from deephpc.workflows.passed_on import left_out

    for name in contradicting_sbatch_variables(here.environ):
        here.say(f"note: {name} is set in your shell and is not passed on; deephpc decides that itself")
    given = {*variables, *here.settings.environment.variables}
    missed = left_out(here.environ, here.settings.pass_env, given)
    if missed:
        shown = ", ".join(missed[:_SHOWN_NAMES]) + (", …" if len(missed) > _SHOWN_NAMES else "")
        verb = "is" if len(missed) == 1 else "are"
        here.say(
            f"note: {shown} {verb} set here and not in the job: --env NAME for one run, pass_env in config.toml for all"
        )


def with_launcher(here: "Context", request: "JobRequest", asked: str | None) -> "JobRequest":
    """Complete a request by how its ranks are started, where `--launcher` leaves that open, and say so."""
    from deephpc.jobs.launcher import AUTO
    from deephpc.workflows.launcher_choice import choose_launcher

    if asked not in (None, AUTO) or request.options.launcher is not None:
        return request
    launcher, told = choose_launcher(request, here.settings.resources(request.options.resources))
    if told:
        here.say(f"note: {told}")
    return request.model_copy(update={"options": request.options.model_copy(update={"launcher": launcher})})


def _tell_of_grace(here: "Context", request: "JobRequest") -> None:
    """Say so when the time limit leaves no room for the grace period that was asked for, or is not known."""
    limit, grace = here.settings.resources(request.options.resources).walltime, request.options.grace
    is_local = here.settings.scheduler == "local"
    if not grace or (limit is not None and limit > grace):
        return
    if limit is not None:
        why = f"has no effect: the time limit of {limit} is too short for it"
    else:
        why = (
            "has no effect without --time" if is_local else "counts from the cluster's own limit, as no --time is known"
        )
    here.say(f"note: --grace {grace.total_seconds():.0f} {why}")


def _tell_of_limits(here: "Context", request: "JobRequest") -> None:
    """Say so when a job asks for more than its partition allows, and may be allowed more."""
    from deephpc.workflows.partition_limits import describe_excess
    from deephpc.workflows.plan import has_reservation

    wanted, site = here.settings.resources(request.options.resources), here.settings.site
    if not wanted.qos and not has_reservation(request.options.raw_options, here.environ):
        return
    beyond = describe_excess(wanted, site)
    if beyond:
        who = f"--qos {wanted.qos}" if wanted.qos else "the reservation"
        here.say(f"note: {beyond}; it never starts unless {who} allows that")


def stay(here: "Context", record: "Record", job: "Job") -> None:
    """Show a run's output on stderr until it ends.

    Raises
    ------
    ProgramError
        It did not complete.
    """
    from deephpc.workflows.logs import follow_log

    write = (lambda _: None) if here.options.quiet else sys.stderr.buffer.write
    try:
        with queue_line(here) as show:

            def emit(data: bytes) -> None:
                show(())
                write(data)
                sys.stderr.flush()

            job = follow_log(
                record,
                here.schedulers,
                job,
                None,
                emit,
                clock=here.clock,
                look=lambda now: show([now]),
                environ=here.environ,
            )
    except KeyboardInterrupt:
        here.say(
            f"\nrun {job.run_id} goes on; `deephpc logs -f {job.run_id}` shows it again, `deephpc jobs cancel` ends it"
        )
        raise
    bring_home(here, record, [job.run_id], wait=True)
    conclude(here, [job])


def conclude(here: "Context", jobs: "list[Job]") -> None:
    """Say how runs ended.

    Raises
    ------
    ProgramError
        One of them did not complete.
    """
    from deephpc.errors import ProgramError
    from deephpc.jobs.state import JobState
    from deephpc.render.jobs import describe_end

    failed = [job for job in jobs if job.state is not JobState.COMPLETED]
    for job in jobs:
        if job not in failed:
            here.say(describe_end(job))
    if failed:
        raise ProgramError("; ".join(describe_end(job) for job in failed), f"deephpc why {failed[0].run_id}")
