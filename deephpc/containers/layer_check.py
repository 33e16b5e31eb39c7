"""What the members of an image's layers may be called and be: layers are written by strangers."""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from deephpc.containers.layers import open_layer
from deephpc.containers.stored_image import StoredImage
from deephpc.errors import EngineError

#: Marks what a layer removes from those below it (OCI image specification 1.1, layer, "Whiteouts").
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_OF_NOTHING = f"sha256:{hashlib.sha256().hexdigest()}"
_CHUNK_BYTES = 1 << 20
_HINT = "the image is broken or hostile; take another tag"


def member_path(name: str, layer: str) -> str:
    """Return where a member lies, from the root of the image, without a slash in front; '' is the root itself.

    A leading slash counts for nothing, as with docker.

    Raises
    ------
    EngineError
        It would lie outside.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and not parts:
            raise EngineError(f"layer {layer}: {name!r} lies outside the image", _HINT)
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def removed_by(path: str, layer: str) -> str | None:
    """Return what a whiteout removes: the path, with a slash at its end when the folder stays and its content goes.

    Returns
    -------
    str or None
        None when it is no whiteout; '' when it is one of aufs' own, which mean nothing elsewhere.

    Raises
    ------
    EngineError
        It names nothing that can be removed.
    """
    folder, _, base = path.rpartition("/")
    if not base.startswith(WHITEOUT):
        return None
    if base == OPAQUE:
        return f"{folder}/"
    if base.startswith(_AUFS):
        return ""
    hidden = base.removeprefix(WHITEOUT)
    if hidden in ("", ".", ".."):
        raise EngineError(f"layer {layer}: {path!r} removes what has no name", _HINT)
    return f"{folder}/{hidden}" if folder else hidden


@contextmanager
def read_layer(path: Path, diff_id: str) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
    """Read a layer's members one by one; at the end of the block its content must have been what `diff_id` says.

    Raises
    ------
    EngineError
        It is not a tar, it breaks off, or it is another one.
    """
    name = diff_id.removeprefix("sha256:")[:12]
    with open_layer(path) as file:
        hashed = _Hashed(file)
        try:
            if diff_id == _OF_NOTHING:  # an empty layer, not even an end mark: builders write those
                yield iter(())
            else:
                with tarfile.open(fileobj=cast("IO[bytes]", hashed), mode="r|", bufsize=_CHUNK_BYTES) as archive:
                    yield _members(archive)
        except tarfile.TarError as error:
            raise EngineError(f"layer {name} is broken: {error}", "pull the image again") from error
        found = hashed.digest_of_all()
    if found != diff_id:
        raise EngineError(f"a layer unpacks to {found}, the image says {diff_id}", "pull the image again")


def check_layers(image: StoredImage) -> None:
    """Read every member's name before another program unpacks them.

    Raises
    ------
    EngineError
        A member would lie outside the image, links outside, or a layer is not what the configuration says.
    """
    check_count(image)
    for path, diff_id in zip(image.layers, image.config.rootfs.diff_ids, strict=True):
        name = diff_id.removeprefix("sha256:")[:12]
        with read_layer(path, diff_id) as members:
            for _, member in members:
                removed_by(member_path(member.name, name), name)
                if member.islnk():
                    member_path(member.linkname, name)


def check_count(image: StoredImage) -> None:
    """Refuse an image whose configuration does not speak of as many layers as it has.

    Raises
    ------
    EngineError
        It does not.
    """
    said, found = len(image.config.rootfs.diff_ids), len(image.layers)
    if said != found:
        raise EngineError(f"{image.digest} has {found} layers, its configuration speaks of {said}", _HINT)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it remembers all of them, 10⁵ for a common image
        yield archive, member


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        chunk = self._file.read(size)
        self._digest.update(chunk)
        return chunk

    def digest_of_all(self) -> str:
        """Read to the end: a tar may have padding behind its end mark."""
        while self.read(_CHUNK_BYTES):
            pass
        return f"sha256:{self._digest.hexdigest()}"
