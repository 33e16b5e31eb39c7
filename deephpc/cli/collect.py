"""`deephpc collect`."""

from pathlib import Path
from typing import Annotated

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import Context, context
from deephpc.cli.homecoming import storage_places
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import DryRun
from deephpc.errors import InputError

#: A job's storage must answer soon: its nodes cost.
_ATTEMPTS_IN_JOB, _CONNECT_IN_JOB_S = 3, 5.0


def collect(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="ID", help="Run; RUN_N for an array task.", autocompletion=complete_run_id),
    ],
    destination: Annotated[
        str | None,
        typer.Argument(metavar="[DEST]", help="Where to, if not as --collect said: a URL, REMOTE:PATH, or a path."),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Files on their way at once.", min=1, max=64)] = 8,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave the results in the run folder; no command sends them any more.")
    ] = False,
    dry_run: DryRun = False,
    in_job: Annotated[float | None, typer.Option(help="For job scripts: seconds it may take.", hidden=True)] = None,
) -> None:
    """Send what a run left (output, checkpoints, log, result, metrics) to storage, verified; nothing twice.

    It lies in DEST/ID then. Example: deephpc collect train-plankton-7f3a s3://results/plankton
    """
    here = context(ctx)
    if in_job is not None:
        _collect_in_job(here, Path(run), in_job)
        return
    if forget:
        _forget(here, run, destination, dry_run=dry_run)
        return
    from deephpc.data.data_source import read_destination
    from deephpc.render.data import render_collected, showing_progress
    from deephpc.workflows.collect import carry_out_collect, check_all_sent, plan_collect
    from deephpc.workflows.deliveries import deliver, place_of
    from deephpc.workflows.watch import refresh

    places = storage_places(here, parallel)
    with here.open_record() as record:
        job, task = record.resolve(run)
        for line in refresh(record, here.schedulers, here.clock(), only=[job], environ=here.environ):
            here.say(f"note: {line}")
        job = record.get(job.run_id)
        place = read_destination(destination, places.around) if destination is not None else place_of(job)
        plan = plan_collect(job, task, place)
        with showing_progress(quiet=here.options.quiet) as progress:
            if dry_run:
                result = carry_out_collect(plan, places, dry_run=True)
            else:
                result = deliver(record, plan, job, places, here.clock, progress)
    for left in result.left_out:
        here.say(f"note: {left.path} stays here: it {left.reason}")
    if not result.whole:
        here.say(f"note: {run} has not ended; say it again then, for what it writes until then and for its log")
    write_answer(render_collected(result, as_json=here.json))
    check_all_sent(result)


def _forget(here: Context, run: str, destination: str | None, *, dry_run: bool) -> None:
    """Settle the results of a run that ended: they stay where they are."""
    from deephpc.render.data import render_forgotten
    from deephpc.workflows.watch import refresh

    with here.open_record() as record:
        job, task = record.resolve(run)
        for line in refresh(record, here.schedulers, here.clock(), only=[job], environ=here.environ):
            here.say(f"note: {line}")
        job = record.get(job.run_id)
        if destination is not None or task is not None:
            raise InputError("--forget takes a whole run, and no DEST", f"deephpc collect {job.run_id} --forget")
        if not job.state.is_final:
            raise InputError(f"{job.run_id} has not ended; its job sends its results", "say it again when it has")
        waiting = record.transfers.owed(here.clock()).get(job.run_id)
        if not dry_run:
            record.transfers.forget(job.run_id)
    place = waiting.destination if waiting else None
    write_answer(render_forgotten(job.run_id, job.folder, place, done=not dry_run, as_json=here.json))


def _collect_in_job(here: Context, folder: Path, seconds: float) -> None:
    """Send what a job left, from its node; there the job script says what a login node's settings would."""
    from deephpc.data.storage import Limits
    from deephpc.jobs.run_folder import RunFolder
    from deephpc.retries import Patience
    from deephpc.workflows.data_places import open_places
    from deephpc.workflows.deliveries import deliver_in_job

    task = here.environ.get("DEEPHPC_TASK_ID")
    limits = Limits(patience=Patience(attempts=_ATTEMPTS_IN_JOB, connect_s=_CONNECT_IN_JOB_S, deadline_s=seconds))
    places = open_places(here.environ, here.home, folder, Path(here.environ["DEEPHPC_CACHE_DIR"]), limits)
    deliver_in_job(RunFolder(folder), int(task) if task else None, seconds, places, here.clock)
