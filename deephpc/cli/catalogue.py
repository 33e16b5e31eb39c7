"""`deephpc catalogue …`."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.context import Context, context
from deephpc.cli.streams import write_answer
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.catalogue.search import Filters
    from deephpc.config import UserPlaces
    from deephpc.workflows.catalogue import Catalogue, SourceUpdate

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Find modules, and publish your own.\n\nExample: deephpc catalogue search plankton --trainable",
)

Trainable = Annotated[bool, typer.Option("--trainable", help="Only modules that users can train.")]
Inference = Annotated[bool, typer.Option("--inference", help="Only modules that give predictions.")]
PreTrained = Annotated[bool, typer.Option("--pre-trained", help="Only modules that come trained.")]
Words = Annotated[
    list[str] | None, typer.Argument(help="Words; the beginning of one is enough.", metavar="TEXT…", show_default=False)
]
Values = list[str] | None
Library = Annotated[Values, typer.Option(help="Only modules that use it, such as PyTorch; repeatable.")]
Task = Annotated[Values, typer.Option(help="Only modules for it, such as 'Computer Vision'; repeatable.")]
Category = Annotated[Values, typer.Option(help="Only modules of it, such as 'AI4 tools'; repeatable.")]
Tag = Annotated[Values, typer.Option(help="Only modules with it; repeatable.")]
To = Annotated[str | None, typer.Option("--to", help="Folder, or a catalogue that is one; yours if there is one.")]


@app.command()
def update(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Catalogues; all of them when left out.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds one file may take.", min=0.5, max=600)] = 10.0,
) -> None:
    """Fetch what is new in the catalogues; what cannot be reached keeps its last good copy.

    Example: deephpc catalogue update
    """
    from deephpc.render.catalogue import render_updates
    from deephpc.workflows.catalogue import check_outcome, update_catalogue

    here = context(ctx)
    events = update_catalogue(_catalogue(here), _now(), tuple(names or ()), timeout)
    updates = _watched(events, here)
    write_answer(render_updates(updates, _now(), as_json=here.json))
    check_outcome(updates)


@app.command("list")
def list_(  # noqa: PLR0917 - Typer's options are parameters
    ctx: typer.Context,
    trainable: Trainable = False,
    inference: Inference = False,
    pre_trained: PreTrained = False,
    library: Library = None,
    task: Task = None,
    category: Category = None,
    tag: Tag = None,
) -> None:
    """List the modules, without any network; invalid ones with the reason.

    Example: deephpc catalogue list --trainable --library PyTorch
    """
    from deephpc.render.catalogue import render_hits
    from deephpc.workflows.catalogue import list_catalogue

    here = context(ctx)
    filters = _filters((trainable, inference, pre_trained), (library, task, category, tag))
    hits = list_catalogue(_catalogue(here), filters)
    write_answer(render_hits(hits, _now(), as_json=here.json))


@app.command()
def search(  # noqa: PLR0917 - Typer's options are parameters
    ctx: typer.Context,
    text: Words = None,
    trainable: Trainable = False,
    inference: Inference = False,
    pre_trained: PreTrained = False,
    library: Library = None,
    task: Task = None,
    category: Category = None,
    tag: Tag = None,
) -> None:
    """Search names, titles, summaries, descriptions and tags, best first, without any network.

    Example: deephpc catalogue search plankton --trainable
    """
    from deephpc.render.catalogue import render_hits
    from deephpc.workflows.catalogue import search_catalogue

    here = context(ctx)
    filters = _filters((trainable, inference, pre_trained), (library, task, category, tag))
    hits = search_catalogue(_catalogue(here), " ".join(text or ()), filters)
    if hits.note and hits.modules:
        here.say(hits.note)
    write_answer(render_hits(hits, _now(), as_json=here.json))


@app.command()
def show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="Module, or CATALOGUE/MODULE.", metavar="NAME")]
) -> None:
    """Show a module: what it does, its image, what it needs, its links and licence, and how to use it here.

    Example: deephpc catalogue show phyto-plankton-classification
    """
    from deephpc.cli import COMMANDS
    from deephpc.render.catalogue import render_module
    from deephpc.workflows.catalogue import show_module
    from deephpc.workflows.catalogue_usage import plan_usage

    here = context(ctx)
    module, *others = show_module(_catalogue(here), name)
    for other in others:
        here.say(f"there is another one: {other.source}/{other.name}")
    usage = plan_usage(module, frozenset(COMMANDS))
    write_answer(render_module(module, usage, _now(), as_json=here.json))


@app.command()
def validate(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Metadata file.", metavar="FILE")],
) -> None:
    """Check a metadata file against its schema and against what real use needs; errors exit with 2.

    Example: deephpc catalogue validate ai4-metadata.yml
    """
    from deephpc.render.catalogue import render_verdict
    from deephpc.workflows.catalogue import validate_file

    here = context(ctx)
    verdict = validate_file(file)
    write_answer(render_verdict(file, verdict, as_json=here.json))
    if not verdict.is_valid:
        raise InputError(f"{file} is not valid metadata", "docs/reference/catalogue.md says what each key may be")


@app.command()
def sources(ctx: typer.Context) -> None:
    """List the catalogues, with the age of the copies kept here.

    Example: deephpc catalogue sources
    """
    from deephpc.render.catalogue import render_sources
    from deephpc.workflows.catalogue import status_of_sources

    here = context(ctx)
    write_answer(render_sources(status_of_sources(_catalogue(here)), _now(), as_json=here.json))


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="Its index or folder; left out to switch a shipped one on.")] = "",
    files: Annotated[str, typer.Option(help="Where a module's file is: {repository} {owner} {name} {file} …")] = "",
    organisation: Annotated[str, typer.Option(help="Goes before image names that lack one.")] = "",
) -> None:
    """Add a catalogue: a MODULES.yml or .gitmodules file, or a folder of metadata; `update` then fetches it.

    Example: deephpc catalogue add mygroup /shared/mygroup/catalogue
    """
    from deephpc.render.catalogue import render_source
    from deephpc.workflows.catalogue_sources import add_source, enable_source, plan_source

    here = context(ctx)
    if not url:
        if not enable_source(name, _places(here)):
            raise InputError(f"catalogue {name!r} needs an address", "deephpc catalogue add NAME URL")
        here.say(f"{name} is on again")
        return
    source = plan_source(name, url, files, organisation, Path.cwd())
    if add_source(source, _places(here)):
        here.say(f"fetch it with `deephpc catalogue update {name}`")
    write_answer(render_source(source, as_json=here.json))


@app.command()
def remove(ctx: typer.Context, name: Annotated[str, typer.Argument(help="Catalogue to take out of use.")]) -> None:
    """Take a catalogue out of use and forget its copy; nothing is deleted where it is kept.

    Example: deephpc catalogue remove deephdc
    """
    from deephpc.render.catalogue import render_source
    from deephpc.workflows.catalogue_sources import remove_source

    here = context(ctx)
    source = remove_source(name, _places(here), _catalogue(here).cache)
    write_answer(render_source(source, as_json=here.json))


@app.command()
def publish(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The module's folder, with its metadata.", metavar="DIR")],
    to: To = None,
    name: Annotated[str | None, typer.Option(help="Name for it; its folder's otherwise.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is published under that name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, say where it would go, and write nothing.")
    ] = False,
) -> None:
    """Put a module's metadata into a group's catalogue folder, once it is valid, for colleagues to find.

    Example: deephpc catalogue publish ~/my-module --to mygroup
    """
    from deephpc.render.catalogue import render_publication
    from deephpc.workflows.catalogue import carry_out_publish, plan_publish

    here = context(ctx)
    plan = plan_publish(_catalogue(here), folder, to, name)
    for finding in plan.verdict.findings:
        here.say(f"{plan.file}: {finding.level}: {finding.describe()}")
    if not dry_run:
        carry_out_publish(plan, force=force)
    write_answer(render_publication(plan, written=not dry_run, as_json=here.json))


def _now() -> datetime:
    """Return the present; `here.clock` would load the record of jobs, a fifth of a second this command never needs."""
    return datetime.now(timezone.utc)


def _places(here: Context) -> "UserPlaces":
    from deephpc.config import locate_user_places

    return locate_user_places(here.options.config, here.environ, here.home)


def _catalogue(here: Context) -> "Catalogue":
    from deephpc.workflows.catalogue import open_catalogue

    return open_catalogue(_places(here), here.settings.cache_dir)


def _filters(flags: tuple[bool, bool, bool], values: tuple[Values, Values, Values, Values]) -> "Filters":
    from deephpc.catalogue.search import Filters

    libraries, tasks, categories, tags = (tuple(each or ()) for each in values)
    return Filters(
        is_trainable=flags[0],
        has_inference=flags[1],
        is_pre_trained=flags[2],
        libraries=libraries,
        tasks=tasks,
        categories=categories,
        tags=tags,
    )


def _watched(events: "Iterator[object]", here: Context) -> "tuple[SourceUpdate, ...]":
    """Carry an update out, with a bar per catalogue where someone watches."""
    from deephpc.workflows.catalogue import SourceUpdate

    updates: list[SourceUpdate] = []
    with _bars(wanted=sys.stderr.isatty() and not here.options.quiet) as bars:
        for event in events:
            if isinstance(event, SourceUpdate):
                updates.append(event)
            elif bars is not None:
                bars.show(event)
    return tuple(updates)


class _Bars:
    """One progress bar per catalogue, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, object] = {}

    def show(self, step: object) -> None:
        """Move the bar of a step's catalogue."""
        from deephpc.catalogue.fetch import Step

        if isinstance(step, Step):
            if step.source not in self._tasks:
                self._tasks[step.source] = self.progress.add_task(step.source, total=step.total)
            self.progress.update(self._tasks[step.source], completed=step.done, total=step.total)  # type: ignore[arg-type]


@contextlib.contextmanager
def _bars(*, wanted: bool) -> Iterator[_Bars | None]:
    if not wanted:
        yield None
        return
    bars = _Bars()
    with bars.progress:
        yield bars
