"""Images whose layers hold any member a tar can hold, right or hostile, as they lie in a store."""

import io
import json
import tarfile
from datetime import datetime, timezone
from pathlib import Path

from deephpc.containers.manifest import ImageConfig, Manifest
from deephpc.containers.stored_image import StoredImage
from tests.containers.images import compress, digest_of, put_blob


def file(
    name: str, content: bytes = b"", *, mode: int = 0o644, mtime: int = 1_000_000_000
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), mode, mtime
    return member, content


def other(name: str, kind: bytes, target: str = "", *, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.mtime = kind, target, mode, 1_000_000_000
    member.devmajor, member.devminor = 1, 3
    return member, b""


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return other(name, tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return other(name, tarfile.SYMTYPE, target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return other(name, tarfile.LNKTYPE, target)


def pack(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A layer before compression; of no members one without even an end mark, as some builders write."""
    if not members:
        return b""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def store_image(
    place: Path, *layers: list[tuple[tarfile.TarInfo, bytes]], diff_ids: list[str] | None = None
) -> StoredImage:
    """An image of these layers, compressed by turns with gzip and zstd."""
    tars = [pack(members) for members in layers]
    blobs = [put_blob(place, compress(tar, ("gzip", "zstd")[number % 2])) for number, tar in enumerate(tars)]
    said = [digest_of(tar) for tar in tars] if diff_ids is None else diff_ids
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": said},
    }  # fmt: skip
    named = put_blob(place, json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **named},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob} for blob in blobs],
    }
    now = datetime.now(timezone.utc)
    content = json.dumps(manifest).encode()
    return StoredImage(
        digest=put_blob(place, content)["digest"], names=(), source_digest="", pulled=now, used=now,
        manifest=Manifest.model_validate_json(content), config=ImageConfig.model_validate(config),
        layout_dir=place, blobs=place / "blobs" / "sha256",
    )  # fmt: skip
