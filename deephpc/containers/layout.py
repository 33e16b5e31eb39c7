"""Images in files of the user's: OCI layouts, their archives, and what `docker save` writes, as sources for a pull."""

import hashlib
import json
import posixpath
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeVar

from pydantic import BaseModel, Field, RootModel

from deephpc.containers.layers import compression_of, layer_media_type, open_layer
from deephpc.containers.manifest import (
    MAX_DOCUMENT_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    media_type_of,
    parse_document,
    render_document,
)
from deephpc.containers.reference import LocalImage, full_name, is_digest
from deephpc.containers.source import BlobStream, Corrupt, Document, ImageSource
from deephpc.containers.space import unwritable
from deephpc.containers.store import NAME
from deephpc.errors import EngineError, InputError

_CHUNK_BYTES = 1 << 20
_MAX_LINKS = 4
_CONTAINERD_NAME = "io.containerd.image.name"
"""Where buildx and `docker save` of a containerd store write the full name."""
_M = TypeVar("_M", bound=BaseModel)


class _Files(Protocol):
    """The files of a folder or of an archive, by their path inside."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to read and seek; raises KeyError when there is none."""
        ...

    def __contains__(self, name: str) -> bool: ...


class _Folder:
    """The files of a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        try:
            return (self._root / name).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise KeyError(name) from error

    def __contains__(self, name: str) -> bool:
        return (self._root / name).is_file()


class _Archive:
    """The files of an uncompressed tar, read where they lie; nothing is unpacked, so no path in it can do harm."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with tarfile.open(path, "r:") as archive:
            self._members = {posixpath.normpath(member.name): member for member in archive}

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return self._opened(self._find(name))

    def __contains__(self, name: str) -> bool:
        try:
            self._find(name)
        except KeyError:
            return False
        return True

    def _find(self, name: str) -> tarfile.TarInfo:
        """Follow links inside the archive: older `docker save` links a layer that comes twice."""
        for _ in range(_MAX_LINKS):
            member = self._members[posixpath.normpath(name)]
            if member.isfile():
                return member
            if not (member.issym() or member.islnk()):
                break
            base = posixpath.dirname(name) if member.issym() else ""
            name = posixpath.join(base, member.linkname)
        raise KeyError(name)

    @contextmanager
    def _opened(self, member: tarfile.TarInfo) -> Iterator[IO[bytes]]:
        with tarfile.open(self._path, "r:") as archive:
            file = archive.extractfile(member)
            if file is None:
                raise KeyError(member.name)
            yield file


class LayoutSource:
    """An OCI image layout, in a folder or an archive."""

    def __init__(self, files: _Files, image: LocalImage) -> None:
        self._files = files
        self._image = image

    @property
    def name(self) -> str:
        """Where the image was found."""
        return _place(self._image)

    @property
    def names(self) -> tuple[str, ...]:
        """What the layout calls the image, where that is a full name, else where it was found."""
        notes = self._entry().annotations
        return _names((notes.get(NAME, ""), notes.get(_CONTAINERD_NAME, "")), self._image)

    def resolve(self) -> Document:
        """Return the one image of the layout, or the named one."""
        return self.document(self._entry().digest)

    def document(self, digest: str) -> Document:
        """Return a manifest by its digest."""
        content = _read_small(self._files, f"blobs/sha256/{digest.removeprefix('sha256:')}", self._image)
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if found != digest:
            raise Corrupt(f"{self._image}: {digest} has the digest {found}", "the file is broken; make or copy it anew")
        return Document(content, media_type_of(content, None), digest)

    def open_blob(self, digest: str, size: int, start: int) -> AbstractContextManager[BlobStream]:  # noqa: ARG002 - the Protocol's
        """Open a blob at an offset."""
        return _stream(self._files, f"blobs/sha256/{digest.removeprefix('sha256:')}", start, self._image)

    def _entry(self) -> Descriptor:
        where = f"the index of {self._image}"
        entries = parse_document(Index, _read_small(self._files, "index.json", self._image), where).manifests
        wanted = self._image.name
        if wanted is not None:
            entries = tuple(each for each in entries if wanted in (each.annotations.get(NAME), each.digest))
        if len(entries) == 1:
            return entries[0]
        if not entries:
            raise EngineError(
                f"{self._image} has no image" + (" of that name" if wanted else ""), "look into index.json"
            )
        names = ", ".join(each.annotations.get(NAME) or each.digest for each in entries)
        raise EngineError(f"{self._image} has {len(entries)} images: {names}", f"name one: {self._image}:NAME")


class _Saved(BaseModel):
    """One image of `docker save`'s manifest.json."""

    config: str = Field(alias="Config")
    tags: list[str] | None = Field(None, alias="RepoTags")
    layers: list[str] = Field(alias="Layers")


class _SavedList(RootModel[list[_Saved]]):
    """`docker save`'s manifest.json."""


@dataclass(frozen=True)
class _Part:
    """Where a blob lies in the archive."""

    member: str
    size: int


class SavedSource:
    """What `docker save` wrote: it has no manifest, so one is made; the layers' hashes must be those of its config.

    Source: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
    """

    def __init__(self, files: _Files, image: LocalImage) -> None:
        self._files = files
        self._image = image
        self._parts: dict[str, _Part] = {}
        self._saved = self._choose()
        self._document = self._make_manifest()

    @property
    def name(self) -> str:
        """Where the image was found."""
        return _place(self._image)

    @property
    def names(self) -> tuple[str, ...]:
        """What docker calls the image, else where it was found."""
        return _names(self._saved.tags or (), self._image)

    def resolve(self) -> Document:
        """Return the manifest made for the image."""
        return self._document

    def document(self, digest: str) -> Document:
        """Refuse: there are no other manifests."""
        raise EngineError(f"{self._image} has no manifest {digest}", "the file is broken; save it anew")

    def open_blob(self, digest: str, size: int, start: int) -> AbstractContextManager[BlobStream]:  # noqa: ARG002 - the Protocol's
        """Open the configuration or a layer at an offset."""
        return _stream(self._files, self._parts[digest].member, start, self._image)

    def _choose(self) -> _Saved:
        content = _read_small(self._files, "manifest.json", self._image)
        saved = _parse_list(content, self._image)
        wanted = self._image.name
        fitting = [each for each in saved if wanted is None or wanted in (each.tags or ())]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(tag for each in saved for tag in each.tags or ("unnamed",)) or "none"
        raise EngineError(f"{self._image} has the images {names}", f"name one: docker-archive:{self._image.path}:NAME")

    def _make_manifest(self) -> Document:
        content = _read_small(self._files, self._saved.config, self._image)
        config = parse_document(ImageConfig, content, f"the configuration in {self._image}")
        described = self._describe(self._saved.config, OCI_CONFIG)
        layers = []
        for member, diff_id in zip(self._saved.layers, config.rootfs.diff_ids, strict=False):
            layer = self._describe(member, None)
            if layer.media_type == OCI_LAYER and layer.digest != diff_id:
                raise Corrupt(
                    f"{self._image}: the layer {member} has the digest {layer.digest}, not {diff_id}",
                    "the file is broken; save or copy it anew",
                )
            layers.append(layer)
        if len(layers) != len(self._saved.layers) or len(layers) != len(config.rootfs.diff_ids):
            raise Corrupt(f"{self._image} lacks layers", "the file is broken; save it anew")
        listed = [each.model_dump(by_alias=True, exclude_defaults=True) for each in (described, *layers)]
        made = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": listed[0], "layers": listed[1:]}
        text = render_document(made)
        return Document(text, OCI_MANIFEST, f"sha256:{hashlib.sha256(text).hexdigest()}")

    def _describe(self, member: str, media_type: str | None) -> Descriptor:
        digest, size, head = hashlib.sha256(), 0, b""
        with _stream(self._files, member, 0, self._image) as stream:
            for chunk in stream.chunks:
                head = head or chunk[:8]
                digest.update(chunk)
                size += len(chunk)
        name = f"sha256:{digest.hexdigest()}"
        self._parts[name] = _Part(member, size)
        return Descriptor(media_type=media_type or layer_media_type(head), digest=name, size=size)


def _place(image: LocalImage) -> str:
    return str(image.model_copy(update={"path": image.path.absolute()}))


def _names(said: Iterable[str], image: LocalImage) -> tuple[str, ...]:
    """Return the full names among those an archive gives its image; where it lies, when there are none."""
    return tuple(dict.fromkeys(filter(None, map(full_name, said)))) or (_place(image),)


@contextmanager
def open_local(image: LocalImage, scratch: Path) -> Iterator[ImageSource]:
    """Open an image in a file or folder.

    Parameters
    ----------
    scratch
        Folder for the plain copy of a compressed archive; removed at the end.

    Raises
    ------
    InputError
        There is no such file or folder.
    EngineError
        It holds no image.
    """
    if not image.path.exists():
        raise InputError(f"{image.path} does not exist", "check the path; it is taken from the current folder")
    plain = scratch / f"archive-{hashlib.sha256(str(image.path.absolute()).encode()).hexdigest()[:16]}.tar"
    try:
        files = _open_files(image, plain)
        is_saved = "manifest.json" in files and (image.kind == "docker-archive" or "index.json" not in files)
        yield SavedSource(files, image) if is_saved else LayoutSource(files, image)
    except tarfile.TarError as error:
        raise EngineError(f"{image.path} is not an archive: {error}", "check the file, or copy it anew") from error
    finally:
        plain.unlink(missing_ok=True)


def is_compressed(path: Path) -> bool:
    """Say whether an archive can only be read after it was unpacked."""
    with path.open("rb") as file:
        return bool(compression_of(file.read(4)))


def _open_files(image: LocalImage, plain: Path) -> _Files:
    if image.kind == "oci":
        return _Folder(image.path)
    if image.path.is_dir():
        raise InputError(f"{image.path} is a folder, not an archive", f"write oci:{image.path}")
    if not is_compressed(image.path):
        return _Archive(image.path)
    try:
        with open_layer(image.path) as opened, plain.open("wb") as copy:
            shutil.copyfileobj(opened, copy, _CHUNK_BYTES)
    except OSError as error:
        raise unwritable(plain.parent, error) from error
    return _Archive(plain)


@contextmanager
def _stream(files: _Files, member: str, start: int, image: LocalImage) -> Iterator[BlobStream]:
    try:
        opened = files.open(member)
    except KeyError as error:
        raise EngineError(f"{image} lacks {member}", "the file is broken; make or copy it anew") from error
    with opened as file:
        file.seek(start)
        yield BlobStream(start, iter(lambda: file.read(_CHUNK_BYTES), b""))


def _read_small(files: _Files, member: str, image: LocalImage) -> bytes:
    if member.startswith("blobs/") and not is_digest(f"sha256:{member.rpartition('/')[2]}"):
        raise EngineError(f"{image} names {member}, which is no digest", "the file is broken")
    with _stream(files, member, 0, image) as stream:
        content = bytearray()
        for chunk in stream.chunks:
            content += chunk
            if len(content) > MAX_DOCUMENT_BYTES:
                raise EngineError(f"{member} in {image} is larger than any manifest", "the file is broken")
        return bytes(content)


def _parse_list(content: bytes, image: LocalImage) -> list[_Saved]:
    try:
        return _SavedList.model_validate(json.loads(content)).root
    except ValueError as error:  # pydantic's is one too
        raise EngineError(f"manifest.json in {image} is not docker's", "the file is broken; save it anew") from error
