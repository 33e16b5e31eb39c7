"""The images of a user or a group: one OCI image layout, in which each blob lies once and is named by its sha256.

    oci-layout, index.json    an OCI image layout: other tools read it too
    blobs/sha256/HEX          manifests, configurations and layers, as the registry gave them; read-only
    partial/HEX.TOKEN         a blob that is being fetched
    locks/                    who fetches which blob, who changes index.json
    images/HEX/               a layout with this one image in it, sharing the blobs; `used` has the time of its last use
    holds/HEX/RUN             a run that needs the image, and whose it is

Source: OCI image specification 1.1, image layout.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from deephpc.containers.manifest import (
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_document,
    render_document,
)
from deephpc.containers.reference import is_digest
from deephpc.containers.source import Corrupt
from deephpc.containers.space import unwritable
from deephpc.containers.stored_image import StoredImage
from deephpc.errors import EngineError
from deephpc.lock import Lock, hold
from deephpc.whole_file import replacing

NAME = "org.opencontainers.image.ref.name"
#: What the tag named in the registry: an index's digest where the image is for several platforms.
SOURCE_DIGEST = "vnd.deephpc.source.digest"
PULLED = "vnd.deephpc.pulled"
#: Blobs are named by their content: nobody changes one in place.
BLOB_MODE = 0o444
_LOCK_WAIT_S = 120.0


class Store:
    """The images under one folder; the folder need not exist yet.

    A folder whose parent the group may write is made for the group: its members add, use and remove images alike.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def blobs(self) -> Path:
        """Where the blobs lie."""
        return self.root / "blobs" / "sha256"

    @property
    def for_group(self) -> bool:
        """Whether members of the group may write here."""
        mode = next(each for each in (self.root, *self.root.parents) if each.exists()).stat().st_mode
        return bool(mode & stat.S_IWGRP) and not mode & stat.S_IWOTH  # not /tmp and its like

    @property
    def is_read_only(self) -> bool:
        """Whether we may use the images that are here, but neither add nor remove any."""
        return (self.root / "index.json").is_file() and not os.access(
            self.root / "locks", os.W_OK | os.X_OK, effective_ids=True
        )

    @property
    def file_mode(self) -> int:
        """Permissions of what others may have to change."""
        return 0o664 if self.for_group else 0o644

    def prepare(self) -> None:
        """Make the store's folders.

        Raises
        ------
        SiteError
            The place cannot be written.
        """
        for folder in ("blobs/sha256", "partial", "locks", "images", "holds"):
            self.make_folder(self.root / folder)
        if not (self.root / "oci-layout").exists():
            self.write(self.root / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')

    def blob_path(self, digest: str) -> Path:
        """Return where a blob lies, or would lie."""
        if not is_digest(digest):
            raise EngineError(f"{digest!r} is not a sha256 digest", "the image is broken; take another tag")
        return self.blobs / digest.removeprefix("sha256:")

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Say whether a blob is here, whole."""
        try:
            return self.blob_path(descriptor.digest).stat().st_size == descriptor.size
        except FileNotFoundError:
            return False

    def read_document(self, digest: str) -> bytes:
        """Return a small blob: a manifest or a configuration.

        Raises
        ------
        EngineError
            It is not here, or too large to be one.
        """
        path = self.blob_path(digest)
        try:
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise EngineError(f"{digest} is too large for a manifest or configuration", "take another image")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise EngineError(f"{digest} is missing in {self.root}", "pull the image again") from error

    def put_document(self, digest: str, content: bytes) -> None:
        """Put a manifest or configuration into the store.

        Raises
        ------
        Corrupt
            It does not have that digest.
        """
        path = self.blob_path(digest)
        if hashlib.sha256(content).hexdigest() != path.name:
            raise Corrupt(f"{digest} does not fit its content", "pull the image again")
        if not path.exists():
            self.write(path, content, BLOB_MODE)

    def lock_blob(self, digest: str, stop: threading.Event) -> contextlib.AbstractContextManager[Lock]:
        """Hold the right to bring one blob; waits as long as another owner shows that it lives."""
        return hold(self._lock_path(digest), timeout_s=float("inf"), mode=self.file_mode, stop=stop)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the right to change index.json and to remove blobs."""
        self.prepare()
        with hold(self.root / "locks" / "index.lock", timeout_s=_LOCK_WAIT_S, mode=self.file_mode):
            yield

    def load_index(self) -> Index:
        """Read index.json; an empty one where there is none yet."""
        path = self.root / "index.json"
        try:
            return parse_document(Index, path.read_bytes(), str(path))
        except FileNotFoundError:
            return Index(schema_version=2, manifests=())

    def write_index(self, entries: tuple[Descriptor, ...]) -> None:
        """Replace index.json; the caller holds `changing`."""
        self.write(self.root / "index.json", render_index(entries))

    def images(self) -> tuple[StoredImage, ...]:
        """Return every image; one whose parts were removed by other hands is left out."""
        entries: dict[str, list[Descriptor]] = {}
        for entry in self.load_index().manifests:
            entries.setdefault(entry.digest, []).append(entry)
        found = []
        for digest, same in entries.items():
            with contextlib.suppress(EngineError):
                found.append(self._load(digest, same))
        return tuple(found)

    def entry(self, digest: str) -> Descriptor:
        """Return the newest entry of an image in index.json.

        Raises
        ------
        EngineError
            There is none.
        """
        entries = [each for each in self.load_index().manifests if each.digest == digest]
        if not entries:
            raise EngineError(f"the image {digest} is not in {self.root}", "pull it: `deephpc image pull TARGET`")
        return entries[-1]

    def image(self, digest: str) -> StoredImage:
        """Return an image by its manifest's digest.

        Raises
        ------
        EngineError
            It is not here, or not complete.
        """
        self.entry(digest)
        return self._load(digest, [each for each in self.load_index().manifests if each.digest == digest])

    def add(self, entry: Descriptor, name: str, source_digest: str, now: datetime) -> StoredImage | None:
        """List an image whose blobs are all here.

        Returns
        -------
        StoredImage or None
            None when a part went missing meanwhile, by `gc` or a failed pull next to us: bring it and add again.
        """
        digest = entry.digest
        with self.changing():
            manifest = parse_document(Manifest, self.read_document(digest), digest) if self.has_blob(entry) else None
            if manifest is None or not all(self.has_blob(each) for each in manifest.contents):
                return None
            notes = {NAME: name, SOURCE_DIGEST: source_digest, PULLED: now.astimezone(timezone.utc).isoformat()}
            new = entry.model_copy(update={"annotations": notes})
            self._write_view(new)
            self.write_index((*_without_name(self.load_index().manifests, name, digest), new))
        return self.image(digest)

    def needed_blobs(self) -> set[str]:
        """Return the digests of everything that listed images are made of."""
        needed: set[str] = set()
        for entry in self.load_index().manifests:
            needed.add(entry.digest)
            with contextlib.suppress(EngineError):
                manifest = parse_document(Manifest, self.read_document(entry.digest), entry.digest)
                needed.update(each.digest for each in manifest.contents)
        return needed

    def discard(self, digests: Iterable[str]) -> int:
        """Remove those of some blobs that no listed image needs, also half ones that nobody is fetching.

        Whoever pulls an image with one of them finds it missing when listing the image, and brings it again.

        Returns
        -------
        int
            The bytes freed.
        """
        freed_bytes = 0
        with self.changing():
            needed = self.needed_blobs()
            for digest in digests:
                path = self.blob_path(digest)
                if digest in needed:
                    continue
                half = [] if self._lock_path(digest).exists() else (self.root / "partial").glob(f"{path.name}.*")
                for each in (path, *half):
                    with contextlib.suppress(FileNotFoundError):
                        freed_bytes += each.stat().st_size
                        each.unlink()
        return freed_bytes

    def touch(self, digest: str) -> None:
        """Note that an image is used now, so that `gc` keeps it longer."""
        path = self.view(digest) / "used"
        with contextlib.suppress(OSError):  # a colleague's file, or a read-only place: the image works all the same
            path.touch()

    def view(self, digest: str) -> Path:
        """Return the folder of one image's own layout."""
        return self.root / "images" / self.blob_path(digest).name

    def write(self, path: Path, content: bytes, mode: int | None = None) -> None:
        """Write a small file of the store, whole or not at all.

        Raises
        ------
        SiteError
            The place cannot be written.
        """
        try:
            with replacing(path, mode or self.file_mode) as file:
                file.write(content)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def make_folder(self, folder: Path) -> None:
        """Make a folder of the store, and those above it; for the group where the store is the group's.

        Raises
        ------
        SiteError
            The place cannot be written.
        """
        for_group = self.for_group
        try:
            for each in (*reversed(folder.parents), folder):
                if each.exists():
                    continue
                each.mkdir(exist_ok=True)
                if for_group and each.is_relative_to(self.root):
                    each.chmod(0o2775)
        except OSError as error:
            raise unwritable(folder, error) from error

    def _lock_path(self, digest: str) -> Path:
        return self.root / "locks" / f"{self.blob_path(digest).name}.lock"

    def _load(self, digest: str, entries: list[Descriptor]) -> StoredImage:
        manifest = parse_document(Manifest, self.read_document(digest), f"the manifest {digest}")
        config = parse_document(
            ImageConfig, self.read_document(manifest.config.digest), f"the configuration of {digest}"
        )
        missing = [each.digest for each in manifest.contents if not self.has_blob(each)]
        if missing:
            raise EngineError(f"the image {digest} lacks {missing[0]}", "pull it again")
        said = entries[-1].annotations
        view = self.view(digest)
        pulled = _moment(said.get(PULLED))
        try:
            used = datetime.fromtimestamp((view / "used").stat().st_mtime, timezone.utc)
        except OSError:
            used = pulled
        names = tuple(each.annotations[NAME] for each in entries if each.annotations.get(NAME))
        source = said.get(SOURCE_DIGEST, digest)
        return StoredImage(digest, names, source, manifest, config, pulled, used, view, self.blobs)

    def _write_view(self, entry: Descriptor) -> None:
        view = self.view(entry.digest)
        self.make_folder(view)
        alone = entry.model_copy(update={"annotations": {NAME: "latest"}})
        self.write(view / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        self.write(view / "index.json", render_index((alone,)))
        self.write(view / "used", b"")
        with contextlib.suppress(FileExistsError):
            (view / "blobs").symlink_to(Path("../../blobs"))


def _without_name(entries: tuple[Descriptor, ...], name: str, digest: str) -> tuple[Descriptor, ...]:
    """Take a name off the image that had it; that image stays, unnamed, as jobs may need it, until `gc`."""
    kept: list[Descriptor] = []
    for entry in entries:
        notes = {key: value for key, value in entry.annotations.items() if key != NAME}
        named = [
            each for each in entries if each.digest == entry.digest and each.annotations.get(NAME) not in (None, name)
        ]
        if entry.annotations.get(NAME) not in (None, name):
            kept.append(entry)
        elif entry.digest != digest and not named:
            kept.append(entry.model_copy(update={"annotations": notes}))
    return tuple(kept)


def render_index(entries: tuple[Descriptor, ...]) -> bytes:
    """Return an index.json with these entries."""
    listed = [json.loads(each.model_dump_json(by_alias=True, exclude_none=True)) for each in entries]
    return render_document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})


def _moment(text: str | None) -> datetime:
    """Read a time of ours; the beginning of time where somebody else wrote the index."""
    try:
        return datetime.fromisoformat(text or "").astimezone(timezone.utc)
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)
