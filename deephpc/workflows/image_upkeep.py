"""The stories of `deephpc image verify`, `rm`, `gc`, `export`: what goes, and what stays as a job needs it."""

import contextlib
import re
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from deephpc.containers.archive import export
from deephpc.containers.container import Container
from deephpc.containers.prepared import remove_prepared, sweep_halves
from deephpc.containers.reference import is_digest
from deephpc.containers.store import Store
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.transfer import Progress
from deephpc.containers.upkeep import (
    Fault,
    GcPlan,
    Keep,
    drop_faulty,
    find_image,
    held_by_others,
    hold_for_run,
    plan_gc,
    release_finished,
    remove,
    sweep,
    total_bytes,
    verify,
)
from deephpc.errors import EngineError, InputError, SiteError
from deephpc.model import Model

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Verdict(Model):
    """What re-hashing an image found."""

    name: str
    digest: str
    faults: tuple[Fault, ...]
    dropped: bool = False
    """Whether the faulty parts were removed."""


class Removal(Model):
    """What was removed, or would be."""

    removed: tuple[str, ...]
    """Digests."""
    names: tuple[str, ...]
    kept_in_use: tuple[str, ...] = ()
    """Names or digests of images old enough to go, that a job needs."""
    freed_bytes: int
    """For a plan: at least; parts of broken pulls come on top."""
    done: bool


class Export(Model):
    """An image as one file."""

    path: Path
    name: str
    digest: str
    size_bytes: int
    done: bool


def open_store(cache_dir: Path) -> Store:
    """Return the store of a site's cache folder; need not exist yet."""
    return Store(cache_dir / "images")


def images_in_use(store: Store, plans: Sequence[Path], user: str, now: datetime) -> frozenset[str]:
    """Return the digests that queued and running jobs need: the user's own, and those of others in a group's store.

    Parameters
    ----------
    plans
        The plan.json of each of the user's unfinished runs.
    """
    release_finished(store, user, {plan.parent.name for plan in plans})
    return digests_in_use(plans) | held_by_others(store, user, now)


def hold_image(container: Container, run_id: str, user: str, unfinished: Collection[str]) -> None:
    """Let colleagues who share the store know that a run needs an image, and which runs of the user no longer do.

    A SIF of the user's own is nobody else's.
    """
    if container.layout_dir is not None:
        store = open_store(container.cache_dir)
        release_finished(store, user, unfinished)
        with contextlib.suppress(SiteError):  # a store that is only read cannot be cleared by colleagues either
            hold_for_run(store, container.digest, run_id, user)


def digests_in_use(plans: Sequence[Path]) -> frozenset[str]:
    """Return every digest that the plans of unfinished runs name; a plan that cannot be read names none."""
    found: set[str] = set()
    for path in plans:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        words = text.replace('"', " ").replace("@", " ").split()
        found.update(word.rstrip(",]}") for word in words if is_digest(word.rstrip(",]}")))
    return frozenset(found)


def verify_image(store: Store, text: str, *, drop: bool) -> Verdict:
    """Hash an image's parts again, and on request remove those that changed."""
    image = find_image(store, text)
    faults = verify(store, image)
    if faults and drop:
        drop_faulty(store, faults)
    return Verdict(name=_name(image), digest=image.digest, faults=faults, dropped=bool(faults) and drop)


def check_verdict(verdict: Verdict) -> None:
    """Refuse a faulty image.

    Raises
    ------
    EngineError
        A part of it changed.
    """
    if verdict.faults:
        first = verdict.faults[0]
        again = "pull it again" if verdict.dropped else f"`deephpc image verify {verdict.digest} --drop`, then pull it"
        raise EngineError(f"{verdict.name}: {first.digest}: {first.reason}", again)


def remove_image(store: Store, text: str, in_use: frozenset[str], *, force: bool, dry_run: bool) -> Removal:
    """Remove one image and the parts nobody else needs.

    Raises
    ------
    EngineError
        There is no such image, or a job needs it and `force` is not set.
    SiteError
        It is removed, but not what a colleague made ready of it.
    """
    image = find_image(store, text)
    if in_use & {image.digest, image.source_digest} and not force:
        raise EngineError(
            f"{_name(image)} is needed by a queued or running job",
            "wait for it to end, or give --force; a colleague's job counts until their next command with an image",
        )
    return _remove(store, (image,), (), dry_run=dry_run)


def collect_garbage(store: Store, keep: Keep, now: datetime, *, dry_run: bool) -> Removal:
    """Free room by age and size, never what a job needs; and what killed pulls and conversions left.

    Raises
    ------
    SiteError
        All is removed but what a colleague made ready of an image.
    """
    plan: GcPlan = plan_gc(store.images(), keep, now)
    swept = 0
    if not dry_run:
        swept = sweep_halves(store.root.parent) + (sweep(store) if store.root.exists() else 0)
    removal = _remove(store, plan.remove, plan.kept_in_use, dry_run=dry_run)
    return removal.model_copy(update={"freed_bytes": removal.freed_bytes + swept})


def export_image(store: Store, text: str, path: Path, progress: Progress, *, force: bool, dry_run: bool) -> Export:
    """Write an image as an OCI archive."""
    image = find_image(store, text)
    size = image.size_bytes if dry_run else export(store, image, path, progress, force=force)
    return Export(path=path, name=_name(image), digest=image.digest, size_bytes=size, done=not dry_run)


def parse_size(text: str) -> int:
    """Read a size such as 50G, 500M or 1.5T; powers of 1024, in bytes.

    Raises
    ------
    InputError
        It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InputError(f"{text!r} is not a size", "write it like 50G or 500M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_age(text: str) -> timedelta:
    """Read an age such as 12h, 30d or 4w; `0` is none.

    Raises
    ------
    InputError
        It is none.
    """
    match = re.fullmatch(r"(\d{1,5})([hdw])|0", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not an age", "write it like 12h, 30d or 4w")
    return int(match[1]) * _SPANS[match[2]] if match[1] else timedelta(0)


def _remove(
    store: Store, images: tuple[StoredImage, ...], needed: tuple[StoredImage, ...], *, dry_run: bool
) -> Removal:
    going = {image.digest for image in images}
    if dry_run:
        present = store.images()
        freed = total_bytes(present) - total_bytes([each for each in present if each.digest not in going])
    else:
        freed = remove(store, going) if going else 0
        freed += _remove_forms(store, going)
    return Removal(
        removed=tuple(image.digest for image in images),
        names=tuple(_name(image) for image in images),
        kept_in_use=tuple(_name(image) for image in needed),
        freed_bytes=freed,
        done=not dry_run,
    )


def _remove_forms(store: Store, digests: set[str]) -> int:
    """Remove what engines take, of every image before anything is said of one that does not go."""
    removed = [remove_prepared(store.root.parent, digest) for digest in sorted(digests)]
    left = [path for _, paths in removed for path in paths]
    if left:
        raise SiteError(
            f"what could be removed is removed, but not {', '.join(map(str, left))}: no permission",
            "whoever made it can remove it; a cache_dir of mode 2775 lets a group's members do so",
        )
    return sum(freed for freed, _ in removed)


def _name(image: StoredImage) -> str:
    return image.names[-1] if image.names else image.digest
