"""`deephpc site …`."""

from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.account import account_name
from deephpc.cli.context import Context, context
from deephpc.cli.streams import write_answer
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.config import UserPlaces
    from deephpc.workflows.site import Surroundings

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Show, probe and write the profile of a cluster.\n\nExample: deephpc site init",
)

Name = Annotated[str | None, typer.Argument(help="Profile; the one in use when left out.", show_default=False)]
NewName = Annotated[
    str | None, typer.Argument(help="Name of the profile; the cluster's own when left out.", show_default=False)
]


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the profiles, your own and those that ship with deephpc; a star marks the one in use.

    Example: deephpc site list
    """
    from deephpc.render.sites import render_sites
    from deephpc.workflows.site import list_sites

    here = context(ctx)
    write_answer(render_sites(list_sites(_places(here)), _current(here), as_json=here.json))


@app.command()
def show(ctx: typer.Context, name: Name = None) -> None:
    """Explain a profile: who runs jobs, how GPUs are asked for, where files go, the partitions and their limits.

    Example: deephpc site show lumi
    """
    from deephpc.render.sites import render_site
    from deephpc.workflows.site import show_site

    here = context(ctx)
    site, file = show_site(name or _current(here), _places(here))
    write_answer(render_site(site, file, as_json=here.json))


@app.command()
def probe(
    ctx: typer.Context,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Run a job of seconds that tries the container engines on a node.")
    ] = False,
    partition: Annotated[str | None, typer.Option("--partition", "-p", help="Where that job runs.")] = None,
    wait: Annotated[int, typer.Option(help="Seconds that job may wait for a node.", min=1, max=3600)] = 60,
) -> None:
    """Find out what this cluster offers, from Slurm's own answers; with --nodes which engines work on its nodes.

    Example: deephpc site probe --nodes --partition gpu
    """
    from deephpc.render.sites import render_engines, render_probe
    from deephpc.workflows.node_engines import EngineQuestion, ask_node
    from deephpc.workflows.site import probe_site

    here = context(ctx)
    if nodes:
        question = EngineQuestion(here.settings, partition, here.environ, wait)
        write_answer(render_engines(ask_node(question, here.clock()), as_json=here.json))
        return
    write_answer(render_probe(probe_site(None, _around(here)), as_json=here.json))


@app.command()
def init(
    ctx: typer.Context,
    name: NewName = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a profile of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the profile and write nothing.")] = False,
) -> None:
    """Probe this cluster and write what was found as your own profile.

    Example: deephpc site init mycluster --dry-run
    """
    from deephpc.render.sites import render_site_file
    from deephpc.workflows.site import describe_use, plan_site_file, probe_site, write_site_file

    here = context(ctx)
    found = probe_site(name, _around(here))
    for line in found.unknown:
        here.say(f"note: not found: {line}")
    places, before = _places(here), _current(here)
    path, text = plan_site_file(found, places)
    if not dry_run:
        write_site_file(path, text, force=force)
        here.say(describe_use(found.site.name, before, _current(here), places.config_file))
    write_answer(render_site_file(path, text, written=not dry_run, as_json=here.json))


def _places(here: Context) -> "UserPlaces":
    from deephpc.config import locate_user_places

    return locate_user_places(here.options.config, here.environ, here.home)


def _current(here: Context) -> str:
    """Return the profile in use, also where its folders cannot be filled in."""
    from deephpc.config import choose_site

    asked = here.options
    return choose_site(
        site=asked.site, config=asked.config, environ=here.environ, home=here.home, has_slurm=here.has_slurm
    )


def _around(here: Context) -> "Surroundings":
    from deephpc.workflows.site import Surroundings

    if not here.has_slurm:
        raise InputError(
            "there is no Slurm here to probe: sbatch is not on PATH",
            "run it on a login node; without Slurm the site is `local`",
        )
    return Surroundings(here.environ, account_name(), here.clock())
