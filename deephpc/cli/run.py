"""`deephpc run`."""

from pathlib import Path
from typing import Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.submitting import DryRun, Wait, submit


@takes_job_options
def run(
    ctx: typer.Context,
    words: JobOptionWords,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD", help="The command and its arguments.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Run any command as a batch job.

    Prints the run's id. Example: deephpc run --time 30 --cpus-per-task 8 -- ./simulate --steps 1000
    """
    from deephpc.workflows.request import load_run_request

    here = context(ctx)
    options, variables = load_options(words, here.environ, Path.cwd())
    submit(here, load_run_request(command or (), Path.cwd(), options), variables, dry_run=dry_run, wait=wait)
