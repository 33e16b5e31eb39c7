"""`deephpc train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import DryRun, Wait, described, fit_to_module, submit, with_launcher

if TYPE_CHECKING:
    from deephpc.cli.context import Context
    from deephpc.workflows.request import JobRequest


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
    help_arguments: Annotated[
        bool, typer.Option("--help-arguments", help="Show the arguments of the module's training, and submit nothing.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Train a module of the catalogue, or a Python file or project folder, as a batch job.

    Prints the run's id. Example: deephpc train train.py --gpus-per-node 4 --time 2:00:00 -- --epochs 40
    """
    from deephpc.workflows.request import load_train_request

    here = context(ctx)
    options, variables = load_options(words, here.environ, Path.cwd(), here.settings.pass_env)
    request = load_train_request(target, arguments or (), Path.cwd(), options)
    if help_arguments:
        _show_arguments(here, target, request)
        return
    request = with_launcher(here, fit_to_module(here, request, "training"), words.launcher)
    submit(here, request, variables, dry_run=dry_run, wait=wait)


def _show_arguments(here: "Context", target: str, request: "JobRequest") -> None:
    """Show what the training of a module takes.

    Raises
    ------
    InputError
        The target is no module.
    """
    from deephpc.errors import InputError
    from deephpc.render.module import render_description

    if request.program != "module" or request.options.image.engine == "native":
        raise InputError(f"{target} is a program of your own", "it says itself what it takes, such as by --help")
    write_answer(render_description(target, described(here, request), as_json=here.json, only="train"))
