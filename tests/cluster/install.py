"""deephpc on a cluster as a user installs it: a virtual environment in the home, wheels from a folder, no network."""

from __future__ import annotations

import email.parser
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .cluster import Cluster
from .host import HarnessError, call, locked
from .layout import USERS
from .rootfs import cache_dir

WHEELHOUSE = "/scratch/wheelhouse"
GLIBC_TAGS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
LATE_MARKERS = ("typing-extensions",)  # pip judges `python_version` markers by the host's Python, not by the target's


def build_wheel(project: Path, into: Path) -> Path:
    """Build the project's wheel on the host, without looking for its dependencies."""
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    call(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *offline, "-w", str(into), str(project)], timeout=300
    )
    built = sorted(into.glob("*.whl"))
    if len(built) != 1:
        raise HarnessError(f"one wheel expected in {into}, there are {[wheel.name for wheel in built]}")
    return built[0]


def requirements_of(wheel: Path, extras: Sequence[str] = ()) -> tuple[str, ...]:
    """What a wheel asks for, with the given extras, as lines pip understands."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = email.parser.Parser().parsestr(archive.read(name).decode())
    wanted = []
    for line in metadata.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        if "extra" not in marker:
            wanted.append(line)
        elif any(f"'{extra}'" in marker or f'"{extra}"' in marker for extra in extras):
            wanted.append(requirement)
    return tuple(wanted)


def fetch_wheelhouse(requirements: Sequence[str], python: str) -> Path:
    """A folder with a wheel for every requirement and all they need; downloaded only when it is not in the cache."""
    asked = (*sorted(requirements), *LATE_MARKERS, python)
    done = cache_dir() / f"wheels-{hashlib.sha256(repr(asked).encode()).hexdigest()[:10]}"
    with locked(done.with_suffix(".lock"), timeout=600):
        if done.is_dir():
            return done
        fetching = done.with_suffix(".part")
        shutil.rmtree(fetching, ignore_errors=True)
        tags = [word for tag in GLIBC_TAGS for word in ("--platform", f"{tag}_{platform.machine()}")]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", python, *tags]
        call([*pip, "-d", str(fetching), *requirements, *LATE_MARKERS], timeout=600)
        fetching.rename(done)
    return done


def install_deephpc(
    cluster: Cluster, wheel: Path, *, users: Sequence[str] = tuple(USERS), extras: Sequence[str] = ()
) -> None:
    """Install a wheel for users of the cluster into `~/deephpc-venv`, which is on their PATH.

    The environment with the dependencies is made once on a cluster, then kept in the cache as an archive;
    only the wheel itself is installed each time.
    """
    requirements = requirements_of(wheel, extras)
    wheels = fetch_wheelhouse(requirements, cluster.python)
    place = cluster.on_host(WHEELHOUSE)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(wheels, place)
    shutil.copy(wheel, place)
    for path in (place, *place.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for user in users:
        _unpack_or_make_environment(cluster, user, requirements, f"{wheels.name}-{cluster.rootfs.name}")
        pip = "~/deephpc-venv/bin/python -m pip install -q --disable-pip-version-check --no-index"
        cluster.run(f"{pip} --force-reinstall --no-deps {WHEELHOUSE}/{wheel.name}", user=user, timeout=120)


def _unpack_or_make_environment(cluster: Cluster, user: str, requirements: Sequence[str], key: str) -> None:
    """Put the environment with the dependencies into a user's home, as that user."""
    archive = cache_dir() / f"venv-{key}-{user}.tar.zst"
    home = cluster.on_host(f"/home/{user}")
    if (home / "deephpc-venv").exists():
        cluster.run("rm -rf ~/deephpc-venv", user=user)
    if archive.exists():
        call(["tar", "-C", str(home), "--zstd", "-xpf", str(archive)], timeout=120)
        return
    cluster.run("python3 -m venv --system-site-packages ~/deephpc-venv", user=user, timeout=180)
    if requirements:
        pip = ["deephpc-venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
        cluster.run([*pip, "--find-links", WHEELHOUSE, *requirements], user=user, timeout=400)
    part = archive.with_name(f"{archive.name}.{os.getpid()}")
    call(["tar", "-C", str(home), "--zstd", "-cpf", str(part), "deephpc-venv"], timeout=120)
    part.rename(archive)
