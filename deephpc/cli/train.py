"""`deephpc train`."""

from pathlib import Path
from typing import Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.submitting import DryRun, Wait, fit_to_module, submit


@takes_job_options
def train(
    ctx: typer.Context,
    words: JobOptionWords,
    target: Annotated[
        str,
        typer.Argument(
            help="A module, an image with one, a .py file, or a project folder with train.py in it.", show_default=False
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- ARGS",
            help="Given to the program untouched, or to the module's training by name: --epochs 40.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Train a module of the catalogue, or a Python file or project folder, as a batch job.

    Prints the run's id. Example: deephpc train train.py --gpus-per-node 4 --time 2:00:00 -- --epochs 40
    """
    from deephpc.workflows.request import load_train_request

    here = context(ctx)
    options, variables = load_options(words, here.environ, Path.cwd())
    request = load_train_request(target, arguments or (), Path.cwd(), options)
    submit(here, fit_to_module(here, request, "training"), variables, dry_run=dry_run, wait=wait)
