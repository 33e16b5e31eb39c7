"""`deephpc serve …`."""

import contextlib
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import Context, context
from deephpc.cli.logs import logs
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import (
    DryRun,
    Models,
    ReadyBatch,
    enclose,
    fit_to_module,
    submit,
    with_surroundings_as_trained,
)
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.containers.container import Container
    from deephpc.jobs.job import Job
    from deephpc.jobs.record import Record
    from deephpc.serve.endpoint import ServiceKind
    from deephpc.workflows.request import JobRequest
    from deephpc.workflows.serve import ServeWords
    from deephpc.workflows.serving import Desk

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Start, list, watch and stop servers that run as jobs.\n\n"
    "Example: deephpc serve start plankton --gpus-per-node 1 --time 2:00:00",
)

#: A server is one process on one node, and its target is the image.
_OPTIONS = tuple(
    f.name for f in fields(JobOptionWords) if f.name not in ("array", "image", "launcher", "nodes", "tasks_per_node")
)
ServerId = Annotated[
    str, typer.Argument(metavar="ID", help="Server, or start of its id.", autocompletion=complete_run_id)
]
_Target = Annotated[
    str | None,
    typer.Argument(
        help="A module, an image with one in it, or a training run, whose models are served then. With --service "
        "jupyter or --command the image they run in; natively without one.",
        autocompletion=complete_run_id,
        show_default=False,
    ),
]
_Service = Annotated[
    str | None, typer.Option(help="deepaas (if nothing is said), jupyter or command.", show_default=False)
]
_Command = Annotated[
    str | None,
    typer.Option(
        help="A server of your own; it listens on the UNIX socket $DEEPHPC_SOCKET, or see --port-env.",
        metavar="COMMAND",
        show_default=False,
    ),
]
_PortVariable = Annotated[
    str | None,
    typer.Option(
        help="Variable that tells the command its port of 127.0.0.1, which other users of the node reach too.",
        metavar="NAME",
        show_default=False,
    ),
]
_Sample = Annotated[
    list[str] | None,
    typer.Option(
        help="Argument of the first prediction; files are copied. Made up where none is given; repeatable.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
_FirstPrediction = Annotated[
    bool,
    typer.Option(
        "--first-prediction/--no-first-prediction", help="Count it as ready only once a prediction has succeeded."
    ),
]
_ReadyWithin = Annotated[
    str | None,
    typer.Option(help="Give it up when it is not ready after: 15 (minutes), 0:00:30. 15 minutes if not said."),
]
_IdleStop = Annotated[
    str | None, typer.Option(help="End it when nobody used it for: 30 (minutes), 2:00:00.", show_default=False)
]
_NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once it is submitted.")]


def start(
    *,
    ctx: typer.Context,
    words: JobOptionWords,
    target: _Target = None,
    service: _Service = None,
    command: _Command = None,
    port_env: _PortVariable = None,
    models: Models = None,
    sample: _Sample = None,
    first_prediction: _FirstPrediction = True,
    ready_within: _ReadyWithin = None,
    idle_stop: _IdleStop = None,
    no_wait: _NoWait = False,
    dry_run: DryRun = False,
) -> None:
    """Serve a module in a job, with a token and a certificate of its own, and return when it is ready.

    Prints the server's id. Example: deephpc serve start train-plankton-7f3a --gpus-per-node 1 --time 2:00:00
    """
    from deephpc.workflows.serve import ServeWords

    asked = ServeWords(
        target=target,
        service=_service_kind(service),
        command=command,
        port_variable=port_env,
        models=models,
        samples=tuple(sample or ()),
        predicts_first=first_prediction,
        ready_within_s=_seconds("--ready-within", ready_within),
        idle_stop_s=_seconds("--idle-stop", idle_stop),
    )
    here = context(ctx)
    job = _submit(here, words, asked, dry_run=dry_run)
    if job is not None and not no_wait:
        with here.open_record() as record:
            _stay(here, record, job)


app.command("start")(takes_job_options(start, only=_OPTIONS))
app.command("logs")(logs)


@app.command("list")
def list_servers(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many, newest first.")] = 50,
) -> None:
    """List servers, newest first, with their stage, node, time left and URL.

    Example: deephpc serve list --all
    """
    from deephpc.jobs.record import JobFilter
    from deephpc.jobs.state import FINAL, JobState
    from deephpc.render.jobs import describe_cut
    from deephpc.render.serve import render_servers
    from deephpc.workflows.servers import gather_servers
    from deephpc.workflows.watch import refresh

    here = context(ctx)
    with here.open_record() as record:
        troubles = refresh(record, here.schedulers, here.clock())
        states = () if everything else tuple(state for state in JobState if state not in FINAL)
        wanted = JobFilter(states=states, kind="serve", limit=limit)
        jobs, tally = record.find(wanted), record.tally(wanted)
        ended = 0 if jobs else record.tally(JobFilter(kind="serve")).matching
    servers, more = gather_servers(jobs)
    for line in (*troubles, *more):
        here.say(f"note: {line}")
    write_answer(render_servers(servers, (*troubles, *more), here.clock(), as_json=here.json, ended=ended))
    if jobs and not here.json and (cut := describe_cut(min(limit, tally.matching), tally)):
        here.say(cut)


@app.command()
def status(
    ctx: typer.Context,
    server: ServerId,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is ready, as `serve start` does.")] = False,
) -> None:
    """Show how a server stands: its stages, where it is reached, and what it answers now.

    Example: deephpc serve status serve-plankton-91c2
    """
    from deephpc.render.serve import render_server
    from deephpc.workflows.servers import ask_server, gather_server

    here = context(ctx)
    with here.open_record() as record:
        job = _find(here, record, server)
        if wait:
            _stay(here, record, job)
            job = record.get(job.run_id)
    found = gather_server(job)
    reply = None if job.state.is_final else ask_server(job)
    write_answer(render_server(found, reply, here.clock(), as_json=here.json))


@app.command()
def stop(
    ctx: typer.Context,
    servers: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="Servers, or starts of their ids.", autocompletion=complete_run_id),
    ],
    dry_run: DryRun = False,
) -> None:
    """End servers, and return when nothing is left of them.

    Example: deephpc serve stop serve-plankton-91c2
    """
    from deephpc.render.serve import render_stopped
    from deephpc.workflows.servers import gather_server
    from deephpc.workflows.serving import stop_server

    here = context(ctx)
    with here.open_record() as record:
        found = [_find(here, record, server) for server in servers]
        told = [not job.state.is_final for job in found]
        if not dry_run:
            found = [stop_server(job, _desk(here, record)) for job in found]
    stopped = list(zip(map(gather_server, found), told, strict=True))
    write_answer(render_stopped(stopped, as_json=here.json, is_dry=dry_run))


def _submit(here: Context, words: JobOptionWords, asked: "ServeWords", *, dry_run: bool) -> "Job | None":
    from deephpc.workflows.serve import check_jupyter, load_serve_request, plan_service

    options, variables = load_options(words, here.environ, Path.cwd(), here.settings.pass_env)
    with here.open_record_if_any() as record:
        draft = load_serve_request(asked, Path.cwd(), options, record)
    missing = check_jupyter(draft, here.settings.environment, here.environ.get("PATH", os.defpath))
    if missing:
        here.say(f"note: {missing}")
    draft, variables = with_surroundings_as_trained(here, fit_to_module(here, draft, "inference"), variables)
    enclosed, description = enclose(here, draft, dry_run=dry_run)
    if enclosed is not None and enclosed.container is not None and not dry_run:
        _look_for_program(here, draft, enclosed.container, variables)
    plan = plan_service(draft, asked, description, Path.cwd())
    if plan.answering.note:
        here.say(f"note: {plan.answering.note}")
    if enclosed is not None:
        enclosed = replace(enclosed, words=(*enclosed.words, *plan.answering.words))
    batch = ReadyBatch({}, enclosed, plan.copies)
    return submit(here, plan.request, variables, dry_run=dry_run, wait=False, batch=batch)


def _look_for_program(
    here: Context, request: "JobRequest", container: "Container", variables: "dict[str, str]"
) -> None:
    """Refuse a server whose image lacks its program, or note that only what the user brings may have it."""
    from deephpc.cli.image_places import image_desk
    from deephpc.workflows.serve import check_program_inside

    missing = check_program_inside(request, container, image_desk(here), variables)
    if missing:
        here.say(f"note: {missing}")


def _stay(here: Context, record: "Record", job: "Job") -> None:
    """Show the stages until the server is ready."""
    from deephpc.render.serve import describe_stage, describe_ways
    from deephpc.workflows.serving import wait_until_ready

    since = job.submitted_at or job.created_at
    try:
        server = wait_until_ready(job, _desk(here, record), lambda stage: here.say(describe_stage(stage, since)))
    except KeyboardInterrupt:
        here.say(
            f"\n{job.run_id} goes on; `deephpc serve status {job.run_id} --wait` shows it again, "
            f"`deephpc serve stop {job.run_id}` ends it"
        )
        raise
    for line in describe_ways(server):
        here.say(line)


def _find(here: Context, record: "Record", word: str) -> "Job":
    """Return a server as it stands now."""
    from deephpc.workflows.servers import service_of
    from deephpc.workflows.watch import refresh

    job, _ = record.resolve(word)
    service_of(job)
    for line in refresh(record, here.schedulers, here.clock(), only=[job]):
        here.say(f"note: {line}")
    return record.get(job.run_id)


def _desk(here: Context, record: "Record") -> "Desk":
    from deephpc.workflows.serving import Desk

    return Desk(record, here.schedulers, here.clock)


def _service_kind(word: str | None) -> "ServiceKind | None":
    from deephpc.serve.endpoint import ServiceKind

    for kind in get_args(ServiceKind):
        if word == kind:
            return kind  # type: ignore[no-any-return]  # one of the Literal's words
    if word is not None:
        raise InputError(f"--service {word!r} is not known", f"one of {', '.join(get_args(ServiceKind))}")
    return None


def _seconds(option: str, text: str | None) -> float | None:
    from deephpc.jobs.slurm_units import parse_walltime

    if text is None:
        return None
    with contextlib.suppress(ValueError):
        length = parse_walltime(text)
        if length:
            return length.total_seconds()
    raise InputError(f"{option} {text!r} is no length of time", "write 30 (minutes), 2:00:00 or 0:00:30")
