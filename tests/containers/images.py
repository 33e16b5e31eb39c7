"""Small real images for tests, as OCI layouts: written by hand, so that tests can also make them wrong."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class BuiltImage:
    """An image in an OCI layout."""

    layout: Path
    digest: str
    manifest: dict[str, Any]

    @property
    def layer_digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_layer(files: dict[str, bytes]) -> bytes:
    """A layer before compression; of no files one without even an end mark."""
    if not files:
        return b""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def compress(layer: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(layer, 1, mtime=0)
    return zstandard.ZstdCompressor(level=1).compress(layer) if how == "zstd" else layer


def put_blob(layout: Path, content: bytes) -> dict[str, Any]:
    """Write a blob into a layout and return what names it."""
    digest = digest_of(content)
    path = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": digest, "size": len(content)}


def build_image(
    layout: Path,
    layers: list[dict[str, bytes]],
    *,
    compression: tuple[str, ...] = ("gzip",),
    architecture: str = "amd64",
    tag: str = "latest",
    **changes: Any,
) -> BuiltImage:
    """Build an image; `changes` go over its manifest, to make it wrong."""
    tars = [make_layer(files) for files in layers]
    described = []
    for number, tar in enumerate(tars):
        how = compression[number % len(compression)]
        suffix = f"+{how}" if how else ""
        described.append({"mediaType": f"{OCI}.layer.v1.tar{suffix}", **put_blob(layout, compress(tar, how))})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/bin/tool"], "Cmd": ["run"], "Env": ["PATH=/bin"], "Labels": None},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
    }
    named = {"mediaType": f"{OCI}.config.v1+json", **put_blob(layout, json.dumps(config).encode())}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": named,
        "layers": described,
        **changes,
    }
    entry = {"mediaType": f"{OCI}.manifest.v1+json", **put_blob(layout, json.dumps(manifest).encode())}
    write_index(layout, [{**entry, "annotations": {"org.opencontainers.image.ref.name": tag}}])
    return BuiltImage(layout, entry["digest"], manifest)


def write_index(layout: Path, entries: list[dict[str, Any]]) -> None:
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def some_layers(count: int, size: int = 20_000) -> list[dict[str, bytes]]:
    """Layers whose content does not compress, so that their sizes are known."""
    return [
        {f"file{number}": b"".join(hashlib.sha256(f"{number}/{at}".encode()).digest() for at in range(size // 32 + 1))}
        for number in range(count)
    ]
