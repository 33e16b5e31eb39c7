"""Keeps the store sound and small: verify, remove, and free by age and size, never what a job needs."""

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deephpc.containers.layers import diff_id, file_digest
from deephpc.containers.manifest import Descriptor
from deephpc.containers.store import NAME, Store
from deephpc.containers.stored_image import StoredImage
from deephpc.errors import EngineError

#: What is not part of any image is left alone this long: somebody may be pulling it.
_LOOSE_FOR_S = 24 * 3600.0
#: A hold of somebody else's run, whose end we cannot see, counts this long.
_HOLD_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of an image that is not what it should be."""

    digest: str
    reason: str


def verify(store: Store, image: StoredImage) -> tuple[Fault, ...]:
    """Hash every part of an image again, the layers before compression too; reads all of it, changes nothing."""
    faults = []
    manifest = Descriptor(media_type="", digest=image.digest, size=store.blob_path(image.digest).stat().st_size)
    for part in (manifest, *image.manifest.contents):
        found = file_digest(store.blob_path(part.digest))
        if found != part.digest:
            faults.append(Fault(part.digest, f"its bytes have the digest {found}"))
    bad = {fault.digest for fault in faults}
    for layer, promised in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
        if layer.digest in bad:
            continue
        try:
            found = diff_id(image.blob(layer))
        except EngineError as error:
            faults.append(Fault(layer.digest, error.message))
            continue
        if found != promised:
            faults.append(Fault(layer.digest, f"uncompressed it has the digest {found}, the image says {promised}"))
    return tuple(faults)


def drop_faulty(store: Store, faults: Iterable[Fault]) -> None:
    """Remove parts that are not what they should be, so that the next pull brings them again."""
    with store.changing():
        for fault in faults:
            store.blob_path(fault.digest).unlink(missing_ok=True)


def find_images(store: Store, text: str) -> tuple[StoredImage, ...]:
    """Return the images a text names: a digest or the beginning of one, a full name, or the end of one."""
    wanted = text.removeprefix("sha256:")
    found = []
    for image in store.images():
        digests = [each.removeprefix("sha256:") for each in (image.digest, image.source_digest)]
        by_digest = len(wanted) >= 4 and any(each.startswith(wanted) for each in digests)
        if by_digest or is_called(image, text):
            found.append(image)
    return tuple(found)


def is_called(image: StoredImage, text: str) -> bool:
    """Say whether a text is a name of an image in full, or the end of one."""
    return any(_names(name, text) for name in image.names)


def find_image(store: Store, text: str) -> StoredImage:
    """Return the one image a text names.

    Raises
    ------
    EngineError
        There is none, or more than one.
    """
    found = find_images(store, text)
    if not found:
        raise EngineError(f"no image in {store.root} is called {text!r}", "see `deephpc image list`")
    if len(found) > 1:
        listed = ", ".join(f"{'/'.join(each.names) or 'unnamed'} {each.digest[7:19]}" for each in found)
        raise EngineError(f"{text!r} names {len(found)} images: {listed}", "name one by its digest")
    return found[0]


def remove(store: Store, digests: Collection[str]) -> int:
    """Remove images, and the parts nobody else needs; returns the bytes freed."""
    parts: set[str] = set()
    with store.changing():
        entries = store.load_index().manifests
        for digest in digests:
            with contextlib.suppress(EngineError):
                parts.update(each.digest for each in store.image(digest).manifest.contents)
        store.write_index(tuple(each for each in entries if each.digest not in digests))
        for digest in digests:
            shutil.rmtree(store.view(digest), ignore_errors=True)
    return store.discard([*parts, *digests])


def rename(store: Store, image: StoredImage, without: str) -> None:
    """Take one name off an image that has others."""
    with store.changing():
        entries = store.load_index().manifests
        gone = (image.digest, without)
        store.write_index(tuple(e for e in entries if (e.digest, e.annotations.get(NAME)) != gone))


@dataclass(frozen=True, slots=True)
class Keep:
    """What is not removed."""

    younger_than: timedelta
    """Images used in this time."""
    max_bytes: int | None = None
    """Below this, older images stay too; None sets no bound."""
    in_use: frozenset[str] = frozenset()
    """Digests that queued and running jobs need, of manifests or of what a tag named."""


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What `gc` would do."""

    remove: tuple[StoredImage, ...]
    kept_in_use: tuple[StoredImage, ...]
    """Old enough to go, but a job needs them."""


def plan_gc(images: Sequence[StoredImage], keep: Keep, now: datetime) -> GcPlan:
    """Choose what goes, least recently used first; pure.

    Without a bound on the size, all that is old goes. With one, images go, oldest first, until the rest fits, whatever
    their age above `younger_than`.
    """
    oldest_first = sorted(images, key=lambda image: (image.used, image.digest))
    old = [image for image in oldest_first if now - image.used >= keep.younger_than]
    needed = [image for image in old if keep.in_use & {image.digest, image.source_digest}]
    loose = [image for image in old if image not in needed]
    if keep.max_bytes is None:
        return GcPlan(tuple(loose), tuple(needed))
    going: list[StoredImage] = []
    for image in loose:
        if total_bytes([each for each in images if each not in going]) <= keep.max_bytes:
            break
        going.append(image)
    return GcPlan(tuple(going), tuple(needed))


def total_bytes(images: Iterable[StoredImage]) -> int:
    """Return what images take together; a layer that several share counts once."""
    return sum({part.digest: part.size for image in images for part in image.manifest.contents}.values())


def sweep(store: Store) -> int:
    """Remove what belongs to no image and was not touched for a day; returns the bytes freed."""
    freed_bytes = 0
    before = time.time() - _LOOSE_FOR_S
    with store.changing():
        needed = {digest.removeprefix("sha256:") for digest in store.needed_blobs()}
        loose = [path for path in store.blobs.iterdir() if path.name not in needed]
        drafts = [path for place in ("locks", "images") for path in (store.root / place).glob(".*")]
        for path in (*loose, *(store.root / "partial").iterdir(), *drafts):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if found.st_mtime < before:
                    path.unlink()
                    freed_bytes += found.st_size
    return freed_bytes


def hold_for_run(store: Store, digest: str, run_id: str, user: str) -> None:
    """Note that a run needs an image; for the other members of a group, whose record does not know the run."""
    place = store.root / "holds" / store.blob_path(digest).name
    store.make_folder(place)
    store.write(place / run_id, json.dumps({"user": user}).encode())


def release_finished(store: Store, user: str, unfinished: Collection[str]) -> None:
    """Forget what a user's runs needed, but for those that are not finished."""
    for path in (store.root / "holds").glob("*/*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            is_own = json.loads(path.read_text(encoding="utf-8"))["user"] == user
            if is_own and path.name not in unfinished:
                path.unlink()


def held_by_others(store: Store, user: str, now: datetime) -> frozenset[str]:
    """Return the digests that runs of other users hold; the user's own runs are known from their record."""
    found = set()
    for path in (store.root / "holds").glob("*/*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            is_fresh = now.timestamp() - path.stat().st_mtime < _HOLD_FOR.total_seconds()
            if is_fresh and json.loads(path.read_text(encoding="utf-8"))["user"] != user:
                found.add(f"sha256:{path.parent.name}")
    return frozenset(found)


def _names(name: str, text: str) -> bool:
    """Say whether a text is a name in full, or without docker://, registry or library/."""
    bare = name.removeprefix("docker://")
    return any(text in (name, each) or each.endswith(f"/{text}") for each in (bare, bare.removesuffix(":latest")))
