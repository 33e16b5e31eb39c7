"""`deephpc image …`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.account import account_name
from deephpc.cli.context import Context, context
from deephpc.cli.image_places import image_places, image_store, module_image
from deephpc.cli.streams import write_answer
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.containers.store import Store
    from deephpc.workflows.image import PullPlan, PullRequest, PullResult

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Pull, check, list and remove container images.\n\nExample: deephpc image pull docker://python:3.12-slim",
)

TargetWord = Annotated[
    str,
    typer.Argument(
        help="A module's name, docker://…, oci:DIR, oci-archive:FILE, docker-archive:FILE or a .sif.", metavar="TARGET"
    ),
]
Ref = Annotated[str, typer.Argument(help="An image's name, the end of it, or its digest.", metavar="REF")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
PlatformWord = Annotated[
    str | None, typer.Option("--platform", help="Of the nodes, such as linux/arm64; this machine's when left out.")
]
Force = Annotated[bool, typer.Option("--force", help="Do it all the same.")]
_LOCKFILE = "deephpc.lock"


@app.command()
def pull(  # noqa: PLR0917 - Typer's options are parameters
    ctx: typer.Context,
    target: TargetWord,
    platform: PlatformWord = None,
    partition: Annotated[
        str | None, typer.Option(help="Where it will run: decides between a module's tags cpu and gpu.")
    ] = None,
    lock: Annotated[bool, typer.Option("--lock", help="Write the digest into ./deephpc.lock.")] = False,
    locked: Annotated[bool, typer.Option("--locked", help="Refuse an image other than ./deephpc.lock says.")] = False,
    insecure: Annotated[
        list[str] | None, typer.Option("--insecure-registry", help="Registry (HOST[:PORT]) that may go without TLS.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Make it ready for this engine too; auto: for what works on the nodes.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Pull an image into the store that all engines share, every byte checked; prints its digest.

    Example: deephpc image pull docker://python:3.12-slim --lock
    """
    from deephpc.render.image import render_pull_plan, render_pulled, showing_progress
    from deephpc.workflows.image import carry_out_pull, plan_pull

    here = context(ctx)
    places = image_places(here, insecure or ())
    request = _request(here, target, platform, partition, (lock, locked))
    plan = plan_pull(request, module_image(here, request.target))
    if dry_run:
        write_answer(render_pull_plan(plan, places.store, as_json=here.json))
        return
    with showing_progress(quiet=here.options.quiet) as progress:
        result = carry_out_pull(plan, places, here.clock(), progress)
    if result.why:
        here.say(result.why)
    if engine is not None:
        result = _make_ready(here, plan, result, engine, partition)
    write_answer(render_pulled(result, as_json=here.json))


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the images in the store: name, digest, platform, size, when pulled and when last used.

    Example: deephpc image list --json
    """
    from deephpc.render.image import render_images

    here = context(ctx)
    write_answer(render_images(image_store(here).images(), as_json=here.json))


@app.command()
def show(ctx: typer.Context, ref: Ref) -> None:
    """Show all about one image: digests, layers, what it would start, its labels.

    Example: deephpc image show python:3.12-slim
    """
    from deephpc.containers.upkeep import find_image
    from deephpc.render.image import render_image

    here = context(ctx)
    write_answer(render_image(find_image(image_store(here), ref), as_json=here.json))


@app.command()
def verify(
    ctx: typer.Context,
    ref: Ref,
    drop: Annotated[bool, typer.Option("--drop", help="Remove what changed, so that a pull brings it again.")] = False,
) -> None:
    """Hash every part of an image again, and its layers uncompressed; ends with 4 when one changed.

    Example: deephpc image verify python:3.12-slim
    """
    from deephpc.render.image import render_verdict
    from deephpc.workflows.image_upkeep import check_verdict, verify_image

    here = context(ctx)
    verdict = verify_image(image_store(here), ref, drop=drop)
    write_answer(render_verdict(verdict, as_json=here.json))
    check_verdict(verdict)


@app.command()
def rm(ctx: typer.Context, ref: Ref, force: Force = False, dry_run: DryRun = False) -> None:
    """Remove an image, unless a queued or running job needs it; parts that other images share stay.

    Example: deephpc image rm python:3.12-slim --dry-run
    """
    from deephpc.render.image import render_removal
    from deephpc.workflows.image_upkeep import remove_image

    here = context(ctx)
    store = image_store(here)
    removal = remove_image(store, ref, _in_use(here, store), force=force, dry_run=dry_run)
    write_answer(render_removal(removal, as_json=here.json))


@app.command()
def gc(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option(help="Remove what was not used for so long, such as 30d, 12h or 0.")
    ] = "30d",
    max_size: Annotated[
        str | None, typer.Option(help="Remove only until the rest fits into this, such as 100G.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Free room: images not used for long, oldest first, and what broken pulls left; never what a job needs.

    Example: deephpc image gc --older-than 2w --max-size 100G
    """
    from deephpc.containers.upkeep import Keep
    from deephpc.render.image import render_removal
    from deephpc.workflows.image_upkeep import collect_garbage, parse_age, parse_size

    here = context(ctx)
    store = image_store(here)
    bound = None if max_size is None else parse_size(max_size)
    keep = Keep(parse_age(older_than), bound, _in_use(here, store))
    removal = collect_garbage(store, keep, here.clock(), dry_run=dry_run)
    write_answer(render_removal(removal, as_json=here.json))


@app.command()
def export(
    ctx: typer.Context,
    ref: Ref,
    file: Annotated[Path, typer.Argument(help="The archive to write.")],
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Write an image as one OCI archive, to carry to a machine that reaches no registry.

    Example: deephpc image export python:3.12-slim python.tar
    """
    from deephpc.render.image import render_export, showing_progress
    from deephpc.workflows.image_upkeep import export_image

    here = context(ctx)
    with showing_progress(quiet=here.options.quiet) as progress:
        done = export_image(image_store(here), ref, file, progress, force=force, dry_run=dry_run)
    write_answer(render_export(done, as_json=here.json))


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="An archive or layout; oci-archive: and docker-archive: are told apart.")],
    platform: PlatformWord = None,
    dry_run: DryRun = False,
) -> None:
    """Bring an archive made by `image export`, skopeo or `docker save` into the store, every byte checked.

    Example: deephpc image import python.tar
    """
    has_scheme = file.startswith(("oci:", "oci-archive:", "docker-archive:"))
    written = file if has_scheme else f"{'oci' if Path(file).is_dir() else 'oci-archive'}:{file}"
    pull(ctx, written, platform, dry_run=dry_run)


def _request(
    here: Context, target: str, platform: str | None, partition: str | None, pins: tuple[bool, bool]
) -> "PullRequest":
    from deephpc.containers.manifest import local_platform, parse_platform
    from deephpc.containers.reference import parse_target
    from deephpc.workflows.image import PullRequest

    if all(pins):
        raise InputError("--lock and --locked contradict each other", "--lock writes the pin, --locked keeps to it")
    lock, locked = pins
    pin = Path.cwd() / _LOCKFILE
    return PullRequest(
        target=parse_target(target),
        platform=local_platform() if platform is None else parse_platform(platform),
        for_gpus=_has_gpus(here, partition),
        lock=pin if lock else None,
        locked=pin if locked else None,
    )


def _make_ready(
    here: Context, plan: "PullPlan", result: "PullResult", engine: str, partition: str | None
) -> "PullResult":
    """Make a pulled image ready for an engine, and pin the SIF where a pin is asked for."""
    from deephpc.cli.image_places import image_desk
    from deephpc.containers.layers import file_digest
    from deephpc.workflows.image import pin_image
    from deephpc.workflows.in_image import make_ready_for
    from deephpc.workflows.node_engines import checked_engine

    ready = make_ready_for(checked_engine(engine), partition, result, image_desk(here)).prepared
    pinned = pin_image(plan, result, file_digest(ready)) if ready.is_file() else result
    return pinned.model_copy(update={"ready": ready if ready.exists() else None})


def _has_gpus(here: Context, partition: str | None) -> bool:
    """Say whether the partition, the default one when none is named, has GPUs."""
    site = here.settings.site
    name = partition or here.settings.defaults.partition or site.default_partition
    if partition is not None and site.partitions and partition not in site.partitions:
        raise InputError(f"site {site.name} has no partition {partition!r}", f"it has {', '.join(site.partitions)}")
    found = site.partitions.get(name) if name else None
    return found is not None and found.gpus_per_node > 0


def _in_use(here: Context, store: "Store") -> frozenset[str]:
    from deephpc.workflows.image_upkeep import images_in_use

    with here.open_record_if_any() as record:
        plans = [] if record is None else [job.files.plan for job in record.unfinished()]
    return images_in_use(store, plans, account_name(), here.clock())
