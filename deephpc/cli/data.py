"""`deephpc data …`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.context import Context, context
from deephpc.cli.streams import write_answer

if TYPE_CHECKING:
    from deephpc.data.discrepancy import Discrepancy
    from deephpc.data.manifest import LeftOut
    from deephpc.workflows.data import TransferRequest
    from deephpc.workflows.data_places import DataPlaces

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List, bring, send, stage and verify data by URL or rclone remote.\n\n"
    "Example: deephpc data get rshare:/plankton ./plankton",
)

Place = Annotated[str, typer.Argument(help="A path, a URL, or REMOTE:PATH of rclone.", metavar="PLACE")]
Source = Annotated[str, typer.Argument(help="A path, a URL, or REMOTE:PATH of rclone.", metavar="SRC")]
Parallel = Annotated[int, typer.Option(help="Files and ranges on their way at once.", min=1, max=64)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Look at both sides, say what would be done, and do nothing.")]
ManifestOut = Annotated[
    Path | None, typer.Option("--manifest", help="Write every file's size and sha256 here.", show_default=False)
]
_PARALLEL = 8
_MANY = 20


@app.command("ls")
def ls(
    ctx: typer.Context,
    place: Place,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="List all files below.")] = False,
) -> None:
    """List a folder: sizes, times and names.

    Example: deephpc data ls rshare:/plankton
    """
    from deephpc.render.data import render_listing
    from deephpc.workflows.data_check import list_location

    here = context(ctx)
    listing = list_location(place, _places(here, _PARALLEL), recursive=recursive)
    _tell(here, listing.left_out, listing.location)
    write_answer(render_listing(listing, as_json=here.json))


@app.command()
def get(
    ctx: typer.Context,
    source: Source,
    target: Annotated[str, typer.Argument(help="Folder or file here.", metavar="[DEST]")] = "",
    parallel: Parallel = _PARALLEL,
    manifest: ManifestOut = None,
    dry_run: DryRun = False,
) -> None:
    """Bring a file, or a folder's files, here; what is equal is skipped, what broke off goes on.

    Example: deephpc data get s3://results/plankton ./plankton
    """
    from deephpc.render.data import render_transfer, showing_progress
    from deephpc.workflows.data import carry_out_get, check_whole

    here = context(ctx)
    places = _places(here, parallel)
    name = places.locate(source).name or "data"
    request = _request(source, target or f"./{name}", manifest, read_back=False)
    with showing_progress(quiet=here.options.quiet) as progress:
        result = carry_out_get(request, places, progress, dry_run=dry_run)
    _tell(here, (*result.left_out, *result.discrepancies), result.source)
    write_answer(render_transfer(result, as_json=here.json))
    check_whole(result)


@app.command()
def put(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="File or folder here.", metavar="SRC")],
    target: Annotated[str, typer.Argument(help="A URL, REMOTE:PATH of rclone, or a path.", metavar="DEST")],
    parallel: Parallel = _PARALLEL,
    manifest: ManifestOut = None,
    read_back: Annotated[bool, typer.Option("--read-back", help="Read what was sent back and hash it.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Send a file, or a folder's files, away; what is equal is skipped; nothing is removed there.

    Example: deephpc data put ./results rshare:/results --read-back
    """
    from deephpc.render.data import render_transfer, showing_progress
    from deephpc.workflows.data import carry_out_put, check_whole

    here = context(ctx)
    request = _request(source, target, manifest, read_back=read_back)
    with showing_progress(quiet=here.options.quiet) as progress:
        result = carry_out_put(request, _places(here, parallel), progress, dry_run=dry_run)
    _tell(here, (*result.left_out, *result.discrepancies), result.source)
    write_answer(render_transfer(result, as_json=here.json))
    check_whole(result)


@app.command()
def stage(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A URL, REMOTE:PATH of rclone, or a path.", metavar="SRC[:NAME]")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Stage a local folder too, rather than use it in place.")
    ] = False,
    parallel: Parallel = _PARALLEL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be staged; ask no server.")] = False,
) -> None:
    """Bring data into the staging cache that jobs read from, once; prints the read-only folder.

    Example: deephpc data stage rshare:/plankton
    """
    from deephpc.render.data import render_stage_plan, render_staged, showing_progress
    from deephpc.workflows.data_staging import carry_out_stage, plan_stage

    here = context(ctx)
    places = _places(here, parallel)
    if dry_run:
        write_answer(render_stage_plan(plan_stage(source, places, copy=copy), as_json=here.json))
        return
    with showing_progress(quiet=here.options.quiet) as progress:
        result = carry_out_stage(source, places, progress, copy=copy)
    _tell(here, result.discrepancies, result.source)
    write_answer(render_staged(result, as_json=here.json))


@app.command()
def verify(
    ctx: typer.Context,
    place: Annotated[
        str, typer.Argument(help="A place of data, or the digest or folder of a staged set.", metavar="PLACE")
    ],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="What it should be, as get and put write it.", show_default=False)
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="A place that should have the same.")] = None,
    parallel: Parallel = _PARALLEL,
) -> None:
    """Read data again, hash it, and hold it against a manifest or another place; exit 5 when something differs.

    Example: deephpc data verify rshare:/results --against ./results
    """
    from deephpc.render.data import render_verdict, showing_progress
    from deephpc.workflows.data_check import check_verdict, verify_data

    here = context(ctx)
    places = _places(here, parallel)
    with showing_progress(quiet=here.options.quiet) as progress:
        verdict = verify_data(place, places, manifest=manifest, against=against, progress=progress)
    _tell(here, verdict.discrepancies, verdict.location)
    write_answer(render_verdict(verdict, as_json=here.json))
    check_verdict(verdict)


def _tell(here: Context, found: Sequence["LeftOut | Discrepancy"], place: str) -> None:
    from deephpc.render.answer import visible

    for each in found[:_MANY]:
        here.say(visible(f"note: {each.path or place} {each.reason}"))
    if len(found) > _MANY:
        here.say(f"note: and {len(found) - _MANY} more such files; all of them with --json")


def _places(here: Context, parallel: int) -> "DataPlaces":
    from deephpc.data.storage import Limits
    from deephpc.workflows.data_places import open_places

    return open_places(here.environ, here.home, Path.cwd(), here.settings.cache_dir, Limits(parallel))


def _request(source: str, target: str, manifest: Path | None, *, read_back: bool) -> "TransferRequest":
    from deephpc.workflows.data import TransferRequest

    return TransferRequest(source=source, target=target, manifest=manifest, read_back=read_back)
