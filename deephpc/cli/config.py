"""`deephpc config …`."""

import typer

from deephpc.cli.context import context
from deephpc.cli.streams import write_answer

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Show the settings, and where each value comes from.\n\nExample: deephpc config show",
)


@app.command()
def show(ctx: typer.Context) -> None:
    """Show every setting with its value and its origin: built-in, site, user file, environment or option.

    Example: deephpc --site lumi config show
    """
    from deephpc.render.sites import render_settings

    here = context(ctx)
    write_answer(render_settings(here.settings, as_json=here.json))


@app.command()
def path(ctx: typer.Context) -> None:
    """Print the settings file that is read, whether or not it exists.

    Example: $EDITOR "$(deephpc config path)"
    """
    from deephpc.config import locate_user_places
    from deephpc.render.sites import render_places

    here = context(ctx)
    places = locate_user_places(here.options.config, here.environ, here.home)
    write_answer(render_places(places, as_json=here.json))
