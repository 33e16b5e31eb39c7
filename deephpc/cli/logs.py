"""`deephpc logs`."""

import sys
from typing import Annotated

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import context


def logs(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Run, start of its id, or RUN_N for an array task.", autocompletion=complete_run_id
        ),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, max=1_000_000_000, help="Only the last lines.", show_default=False),
    ] = None,
) -> None:
    """Print what a job wrote, and follow it.

    All attempts are in one log, each under a line of its own. Example: deephpc logs -f train-digits-7f3a
    """
    from deephpc.workflows.logs import follow_log, print_log

    here = context(ctx)
    with here.open_record() as record:
        job, task = record.resolve(run)
        if follow:
            follow_log(
                record, here.schedulers, job, task, _emit, clock=here.clock, last_lines=lines, environ=here.environ
            )
        else:
            print_log(job, task, _emit, last_lines=lines)


def _emit(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
