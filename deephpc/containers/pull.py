"""Pulls an image: resolve, choose the platform, check the room, bring what is missing, list it."""

import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue

from deephpc.containers.manifest import (
    CONFIGS,
    INDEXES,
    MANIFESTS,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    check_platform,
    choose_manifest,
    parse_document,
    plain,
)
from deephpc.containers.source import Corrupt, Document, ImageSource
from deephpc.containers.space import check_quota, check_room
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.transfer import Transfer
from deephpc.errors import DeephpcError, EngineError
from deephpc.retries import Stopped

_ROUNDS = 3
_PARALLEL = 4
_MAX_INDEX_DEPTH = 3
#: How long transfers may take to notice that they are to stop.
_LAST_MOMENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image that is in the store now, and what it took."""

    image: StoredImage
    name: str
    """What it was pulled as."""
    fetched_bytes: int
    """What this pull brought itself; the rest was there, or came with another process."""


def pull(transfer: Transfer, top: Document, platform: Platform, now: datetime, *, parallel: int = _PARALLEL) -> Pulled:
    """Bring an image into the store, on a login node; nothing is fetched twice, and nothing unchecked is kept.

    Parameters
    ----------
    top
        What the source resolved the image's name to.

    Raises
    ------
    EngineError
        The source does not have it, refuses it, or gives something else.
    SiteError
        The store cannot be written, or lacks room.
    """
    store, source = transfer.store, transfer.source
    document = find_manifest(source, top, platform)
    manifest = read_manifest(document, source.name)
    store.prepare()
    brought: dict[str, int] = {}
    try:
        for _ in range(_ROUNDS):
            _bring_all(transfer, manifest, platform, brought, parallel)
            store.put_document(document.digest, document.content)
            entry = Descriptor(media_type=document.media_type, digest=document.digest, size=len(document.content))
            names = source.names
            added = [store.add(entry, name, top.digest, now) for name in names]
            if added[-1] is not None and None not in added:
                return Pulled(added[-1], names[-1], sum(brought.values()))
    except Corrupt:
        store.discard([document.digest, *(each.digest for each in manifest.contents)])
        raise
    raise EngineError(f"parts of {source.name} vanish from {store.root} while it is pulled", "is `image gc` running?")


def find_manifest(source: ImageSource, top: Document, platform: Platform) -> Document:
    """Follow indexes down to the manifest for a platform."""
    document = top
    for _ in range(_MAX_INDEX_DEPTH):
        if document.media_type not in INDEXES:
            return document
        index = parse_document(Index, document.content, f"the index of {source.name}")
        document = source.document(choose_manifest(index, platform, source.name).digest)
    raise EngineError(f"{source.name} is an index of indexes without end", "take another image")


def read_manifest(document: Document, name: str) -> Manifest:
    """Read a manifest, and refuse what is not a container image."""
    if document.media_type not in MANIFESTS:
        raise EngineError(
            f"{name} is no container image but {plain(document.media_type) or 'something unknown'}",
            "images older than docker 1.10 (schema 1) and other artifacts cannot be run; take another tag",
        )
    manifest = parse_document(Manifest, document.content, f"the manifest of {name}")
    if manifest.config.media_type not in CONFIGS:
        raise EngineError(f"{name} is no container image but {plain(manifest.config.media_type)}", "take another tag")
    return manifest


def _bring_all(
    transfer: Transfer, manifest: Manifest, platform: Platform, brought: dict[str, int], parallel: int
) -> None:
    """Bring the configuration, then the layers that are missing, several at a time."""
    store, name = transfer.store, transfer.source.name
    missing = [each for each in manifest.contents if not store.has_blob(each)]
    size = sum(each.size for each in missing)
    if missing:
        check_room(store.root, size, len(missing))
        check_quota(store.root, size, len(missing))
    transfer.progress.expect(manifest.content_bytes)
    if transfer.bring(manifest.config):
        brought[manifest.config.digest] = manifest.config.size
    config = parse_document(ImageConfig, store.read_document(manifest.config.digest), f"the configuration of {name}")
    check_platform(config, platform, name)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise Corrupt(
            f"{name} has {len(manifest.layers)} layers, its configuration names {len(config.rootfs.diff_ids)}",
            "the image is broken; take another tag",
        )
    layers = [each for each in manifest.contents if each.digest != manifest.config.digest]
    futures: dict[Future[bool], Descriptor] = {Future(): each for each in layers}
    _start_workers(transfer, futures, parallel)
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        if not all(each.done() and each.exception() is None for each in futures):
            transfer.stop.set()
            wait([each for each in futures if not each.cancel()], timeout=_LAST_MOMENT_S)
    _settle(futures, brought)


def _start_workers(transfer: Transfer, futures: Mapping[Future[bool], Descriptor], parallel: int) -> None:
    """Start daemon threads: one that sits on a silent connection must not keep an interrupted process alive."""
    todo: SimpleQueue[Future[bool]] = SimpleQueue()
    for future in futures:
        todo.put(future)

    def work() -> None:
        with contextlib.suppress(Empty):
            while True:
                future = todo.get_nowait()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(transfer.bring(futures[future]))
                except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                    future.set_exception(error)

    for _ in range(min(parallel, len(futures))):
        threading.Thread(target=work, daemon=True).start()


def _settle(futures: Mapping[Future[bool], Descriptor], brought: dict[str, int]) -> None:
    """Note what was brought, then raise the first real failure."""
    failures: list[BaseException] = []
    for future, layer in futures.items():
        if future.cancelled() or not future.done():
            continue
        failure = future.exception()
        if failure is not None:
            failures.append(failure)
        elif future.result():
            brought[layer.digest] = layer.size
    failures.sort(key=lambda each: (isinstance(each, Stopped), not isinstance(each, DeephpcError)))
    if failures:
        raise failures[0]
