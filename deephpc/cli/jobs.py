"""`deephpc jobs …` and `deephpc why`."""

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import context
from deephpc.cli.homecoming import bring_home
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.queue_line import queue_line
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import DryRun, Wait, conclude, submit, with_launcher
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.jobs.record import JobFilter

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    help="List, show, wait for, cancel and rerun jobs.\n\n"
    "Alone it lists. Example: deephpc jobs --state FAILED --since 7-0",
)

RunId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Run, start of its id, scheduler's id; RUN_N for an array task.",
        autocompletion=complete_run_id,
    ),
]
RunIds = Annotated[
    list[str], typer.Argument(metavar="ID", help="Runs, or starts of their ids.", autocompletion=complete_run_id)
]
State = Annotated[
    list[str] | None, typer.Option("--state", "-s", help="Only runs in this state; repeatable.", show_default=False)
]
Kind = Annotated[str | None, typer.Option(help="Only `train`, `run`, `predict` or `serve`.", show_default=False)]
Since = Annotated[
    str | None, typer.Option(help="Only runs made in the last: 30 (minutes), 12:00:00, 7-0 (days).", show_default=False)
]
Text = Annotated[
    str | None, typer.Option("--text", help="Only runs with this in their id or target.", show_default=False)
]
#: Options with which a run may be submitted again.
_CHANGEABLE = (
    "time", "mem", "partition", "account", "qos", "gpus_per_node", "cpus_per_task", "nodes", "max_requeues",
)  # fmt: skip
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many, newest first.")]


@app.callback()
def _alone(
    ctx: typer.Context,
    state: State = None,
    kind: Kind = None,
    since: Since = None,
    text: Text = None,
    limit: Limit = 50,
) -> None:
    if ctx.invoked_subcommand is None:
        list_jobs(ctx, state=state, kind=kind, since=since, text=text, limit=limit)


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    state: State = None,
    kind: Kind = None,
    since: Since = None,
    text: Text = None,
    limit: Limit = 50,
) -> None:
    """List runs, newest first, as they stand now.

    Example: deephpc jobs list --state RUNNING --state PENDING
    """
    from deephpc.render.jobs import describe_cut, render_jobs
    from deephpc.workflows.watch import refresh

    here = context(ctx)
    wanted = _filter(here.clock(), state, kind, since, text, limit)
    with here.open_record() as record:
        troubles = refresh(record, here.schedulers, here.clock(), environ=here.environ)
        bring_home(here, record)
        jobs, tally = record.find(wanted), record.tally(wanted)
        troubles = (*troubles, *record.troubles)
    for line in troubles:
        here.say(f"note: {line}")
    write_answer(render_jobs(jobs, troubles, here.clock(), as_json=here.json, tally=tally))
    if jobs and not here.json and (cut := describe_cut(min(limit, tally.matching), tally)):
        here.say(cut)


@app.command()
def show(ctx: typer.Context, run: RunId) -> None:
    """Show everything about a run: its plan, attempts, use of resources, cost, metrics, and where it all lies.

    Example: deephpc jobs show train-digits-7f3a
    """
    from deephpc.render.jobs import render_detail
    from deephpc.workflows.detail import gather_detail
    from deephpc.workflows.watch import refresh

    here = context(ctx)
    with here.open_record() as record:
        job, task = record.resolve(run)
        for line in refresh(record, here.schedulers, here.clock(), environ=here.environ):
            here.say(f"note: {line}")
        bring_home(here, record, [job.run_id])
        job = record.get(job.run_id)
        detail = gather_detail(job, task, record, here.schedulers.get(job.scheduler), here.clock())
    write_answer(render_detail(detail, as_json=here.json))


@app.command()
def wait(
    ctx: typer.Context,
    runs: RunIds,
    timeout: Annotated[
        str | None, typer.Option(help="Give up after: 30 (minutes), 2:00:00; exit 3.", show_default=False)
    ] = None,
) -> None:
    """Wait until runs, or tasks of an array (RUN_N), end; exit 0 if all completed, 6 if one did not.

    Example: deephpc jobs wait train-digits-7f3a --timeout 2:00:00
    """
    from deephpc.render.jobs import render_jobs
    from deephpc.workflows.watch import wait_for

    here = context(ctx)
    with here.open_record() as record:
        found = [record.resolve(run) for run in runs]
        wanted = [(job.run_id, task) for job, task in found]
        limit = _duration("--timeout", timeout)
        with queue_line(here) as show:
            jobs = wait_for(
                record,
                here.schedulers,
                wanted,
                clock=here.clock,
                timeout=limit,
                tell=here.say,
                look=show,
                environ=here.environ,
            )
        bring_home(here, record, [run_id for run_id, _ in wanted], wait=True)
    if here.json:
        write_answer(render_jobs(jobs, (), here.clock(), as_json=True))
    conclude(here, jobs)


@app.command()
def cancel(ctx: typer.Context, runs: RunIds, dry_run: DryRun = False) -> None:
    """End runs, or tasks of an array (RUN_N); the program gets SIGTERM first.

    Prints what was told to end. Example: deephpc jobs cancel train-digits-7f3a sweep-lr-02c1_7
    """
    from deephpc.render.jobs import render_cancelled
    from deephpc.workflows.keep import cancel_jobs, plan_cancel
    from deephpc.workflows.watch import refresh

    here = context(ctx)
    with here.open_record() as record:
        for line in refresh(record, here.schedulers, here.clock()):
            here.say(f"note: {line}")
        wanted = plan_cancel(runs, record, here.schedulers)
        if not dry_run:
            cancel_jobs(wanted, record, here.schedulers, here.clock())
    write_answer(render_cancelled(wanted, as_json=here.json, is_dry=dry_run))


Failed = Annotated[bool, typer.Option("--failed", help="Only the tasks of an array that did not complete.")]


def rerun(
    ctx: typer.Context,
    words: JobOptionWords,
    runs: RunIds,
    failed: Failed = False,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Submit a run, or tasks of an array (RUN_N), again as asked for, under a new id; options change what it asks for.

    Example: deephpc jobs rerun train-digits-7f3a --time 4:00:00
    """
    from deephpc.cli.submitting import ReadyBatch
    from deephpc.workflows.batch_request import load_batch_files
    from deephpc.workflows.keep import load_rerun, load_secret_files, plan_rerun
    from deephpc.workflows.serve import kept_copies

    here = context(ctx)
    with here.open_record() as record:
        job, tasks = plan_rerun(runs, record, only_failed=failed)
        request, variables = load_rerun(job)
    changed, _ = load_options(words, here.environ, Path.cwd())
    files = load_batch_files(job.files) if request.kind == "predict" else load_secret_files(job.files)
    copies = kept_copies(job) if request.kind == "serve" else {}
    batch = ReadyBatch(files, None, copies)
    again = request.changed(changed).of_tasks(tasks)
    if again.options.resources != request.options.resources and again.kind in ("train", "run"):
        again = with_launcher(here, again, None)
    submit(here, again, variables, dry_run=dry_run, wait=wait, batch=batch)


app.command("rerun")(takes_job_options(rerun, only=_CHANGEABLE))


@app.command()
def why(ctx: typer.Context, run: RunId) -> None:
    """Say in words why a run waits or how it failed, and what to do next.

    Example: deephpc why train-digits-7f3a
    """
    from deephpc.render.jobs import render_diagnosis
    from deephpc.workflows.watch import refresh
    from deephpc.workflows.why import diagnose, look_ahead

    here = context(ctx)
    with here.open_record() as record:
        job, task = record.resolve(run)
        for line in refresh(record, here.schedulers, here.clock(), environ=here.environ):
            here.say(f"note: {line}")
        job = record.get(job.run_id)
        diagnosis = diagnose(job, task, record, here.clock())  # before questions that take seconds
        outlook = look_ahead(job, task, here.schedulers.get(job.scheduler), here.environ)
    diagnosis = diagnosis.model_copy(update={"outlook": outlook})
    write_answer(render_diagnosis(diagnosis, here.clock(), as_json=here.json))


@app.command()
def script(ctx: typer.Context, run: RunId) -> None:
    """Print the job script exactly as it was submitted.

    Example: deephpc jobs script train-digits-7f3a
    """
    here = context(ctx)
    with here.open_record() as record:
        path = record.resolve(run)[0].files.script
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "was the run folder removed?") from error
    sys.stdout.buffer.write(text)


@app.command()
def export(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="ID", help="One run: its metrics, point by point.", show_default=False)
    ] = None,
    form: Annotated[str, typer.Option("--format", help="csv or json.")] = "csv",
    limit: Limit = 1_000_000,
) -> None:
    """Export runs with the last value of each metric, or one run's metrics point by point.

    Example: deephpc jobs export train-digits-7f3a --format json > digits.json
    """
    from deephpc.render.jobs import render_export, render_series

    here = context(ctx)
    if form not in ("csv", "json"):
        raise InputError(f"--format {form!r} is neither csv nor json", "write --format csv or --format json")
    as_json = here.json or form == "json"
    with here.open_record() as record:
        if run is not None:
            text = render_series(*record.resolve(run), as_json=as_json)
        else:
            jobs = [
                each for job in record.find(_filter(here.clock(), None, None, None, None, limit)) for each in job.each()
            ]
            text = render_export(jobs, record.metrics([job.run_id for job in jobs]), as_json=as_json)
    write_answer(text, end="")


@app.command()
def rebuild(
    ctx: typer.Context,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DIR", help="More folders that hold run folders.", show_default=False),
    ] = None,
) -> None:
    """Read every run folder and write the record anew; nothing in the folders changes.

    Looks wherever runs were ever put from here. Example: deephpc jobs rebuild
    """
    from deephpc.workflows.keep import rebuild as rebuild_record
    from deephpc.workflows.watch import refresh
    from deephpc.workflows.work_dirs import load_work_dirs

    here = context(ctx)
    given = [folder.absolute() for folder in folders or ()]
    for folder in given:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", "give the folder in which run folders lie")
    with here.open_record() as record:
        places = {here.settings.work_dir, *load_work_dirs(here.settings.state_dir), *given}
        work_dirs = [folder for folder in sorted(places) if folder.is_dir()]
        jobs = rebuild_record(record, work_dirs)
        for line in refresh(record, here.schedulers, here.clock(), environ=here.environ):
            here.say(f"note: {line}")
    here.say(f"{len(jobs)} runs read from {', '.join(map(str, work_dirs)) or 'nowhere'}")


def _filter(
    now: datetime, state: list[str] | None, kind: str | None, since: str | None, text: str | None, limit: int
) -> "JobFilter":
    from deephpc.jobs.record import JobFilter
    from deephpc.jobs.spec import JobKind
    from deephpc.jobs.state import JobState

    names = [name.upper() for name in state or ()]
    for name in names:
        if name not in JobState.__members__:
            raise InputError(f"--state {name!r} is not a state", f"states: {', '.join(JobState.__members__)}")
    if kind not in (None, *get_args(JobKind)):
        raise InputError(f"--kind {kind!r} is none of {', '.join(get_args(JobKind))}", "leave it out to see all")
    age = _duration("--since", since)
    states = tuple(JobState(name) for name in names)
    return JobFilter(states=states, kind=kind, text=text, since=now - age if age else None, limit=limit)


def _duration(option: str, text: str | None) -> timedelta | None:
    from deephpc.jobs.slurm_units import parse_walltime

    try:
        return parse_walltime(text) if text else None
    except ValueError as error:
        raise InputError(f"{option}: {error}", "see `deephpc jobs --help`") from error
