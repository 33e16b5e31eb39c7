"""The measurements of containers; run on a login node of the test cluster with the venv deephpc is installed in.

Pulls from a docker-registry on the same machine, conversion to a SIF, the start of a container: ours against the tools
themselves. Prints its rows as JSON on the last line.
"""

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.row import Row, cpu_ms, dump, pairs_ms
from deephpc.containers.container import Container
from deephpc.containers.engine import ENGINES
from deephpc.containers.manifest import local_platform
from deephpc.containers.reference import parse_target
from deephpc.containers.store import Store
from deephpc.workflows.conversion import write_scripts
from deephpc.workflows.image import ImagePlaces, PullRequest, PullResult, carry_out_pull, plan_pull

ROUNDS = 5
STARTS = 15
LAYERS = 10
LAYER_BYTES = 20 << 20
TREE_BYTES = 250 << 20
_NUMBERS = itertools.count()
_OCI = "application/vnd.oci.image"
_BIN = Path(sys.executable).parent


def main() -> None:
    """Run everything and print the rows."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR") or Path.home()) as folder:
        home = Path(folder)
        os.environ.update(
            {
                "PATH": f"{_BIN}:{os.environ['PATH']}",
                "UDOCKER_TARBALL": "",  # nothing is fetched
                "UDOCKER_USE_PROOT_EXECUTABLE": "/usr/bin/proot",
                "UDOCKER_USE_RUNC_EXECUTABLE": "/usr/bin/runc",
                "APPTAINER_TMPDIR": str(home),
            }
        )
        small = build_image(home / "small", [some_files(number) for number in range(LAYERS)])
        with registry_of(home, small) as host:
            rows = pulls(home, f"{host}/bench/tool")
        rows += conversion(home, build_image(home / "tree", [real_files()]))
        rows += start_up(home, small)
    print(dump(rows))


# --- images: layers of files, written by hand ------------------------------------------------------------------------


def build_image(layout: Path, layers: list[bytes]) -> Path:
    """Write an OCI layout with one image of these tar archives, compressed as registries have them."""

    def put(content: bytes) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        path = layout / "blobs" / "sha256" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": f"sha256:{name}", "size": len(content)}

    described = [{"mediaType": f"{_OCI}.layer.v1.tar+gzip", **put(gzip.compress(layer, 1))} for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]}
    platform = {"architecture": local_platform().architecture, "os": "linux"}
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


def some_files(number: int) -> bytes:
    """One layer: a file that does not compress, small ones that do; the first one also has busybox as its system."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        if number == 0:
            for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var", "var/tmp"):
                _add(archive, name, None)
            _add(archive, "bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes())
            for name in ("cat", "chmod", "cp", "env", "ls", "mkdir", "sh", "sleep", "true"):
                member = tarfile.TarInfo(f"bin/{name}")
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(member)
        _add(archive, f"data/{number}", None)
        _add(archive, f"data/{number}/weights", random.Random(number).randbytes(LAYER_BYTES))
        for each in range(100):
            _add(archive, f"data/{number}/{each}.py", f"# module {each}\n".encode() * 100)
    return content.getvalue()


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
def registry_of(home: Path, layout: Path) -> Iterator[str]:
    """Serve an image as bench/tool:latest for the block; yields the registry's host."""
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
        push = ["skopeo", "copy", "-q", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"]
        until = time.monotonic() + 30
        while subprocess.run([*push, f"oci:{layout}", f"docker://{host}/bench/tool:latest"], check=False).returncode:
            if time.monotonic() > until:
                raise TimeoutError("docker-registry does not answer")
        yield host
    finally:
        process.terminate()
        process.wait()


# --- measurements ----------------------------------------------------------------------------------------------------


def pulls(home: Path, name: str) -> list[Row]:
    """Pull an image into an empty place: against what udocker, apptainer and skopeo do for the same image."""
    host = name.partition("/")[0]

    def fresh() -> Path:
        return home / f"pulled-{next(_NUMBERS)}"

    def ours() -> None:
        quietly("deephpc", "--quiet", "image", "pull", f"docker://{name}", DEEPHPC_CACHE_DIR=str(fresh()))

    def in_process() -> None:
        pull_image(Store(fresh()), f"docker://{name}")

    peers: dict[str, Callable[[], None]] = {
        "udocker pull": lambda: quietly(
            *("udocker", "--quiet", "pull", f"--registry=http://{host}", "bench/tool:latest"), UDOCKER_DIR=str(fresh())
        ),
        "apptainer pull (makes a SIF as well)": lambda: quietly(
            *("apptainer", "--silent", "pull", "--no-https", str(fresh()), f"docker://{name}"),
            APPTAINER_CACHEDIR=str(fresh()),
        ),
        "skopeo copy": lambda: quietly(
            *(
                "skopeo",
                "copy",
                "-q",
                "--insecure-policy",
                "--src-tls-verify=false",
                f"docker://{name}",
                f"oci:{fresh()}",
            )
        ),
    }
    rows = []
    for peer, act in peers.items():
        for what, mine in (("deephpc image pull", ours), ("pull inside a running process", in_process)):
            our_ms, peer_ms = pairs_ms(mine, act, ROUNDS)
            rows.append(Row(f"{what}, {LAYERS} layers, {LAYERS * LAYER_BYTES >> 20} MiB", our_ms, peer, peer_ms, "< 1"))
    return rows


def conversion(home: Path, layout: Path) -> list[Row]:
    """Make a SIF of an image that is here: CPU time, against apptainer's own default."""
    result = pull_image(Store(home / "cache/images"), f"oci:{layout}")
    container = _container(home, result, "apptainer")
    script = write_scripts(container, _folder(home / "conversion"), home, ())

    def ours() -> list[str]:
        container.prepared.unlink(missing_ok=True)
        return ["bash", str(script), str(_folder(home / f"private-{next(_NUMBERS)}"))]

    our_ms = cpu_ms(ours(), 1)
    peer_ms = cpu_ms(["apptainer", "build", str(home / "peer.sif"), f"oci:{layout}"], 1)
    what = f"CPU time of making a SIF of {TREE_BYTES >> 20} MiB of software"
    return [Row(what, our_ms, "apptainer build", peer_ms, "≤ 0.2")]


def start_up(home: Path, layout: Path) -> list[Row]:
    """Start `true` in a container as a job does, preflight and all: against the engine called bare."""
    result = pull_image(Store(home / "cache/images"), f"oci:{layout}")
    rows = []
    for engine, bare in {"apptainer": _bare_apptainer, "udocker-p2": _bare_udocker, "udocker-r": _bare_udocker}.items():
        container = _container(home, result, engine)
        script = write_scripts(container, _folder(home / f"start-{engine}"), home, ())
        quietly("bash", str(script), str(_folder(home / f"private-{next(_NUMBERS)}")))

        def ours(script: Path = script) -> None:
            private = _folder(home / f"private-{next(_NUMBERS)}")
            run = {"DEEPHPC_OUTPUT_DIR": str(home / "output"), "DEEPHPC_DATA_DIR": str(home / "data")}
            quietly("bash", str(script), str(private), "/bin/true", **run)

        words, variables = bare(home, engine, layout, container.prepared)
        our_ms, bare_ms = pairs_ms(ours, partial(quietly, *words, **variables), STARTS)
        rows.append(
            Row(
                f"start `true` in {engine}, with preflight and events",
                our_ms,
                f"{ENGINES[engine].program} alone",
                bare_ms,
            )
        )
    return rows


def _bare_apptainer(_home: Path, _engine: str, _layout: Path, prepared: Path) -> tuple[list[str], dict[str, str]]:
    return ["apptainer", "--silent", "exec", str(prepared), "/bin/true"], {}


def _bare_udocker(home: Path, engine: str, layout: Path, _prepared: Path) -> tuple[list[str], dict[str, str]]:
    """Set a container up as a user of udocker would."""
    place = {"UDOCKER_DIR": str(home / f"bare-{engine}")}
    archive = home / f"{engine}.tar"
    quietly("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}", f"docker-archive:{archive}:bench/tool:latest")
    quietly("udocker", "--quiet", "load", "-i", str(archive), "bench/tool", **place)
    quietly("udocker", "--quiet", "create", "--name=bare", "bench/tool:latest", **place)
    mode = {"udocker-p2": "P2", "udocker-r": "R1"}[engine]
    quietly("udocker", "--quiet", "setup", f"--execmode={mode}", "bare", **place)
    words = ["udocker", "--quiet", "run", "--nobanner", "bare", "/bin/true"]
    if mode == "R1":  # without a terminal it always ends with 1
        words = ["script", "-qec", " ".join(words), "/dev/null"]
    return words, place


# --- small things ----------------------------------------------------------------------------------------------------


def quietly(*words: str, **variables: str) -> None:
    """Run a program that must succeed; what it says is shown when it does not."""
    done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def pull_image(store: Store, target: str) -> PullResult:
    """Pull as `deephpc image pull` does, inside this process."""
    request = PullRequest(target=parse_target(target), platform=local_platform())
    places = ImagePlaces(store, os.environ, Path.home())
    return carry_out_pull(plan_pull(request), places, datetime.now(timezone.utc))


def _container(home: Path, result: PullResult, engine: str) -> Container:
    cache = home / "cache"
    found = ENGINES[engine]
    return Container(
        engine=engine,
        engine_command=shutil.which(found.program) or found.program,
        reason="to be measured",
        image=result.name,
        digest=result.digest,
        prepared=found.prepared_path(cache, result.digest),
        layout_dir=result.path,
        cache_dir=cache,
        workdir="/",
    )


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True)
    return path


if __name__ == "__main__":
    main()
