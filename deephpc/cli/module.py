"""`deephpc module …`."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.streams import write_answer

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Make a new module.\n\nExample: deephpc module init leaf-counter",
)


@app.callback()
def _noun() -> None:
    """Keep `init` a word of its own while it is the only one."""


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
