"""The story of `deephpc image pull`: a target becomes a full name, then a verified image in the store, then a pin."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deephpc.containers.auth import find_credentials
from deephpc.containers.layers import file_digest
from deephpc.containers.layout import open_local
from deephpc.containers.lockfile import LockedImage, load_lockfile, render_lockfile
from deephpc.containers.manifest import Platform, check_platform
from deephpc.containers.pull import Pulled, pull
from deephpc.containers.reference import (
    KeptImage,
    LocalImage,
    ModuleImage,
    RegistryImage,
    Target,
    is_digest,
    parse_reference,
)
from deephpc.containers.source import ImageSource
from deephpc.containers.store import Store
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.tags import choose_tag
from deephpc.containers.transfer import Progress, Silent, Transfer
from deephpc.errors import EngineError, InputError
from deephpc.jobs.run_folder import write_atomically
from deephpc.lock import hold
from deephpc.model import Model
from deephpc.retries import Patience

_SIF_MAGIC = b"SIF_MAGIC"
_SIF_MAGIC_AT = 32
_LOCK_WAIT_S = 30.0


class PullRequest(Model):
    """What was asked for."""

    target: Target
    platform: Platform
    """Of the nodes that will run it."""
    for_gpus: bool = False
    """Whether those nodes have GPUs; chooses a module's tag."""
    lock: Path | None = None
    """The lock file to write the digest to."""
    locked: Path | None = None
    """The lock file whose digest must be met."""


class PullPlan(Model):
    """What will be pulled, decided without any network."""

    request: PullRequest
    image: RegistryImage | LocalImage | KeptImage
    chooses_tag: bool
    """Whether the tag is chosen from the registry's list."""
    why: str = ""
    """How the target led to this image."""

    @property
    def name(self) -> str:
        """What the image is called in a lock file: as it was asked for, without a digest."""
        target = self.request.target
        return str(target if isinstance(target, LocalImage) else target.model_copy(update={"digest": None}))


class PullResult(Model):
    """An image that is ready for the engines of this site."""

    name: str
    """Its full name."""
    digest: str
    """Of the manifest for the platform; of the file itself for a SIF."""
    source_digest: str
    """What the name stood for in the registry: the digest that a lock file pins."""
    size_bytes: int
    fetched_bytes: int
    """0 when everything was here."""
    path: Path
    """An OCI layout with this image alone, or the SIF."""
    kind: str = "oci"
    """`oci` or `sif`."""
    why: str = ""
    """How the target led to this image and its tag."""
    lockfile: Path | None = None
    """The lock file that was written."""
    ready: Path | None = None
    """What an engine takes, when it was made ready for one."""


@dataclass(frozen=True)
class ImagePlaces:
    """Where images lie, and what a registry may be told."""

    store: Store
    environ: Mapping[str, str]
    home: Path
    insecure: frozenset[str] = frozenset()
    """Registries that may be asked without TLS."""
    patience: Patience = Patience()  # noqa: RUF009 - frozen


def plan_pull(request: PullRequest, module_image: str | None = None) -> PullPlan:
    """Decide what to pull; pure.

    Parameters
    ----------
    module_image
        The image that the catalogue names for the module, when the target is one; a digest when it is in the store.

    Raises
    ------
    InputError
        The module has no image, or an unusable name of one.
    """
    target = request.target
    if not isinstance(target, ModuleImage):
        return PullPlan(request=request, image=target, chooses_tag=False)
    if not module_image:
        raise InputError(f"the module {target.module} names no image", "take another module, or name a docker:// image")
    if is_digest(module_image):
        return PullPlan(request=request, image=KeptImage(digest=module_image), chooses_tag=False)
    known = parse_reference(module_image.removeprefix("docker://"), module_image)
    written_tag = known.tag if module_image.rpartition("/")[2].partition("@")[0].count(":") else None
    digest = target.digest or (None if target.tag else known.digest)
    tag = target.tag or written_tag
    image = known.model_copy(update={"tag": tag, "digest": digest})
    why = f"module {target.module} has the image {known.registry}/{known.repository}"
    return PullPlan(request=request, image=image, chooses_tag=tag is None and digest is None, why=why)


def carry_out_pull(plan: PullPlan, places: ImagePlaces, now: datetime, progress: Progress | None = None) -> PullResult:
    """Bring the planned image into the store and check or write its pin; on a login node.

    Raises
    ------
    EngineError
        The image is not there, not what it should be, or moved from its pin.
    SiteError
        The store cannot be written.
    """
    image = plan.image
    if isinstance(image, LocalImage) and image.kind == "sif":
        return _settle(plan, _inspect_sif(image))
    if isinstance(image, KeptImage):
        return _settle(plan, _take(places.store, image, plan.request.platform))
    if isinstance(image, RegistryImage) and image.digest is not None:
        found = _already_there(places.store, image.digest, plan.request.platform)
        if found is not None:
            places.store.touch(found.digest)
            return _settle(plan, _result(Pulled(found, str(image), 0), image.digest, plan.why))
    places.store.prepare()
    with _open_source(plan, image, places) as (source, why):
        top = source.resolve()
        _check_pin(plan, top.digest)
        found = _already_there(places.store, top.digest, plan.request.platform)
        if found is not None and places.store.is_read_only:
            return _settle(plan, _result(Pulled(found, source.names[-1], 0), top.digest, why))
        transfer = Transfer(places.store, source, places.patience, progress or Silent())
        pulled = pull(transfer, top, plan.request.platform, now)
    return _settle(plan, _result(pulled, top.digest, why))


@contextmanager
def _open_source(
    plan: PullPlan, image: RegistryImage | LocalImage, places: ImagePlaces
) -> Iterator[tuple[ImageSource, str]]:
    """Open where the image comes from, with its tag chosen, and say why that tag."""
    if isinstance(image, LocalImage):
        with open_local(image, places.store.root / "partial") as source:
            yield source, plan.why
        return
    from deephpc.containers.registry import Access, Registry  # start-up time: most images are here already

    credentials = find_credentials(image.registry, image.repository, places.environ, places.home)
    access = Access(credentials, places.insecure, places.patience)
    with Registry(image, access) as registry:
        if not plan.chooses_tag:
            yield registry, plan.why
            return
        repository = f"{image.registry}/{image.repository}"
        here = tags_here(places.store, image)
        choice = choose_tag(registry.tags(), for_gpus=plan.request.for_gpus, repository=repository, here=here)
        registry.image = image.model_copy(update={"tag": choice.tag})
        yield registry, f"{plan.why}; {choice.why}"


def tags_here(store: Store, image: RegistryImage) -> dict[str, StoredImage]:
    """Return the images of a repository that are in the store, by their tags."""
    start = f"{image.model_copy(update={'tag': None, 'digest': None})}:"
    named = [(name, stored) for stored in store.images() for name in stored.names]
    return {name.removeprefix(start): stored for name, stored in named if name.startswith(start)}


def _take(store: Store, image: KeptImage, platform: Platform) -> PullResult:
    """Take an image of the store; nobody is asked."""
    found = store.image(image.digest)
    name = found.names[-1] if found.names else found.digest
    check_platform(found.config, platform, name)
    store.touch(found.digest)
    return _result(Pulled(found, name, 0), found.source_digest, f"{name} is in {store.root}")


def _already_there(store: Store, digest: str, platform: Platform) -> StoredImage | None:
    """Return a complete image of this digest, so that nothing need be asked of anybody."""
    for image in store.images():
        fits = image.platform is None or platform.runs(image.platform)
        if fits and digest in (image.digest, image.source_digest):
            return image
    return None


def _check_pin(plan: PullPlan, digest: str) -> None:
    path = plan.request.locked
    if path is not None:
        load_lockfile(path).check(plan.name, digest, path)


def _settle(plan: PullPlan, result: PullResult) -> PullResult:
    """Check the pin of what needed no source, and write the pin where that was asked for."""
    _check_pin(plan, result.source_digest)
    return pin_image(plan, result, result.source_digest if result.kind == "sif" else None)


def pin_image(plan: PullPlan, result: PullResult, sif_sha256: str | None) -> PullResult:
    """Write the pin of an image, and of the SIF made from it, to the lock file that was asked for."""
    path = plan.request.lock
    if path is None:
        return result
    pin = LockedImage(reference=result.name, digest=result.source_digest, sif_sha256=sif_sha256)
    with hold(path.with_name(f".{path.name}.lock"), timeout_s=_LOCK_WAIT_S):
        write_atomically(path, render_lockfile(load_lockfile(path).pin(plan.name, pin)), 0o644)
    return result.model_copy(update={"lockfile": path})


def _result(pulled: Pulled, source_digest: str, why: str) -> PullResult:
    image = pulled.image
    return PullResult(
        name=pulled.name,
        digest=image.digest,
        source_digest=source_digest,
        size_bytes=image.size_bytes,
        fetched_bytes=pulled.fetched_bytes,
        path=image.layout_dir,
        why=why,
    )


def _inspect_sif(image: LocalImage) -> PullResult:
    """Look at a SIF where it lies; it is used from there (SIF specification: the magic stands after the launcher)."""
    path = image.path.absolute()
    try:
        with path.open("rb") as file:
            file.seek(_SIF_MAGIC_AT)
            magic = file.read(len(_SIF_MAGIC))
        if magic != _SIF_MAGIC:
            raise EngineError(f"{path} is not a SIF", "make one with `apptainer build`, or name a docker:// image")
        digest, size = file_digest(path), path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "check the path and its permissions") from error
    return PullResult(
        name=str(path),
        digest=digest,
        source_digest=digest,
        size_bytes=size,
        fetched_bytes=0,
        path=path,
        kind="sif",
    )
