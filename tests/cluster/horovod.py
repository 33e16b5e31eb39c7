"""Horovod for the PyTorch of the cluster's nodes, as a folder for PYTHONPATH: `tools/build-horovod.sh`, cached.

Built in a copy of the nodes' root file system with a compiler added: 205 s and 150 CPU seconds on two busy cores, once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from .cluster import Cluster
from .host import call, locked
from .rootfs import RECIPES, cache_dir, fetch_rootfs, mirror

PROJECT = Path(__file__).resolve().parents[2]
TOOL = PROJECT / "tools" / "build-horovod.sh"
COMPILER = ("g++", "cmake", "make", "libtorch-dev", "pybind11-dev")
SDIST = "horovod==0.28.1"
ALSO_NEEDED = "cloudpickle==3.1.2"  # the rest of what it imports comes with the nodes
_RELEASE = "trixie"
_IN_TREE = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/tree"
mount --bind /dev "$2/tree/dev"
mount -t proc proc "$2/tree/proc"
cp -L /etc/resolv.conf "$2/tree/etc/resolv.conf"
printf 'deb %s %s main\\n' "$3" "$4" >"$2/tree/etc/apt/sources.list"
cp "$5" "$6" "$2/tree/var/"
tree=$2/tree
run() { chroot "$tree" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
tool=/var/${5##*/} sdist=/var/${6##*/}
shift 6
run apt-get update -qq
run apt-get install -qq -y --no-install-recommends "$@" >/dev/null
run nice -n 10 bash "$tool" /usr/bin/python3 /var/wheels "$sdist"
"""


def fetch_horovod() -> Path:
    """Return the folder, owned by nobody in particular; built now when it is not in the cache."""
    rootfs = fetch_rootfs(_RELEASE)
    content = TOOL.read_bytes() + repr((COMPILER, SDIST, ALSO_NEEDED)).encode()
    done = cache_dir() / f"horovod-{hashlib.sha256(content).hexdigest()[:10]}-{rootfs.name}"
    with locked(cache_dir() / "horovod.lock", timeout=900):
        if not done.is_dir():
            for stale in cache_dir().glob("building-horovod-*"):
                call(["rm", "-rf", "--one-file-system", str(stale)], timeout=120)
            building = Path(tempfile.mkdtemp(prefix="building-horovod-", dir=cache_dir()))
            _build(rootfs, building)
            (building / "done").rename(done)
            call(["rm", "-rf", "--one-file-system", str(building)], timeout=120)
    return done


def put_horovod(cluster: Cluster, path: str) -> str:
    """Copy it to a path of the cluster, readable for everybody; returns the path."""
    place = cluster.on_host(path)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(fetch_horovod(), place)
    for each in (place, *place.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return path


def start_building(module: str) -> Callable[[], None]:
    """Build it, or what `module` builds with it, in a process of its own; returns what ends that process.

    Whoever needs it waits for the lock.
    """
    building = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def end() -> None:
        if building.poll() is None:
            os.killpg(building.pid, signal.SIGTERM)
            building.wait(timeout=10)

    return end


def _build(rootfs: Path, building: Path) -> None:
    for name in ("upper", "work", "tree", "done", "downloads"):
        (building / name).mkdir()
    downloads = building / "downloads"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-d",
        str(downloads),
    ]
    call([*pip, "--no-binary", ":all:", SDIST], timeout=300)
    call([*pip, "--only-binary", ":all:", "--python-version", RECIPES[_RELEASE].python, ALSO_NEEDED], timeout=120)
    [sdist] = downloads.glob("*.tar.gz")
    inside = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _IN_TREE, "build"]
    call([*inside, str(rootfs), str(building), mirror(), _RELEASE, str(TOOL), str(sdist), *COMPILER], timeout=900)
    [wheel] = (building / "upper" / "var" / "wheels").glob("*/*.whl")
    for packed in (wheel, *downloads.glob("*.whl")):
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(building / "done")


if __name__ == "__main__":
    print(fetch_horovod())
