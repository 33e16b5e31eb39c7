"""Images to tables and sentences or to versioned JSON, and the progress of a pull to bars on a terminal."""

import shlex
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deephpc.containers.transfer import Progress, Silent
from deephpc.render.answer import draw, to_json, visible
from deephpc.render.bars import showing_bars
from deephpc.room import render_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from deephpc.containers.store import Store
    from deephpc.containers.stored_image import StoredImage
    from deephpc.workflows.image import PullPlan, PullResult
    from deephpc.workflows.image_upkeep import Export, Removal, Verdict

_SHORT = 12


def render_pull_plan(plan: "PullPlan", store: "Store", *, as_json: bool) -> str:
    """Return what a pull would bring, and where to."""
    request = plan.request
    where = f"{plan.image}"
    if as_json:
        facts = {
            "target": str(request.target),
            "image": where,
            "chooses_tag": plan.chooses_tag,
            "platform": str(request.platform),
            "store": str(store.root),
        }
        return to_json("deephpc.image-pull-plan/1", facts)
    tag = ", its tag chosen from the registry's list" if plan.chooses_tag else ""
    lines = [f"would pull {where}{tag}", f"  for {request.platform}", f"  into {store.root}"]
    return "\n".join([*lines, *([f"  {plan.why}"] if plan.why else [])])


def render_pulled(result: "PullResult", *, as_json: bool) -> str:
    """Return the digest of an image that is ready."""
    if as_json:
        return to_json("deephpc.image-pull/1", result.model_dump(mode="json"))
    return result.digest


def render_images(images: Sequence["StoredImage"], *, as_json: bool) -> str:
    """Return the images, newest last."""
    ordered = sorted(images, key=lambda image: image.pulled)
    if as_json:
        return to_json("deephpc.images/1", {"images": [_facts(image) for image in ordered]})
    rows = (
        (
            ", ".join(name.removeprefix("docker://") for name in image.names) or "-",
            image.digest.removeprefix("sha256:")[:_SHORT],
            str(image.platform or "-"),
            str(len(image.manifest.layers)),
            render_size(image.size_bytes),
            f"{image.pulled.astimezone():%Y-%m-%d %H:%M}",
            f"{image.used.astimezone():%Y-%m-%d %H:%M}",
        )
        for image in ordered
    )
    return _table(("IMAGE", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "PULLED", "USED"), rows)


def render_image(image: "StoredImage", *, as_json: bool) -> str:
    """Return all about one image."""
    process = image.config.process
    if as_json:
        said = {"process": process.model_dump(mode="json"), "created": image.config.created}
        layers = [each.model_dump(mode="json", exclude_none=True) for each in image.manifest.layers]
        return to_json("deephpc.image/1", {**_facts(image), **said, "layers": layers})
    lines = [
        *(f"name        {name}" for name in image.names),
        f"digest      {image.digest}",
        *([f"part of     {image.source_digest}"] if image.source_digest != image.digest else []),
        f"platform    {image.platform or 'not said'}",
        f"created     {image.config.created or 'not said'}",
        f"size        {render_size(image.size_bytes)} in {len(image.manifest.layers)} layers",
        f"pulled      {image.pulled.astimezone():%Y-%m-%d %H:%M}, used {image.used.astimezone():%Y-%m-%d %H:%M}",
        f"entrypoint  {shlex.join(process.entrypoint) or '-'}",
        f"command     {shlex.join(process.cmd) or '-'}",
        f"folder      {process.working_dir or '/'}",
        f"user        {process.user or 'root'}",
        f"layout      {image.layout_dir}",
        *(f"layer       {each.digest} {render_size(each.size)}" for each in image.manifest.layers),
        *(f"label       {name}={value}" for name, value in sorted(process.labels.items())),
    ]
    return "\n".join(visible(line) for line in lines)


def render_verdict(verdict: "Verdict", *, as_json: bool) -> str:
    """Return what re-hashing found."""
    if as_json:
        faults = [{"digest": fault.digest, "reason": fault.reason} for fault in verdict.faults]
        facts = {"name": verdict.name, "digest": verdict.digest, "sound": not faults, "dropped": verdict.dropped}
        return to_json("deephpc.image-verify/1", {**facts, "faults": faults})
    if not verdict.faults:
        return f"{verdict.name}: every part has its digest"
    return "\n".join(f"{fault.digest}: {fault.reason}" for fault in verdict.faults)


def render_removal(removal: "Removal", *, as_json: bool) -> str:
    """Return what was removed."""
    if as_json:
        return to_json("deephpc.image-removal/1", removal.model_dump(mode="json"))
    verb = "removed" if removal.done else "would remove"
    lines = [f"{verb} {name}" for name in removal.names]
    lines += [f"kept {name}: a job needs it" for name in removal.kept_in_use]
    freed = "freed" if removal.done else "would free at least"
    return "\n".join([*lines, f"{freed} {render_size(removal.freed_bytes)}"])


def render_export(export: "Export", *, as_json: bool) -> str:
    """Return the file an image was written to."""
    if as_json:
        return to_json("deephpc.image-export/1", export.model_dump(mode="json"))
    return str(export.path) if export.done else f"would write {export.name} to {export.path}"


@contextmanager
def showing_progress(*, quiet: bool) -> Iterator[Progress]:
    """Show bars on stderr while the block runs; nothing where stderr is no terminal."""
    with showing_bars(quiet=quiet) as bars:
        yield Silent() if bars is None else _Bars(bars)


class _Bars:
    """A bar for each layer on its way, and one for all."""

    def __init__(self, bars: "RichProgress") -> None:
        self._bars = bars
        self._lock = threading.Lock()
        self._total = bars.add_task("total", total=0)
        self._tasks: dict[str, TaskID] = {}
        self._left: dict[str, int] = {}

    def expect(self, size: int) -> None:
        """Set the length of the bar for all."""
        self._bars.update(self._total, total=size, completed=0)

    def begin(self, digest: str, size: int) -> None:
        """Add a bar."""
        with self._lock:
            self._left[digest] = size
            self._tasks[digest] = self._bars.add_task(digest.removeprefix("sha256:")[:_SHORT], total=size)

    def advance(self, digest: str, count: int) -> None:
        """Move a bar."""
        with self._lock:
            self._left[digest] -= count
            self._bars.advance(self._tasks[digest], count)
            self._bars.advance(self._total, count)

    def finish(self, digest: str) -> None:
        """Fill a bar, also with what others brought, and take it away."""
        with self._lock:
            self._bars.advance(self._total, self._left.pop(digest, 0))
            self._bars.remove_task(self._tasks.pop(digest))


def _facts(image: "StoredImage") -> dict[str, Any]:
    return {
        "names": list(image.names),
        "digest": image.digest,
        "source_digest": image.source_digest,
        "platform": None if image.platform is None else str(image.platform),
        "layer_count": len(image.manifest.layers),
        "size_bytes": image.size_bytes,
        "pulled": image.pulled.isoformat(),
        "used": image.used.isoformat(),
        "layout": str(image.layout_dir),
    }


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a table of texts that strangers may have written."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return draw(table)
