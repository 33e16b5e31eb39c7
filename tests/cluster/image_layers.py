"""OCI images without Docker: layers packed out of a folder that was filled by other means, layouts made of them."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.containers.images import OCI, put_blob, write_index

from .host import PATH, HarnessError, call

SEARCH_PATH = f"PATH={PATH}"
_NOT_IN_LAYERS = ("./dev/*", "./proc/*", "./run/*", "./sys/*", "./tmp/*", "./var/tmp/*", "./root/.cache")


@dataclass(frozen=True)
class Layer:
    """A layer in the shared folder of blobs."""

    described: Mapping[str, Any]
    diff_id: str
    made_by: str

    @property
    def blob(self) -> str:
        """The name of its file in `blobs/sha256`."""
        digest: str = self.described["digest"]
        return digest.removeprefix("sha256:")


@dataclass(frozen=True)
class Config:
    """What an image says about how it is started; the user stays empty, which means root."""

    env: Mapping[str, str]
    folder: str = ""
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    ports: Sequence[str] = field(default=())

    def as_oci(self) -> dict[str, Any]:
        """Return the `config` member of an OCI image configuration."""
        return {
            "Env": [SEARCH_PATH, *(f"{name}={value}" for name, value in self.env.items())],
            "WorkingDir": self.folder,
            **({"Cmd": list(self.command)} if self.command else {}),
            **({"Entrypoint": list(self.entrypoint)} if self.entrypoint else {}),
            **({"ExposedPorts": {port: {} for port in self.ports}} if self.ports else {}),
        }


def run_in_tree(tree: Path, *words: str) -> None:
    """Run a command in a folder that will be an image, with this machine's /dev and /proc."""
    private = ["unshare", "--mount", "--propagation", "private", "bash", "-ec"]
    mounts = 'for each in dev proc; do mount --bind "/$each" "$1/$each"; done; exec chroot "$@"'
    inside = ["/usr/bin/env", "-i", SEARCH_PATH, "HOME=/root", "LANG=C.UTF-8"]
    call([*private, mounts, "chroot", str(tree), *inside, *words], timeout=300)


def put_wheels(tree: Path, wheels: Path) -> None:
    """Copy wheels, pip's own among them, to where `pip_in_tree` finds them; no layer has them."""
    shutil.copytree(wheels, tree / "run" / "wheels", dirs_exist_ok=True)


def pip_in_tree(tree: Path, *words: str) -> None:
    """Run `pip install` in a folder that will be an image; nothing but the wheels there is installed."""
    [pip] = (tree / "run" / "wheels").glob("pip-*.whl")
    install = ["python3", f"/run/wheels/{pip.name}/pip", "install", "-q", "--no-index", "--no-cache-dir"]
    quiet = ["--break-system-packages", "--root-user-action=ignore", "--disable-pip-version-check"]
    run_in_tree(tree, *install, *quiet, "--find-links", "/run/wheels", *words)


def pack_layer(store: Path, tree: Path, made_by: str, *, newer_than: Path | None = None) -> Layer:
    """Make a layer of a tree, or of what changed in it since a file was touched.

    Files keep their times: the byte code beside Python's sources is only valid with them.
    """
    excluded = [f"--exclude={pattern}" for pattern in _NOT_IN_LAYERS]
    changed = ["-cnewer", str(newer_than)] if newer_than else []
    with tempfile.TemporaryFile() as names:
        find = ["find", ".", "-mindepth", "1", "-not", "-type", "s", *changed, "-print0"]
        subprocess.run(find, cwd=tree, stdout=names, check=True, timeout=120)
        names.seek(0)
        tar = ["tar", "-C", str(tree), *excluded, "--numeric-owner", "--no-recursion", "--null", "-T", "-", "-cf", "-"]
        with subprocess.Popen(tar, stdin=names, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            layer = _add_layer(store, running.stdout, made_by)
    if running.returncode:
        raise HarnessError(f"tar of {tree}: exit {running.returncode}")
    return layer


def write_layer(store: Path, files: Mapping[str, str], made_by: str) -> Layer:
    """Make a layer of a few texts, executable where they begin with `#!`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in files.items():
            for folder in reversed([*Path(name.lstrip("/")).parents][:-1]):
                above = tarfile.TarInfo(str(folder))
                above.type, above.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(above)
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(text.encode()), 0o755 if text.startswith("#!") else 0o644
            member.mtime = 1_700_000_000
            archive.addfile(member, io.BytesIO(text.encode()))
    raw.seek(0)
    return _add_layer(store, raw, made_by)


def load_layers(layout: Path) -> list[Layer]:
    """Return the layers of a layout that `assemble` wrote."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_blob(layout, index["manifests"][0]).read_text())
    config = json.loads(_blob(layout, manifest["config"]).read_text())
    made_by = [step["created_by"] for step in config["history"]]
    return list(map(Layer, manifest["layers"], config["rootfs"]["diff_ids"], made_by))


def assemble(store: Path, layout: Path, layers: Sequence[Layer], config: Config) -> None:
    """Write an OCI layout with one image; its layers are hard links into the store."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in layers:
        (blobs / layer.blob).hardlink_to(store / "blobs" / "sha256" / layer.blob)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    whole = {
        "architecture": architecture,
        "os": "linux",
        "config": config.as_oci(),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": layer.made_by} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", **put_blob(layout, json.dumps(whole).encode())},
        "layers": [layer.described for layer in layers],
    }
    entry = {"mediaType": f"{OCI}.manifest.v1+json", **put_blob(layout, json.dumps(manifest).encode())}
    write_index(layout, [{**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}}])


def _add_layer(store: Path, tar: IO[bytes], made_by: str) -> Layer:
    """Compress a tar stream into the store."""
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    part = store / "layer.part"
    with part.open("wb") as file:
        while True:
            chunk = tar.read(1 << 20)
            plain.update(chunk)
            out = gzip.compress(chunk) if chunk else gzip.flush()
            packed.update(out)
            size += file.write(out)
            if not chunk:
                break
    part.rename(store / "blobs" / "sha256" / packed.hexdigest())
    kind = f"{OCI}.layer.v1.tar+gzip"
    described = {"mediaType": kind, "digest": f"sha256:{packed.hexdigest()}", "size": size}
    return Layer(described, f"sha256:{plain.hexdigest()}", made_by)


def _blob(layout: Path, described: Mapping[str, Any]) -> Path:
    digest: str = described["digest"]
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
