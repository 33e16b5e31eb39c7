"""Images whose layers are written here, a docker-registry on this machine that has them, and a pull into a store."""

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from deephpc.containers.manifest import local_platform
from deephpc.containers.reference import parse_target
from deephpc.containers.store import Store
from deephpc.workflows.image import ImagePlaces, PullRequest, PullResult, carry_out_pull, plan_pull

IMAGE_BYTES = 200 << 20
TREE_BYTES = 250 << 20
SMALL_FILES = 1000
_OCI = "application/vnd.oci.image"
_PUSH = ("skopeo", "copy", "-q", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false")
_DEADLINE_S = 30.0


def build_image(layout: Path, layers: Iterable[bytes], level: int = 1) -> Path:
    """Write an OCI layout with one image of these tar archives, compressed as registries have them.

    Parameters
    ----------
    level
        Of gzip; 0 saves time where nothing compresses.
    """

    def put(content: bytes) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        path = layout / "blobs" / "sha256" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": f"sha256:{name}", "size": len(content)}

    described, diff_ids = [], []
    for layer in layers:
        described.append({"mediaType": f"{_OCI}.layer.v1.tar+gzip", **put(gzip.compress(layer, level))})
        diff_ids.append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
    platform = {"architecture": local_platform().architecture, "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = put(json.dumps({**platform, "rootfs": rootfs, "config": {"Env": ["PATH=/bin"]}}).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {"mediaType": f"{_OCI}.config.v1+json", **config},
        "layers": described,
    }
    named = {"mediaType": f"{_OCI}.manifest.v1+json", **put(json.dumps(manifest).encode())}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return layout


def build_layered(layout: Path, count: int) -> Path:
    """Write an image of IMAGE_BYTES in so many layers."""
    return build_image(layout, (_some_files(number, count) for number in range(count)), level=0)


def _some_files(number: int, count: int) -> bytes:
    """One layer of many: a file that does not compress, small ones that do; the first one also has busybox."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        if number == 0:
            _add_busybox(archive)
        _add(archive, f"data/{number}", None)
        _add(archive, f"data/{number}/weights", os.urandom(IMAGE_BYTES // count))
        for each in range(SMALL_FILES // count):
            _add(archive, f"data/{number}/{each}.py", f"# module {each}\n".encode() * 100)
    return content.getvalue()


def _add_busybox(archive: tarfile.TarFile) -> None:
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var", "var/tmp"):
        _add(archive, name, None)
    _add(archive, "bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes())
    for name in ("cat", "chmod", "cp", "env", "ls", "mkdir", "sh", "sleep", "true"):
        member = tarfile.TarInfo(f"bin/{name}")
        member.type, member.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(member)


def real_files() -> bytes:
    """One layer of this machine's own files, so that they compress as software does."""
    content, size = io.BytesIO(), 0
    with tarfile.open(fileobj=content, mode="w") as archive:
        for place in ("/usr/lib/python3", "/usr/share", "/usr/lib"):
            for path in sorted(Path(place).rglob("*")):
                if size > TREE_BYTES or not path.is_file() or path.is_symlink() or not os.access(path, os.R_OK):
                    continue
                size += path.stat().st_size
                _add(archive, str(path).lstrip("/"), path.read_bytes())
    return content.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes | None) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o755
    if content is None:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


@contextmanager
def registry_of(home: Path, layouts: Mapping[str, Path]) -> Iterator[str]:
    """Serve images under their names (repository:tag) for the block; yields the registry's host."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{found.getsockname()[1]}"
    config = home / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/registry}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_listener(host)
        for name, layout in layouts.items():
            subprocess.run([*_PUSH, f"oci:{layout}", f"docker://{host}/{name}"], check=True)
        yield host
    finally:
        process.terminate()
        process.wait()


def _await_listener(host: str) -> None:
    address, _, port = host.partition(":")
    until = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection((address, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise TimeoutError("docker-registry does not answer") from None
            time.sleep(0.05)


def pull_image(store: Store, target: str) -> PullResult:
    """Pull as `deephpc image pull` does, inside this process."""
    request = PullRequest(target=parse_target(target), platform=local_platform())
    places = ImagePlaces(store, os.environ, Path.home())
    return carry_out_pull(plan_pull(request), places, datetime.now(timezone.utc))
