"""Writes an image as one OCI archive, for machines that reach no registry.

Source: OCI image specification 1.1, image layout; the archive is a tar of it, as skopeo's `oci-archive:` reads.
"""

import io
import tarfile
from pathlib import Path

from deephpc.containers.manifest import Descriptor
from deephpc.containers.space import check_room, unwritable
from deephpc.containers.store import NAME, Store, render_index
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.transfer import Progress
from deephpc.errors import InputError
from deephpc.whole_file import replacing

_FRAME_BYTES = 4096


def export(store: Store, image: StoredImage, path: Path, progress: Progress, *, force: bool = False) -> int:
    """Write an image as an OCI archive in one step, and return its size in bytes.

    Two archives of one image are the same byte by byte: names are sorted, times and owners left out.

    Raises
    ------
    InputError
        The file exists and `force` is not set.
    SiteError
        The place cannot be written, or lacks room.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists", "--force overwrites it, or give another name")
    check_room(path.absolute().parent, image.size_bytes + _FRAME_BYTES * len(image.manifest.contents), 1)
    try:
        with replacing(path, None) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _write(archive, store, image, progress)
            size = file.tell()
    except OSError as error:
        raise unwritable(path.absolute().parent, error) from error
    return size


def _write(archive: tarfile.TarFile, store: Store, image: StoredImage, progress: Progress) -> None:
    name = image.names[-1] if image.names else ""
    entry = store.entry(image.digest)
    named = entry.model_copy(update={"annotations": {NAME: name} if name else {}})
    _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    _add(archive, "index.json", render_index((named,)))
    whole = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)
    progress.expect(image.size_bytes + entry.size)
    for part in sorted((whole, *image.manifest.contents), key=lambda each: each.digest):
        progress.begin(part.digest, part.size)
        member = tarfile.TarInfo(f"blobs/sha256/{part.digest.removeprefix('sha256:')}")
        member.size, member.mode = part.size, 0o644
        with store.blob_path(part.digest).open("rb") as blob:
            archive.addfile(member, blob)
        progress.advance(part.digest, part.size)
        progress.finish(part.digest)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
