"""`deephpc module …`."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import Models, described

#: What decides which image is asked, and by which engine.
_OPTIONS = ("model", "engine", "bind", "partition", "gpus_per_node", "convert_in_job", "locked")
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="See what a module takes, and make new ones.\n\nExample: deephpc module show plankton",
)


def _show(
    ctx: typer.Context,
    words: JobOptionWords,
    target: Annotated[
        str, typer.Argument(help="A module of the catalogue, or an image with one in it.", show_default=False)
    ],
    models: Models = None,
) -> None:
    """Show the arguments of a module's training and predictions: types, defaults, choices, what they mean.

    Asks the module itself, in its image, once. Example: deephpc module show plants-classification-tf
    """
    from deephpc.render.module import render_description
    from deephpc.workflows.request import load_module_request

    here = context(ctx)
    options, _ = load_options(words, here.environ, Path.cwd())
    request = load_module_request("predict", target, ("predict",), Path.cwd(), options)
    if models is not None:
        from deephpc.workflows.trained import find_models, with_models

        with here.open_record() as record:
            request = with_models(request, find_models(models, record, Path.cwd()))
    write_answer(render_description(target, described(here, request), as_json=here.json))


app.command("show")(takes_job_options(_show, only=_OPTIONS))


@app.command()
def init(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name: lower-case words with dashes between them.")],
    folder: Annotated[Path | None, typer.Option(help="Folder to make; NAME here when left out.")] = None,
    title: Annotated[str, typer.Option(help="Title that catalogues show.")] = "",
    image: Annotated[str, typer.Option(help="Where its image will be, as organisation/name.")] = "",
    source_code: Annotated[str, typer.Option(help="Web address of its code.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and write nothing.")] = False,
) -> None:
    """Make a module that trains and serves as it stands: a package for DEEPaaS, metadata, Dockerfile, tests.

    Example: deephpc module init leaf-counter --title "Counts leaves"
    """
    from deephpc.render.catalogue import render_new_module
    from deephpc.workflows.module_init import plan_module, write_module

    here = context(ctx)
    place = Path.cwd() / (folder or Path(name)).expanduser()
    today = datetime.now(timezone.utc).date()
    plan = plan_module(name, place, today, title=title, image=image, source_code=source_code)
    if not dry_run:
        write_module(plan)
        here.say("its README.md says how to train, serve, test and publish it")
    write_answer(render_new_module(plan, written=not dry_run, as_json=here.json))
