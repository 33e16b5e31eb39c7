"""Builds a given pyslurm source on a cluster, once, and installs it for a user."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.host import HarnessError
from tests.cluster.rootfs import cache_dir

_BUILD = Path(__file__).parent / "build.sh"
_LEFT_OUT = (".git", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.c")


def install_pyslurm(cluster: Cluster, source: Path, *, user: str = "alice") -> None:
    """Install pyslurm of a source folder into a user's deephpc environment; built only when no cached wheel fits."""
    if not (source / "pyslurm" / "version.py").is_file():
        raise HarnessError(f"{source} is no pyslurm source: it has no pyslurm/version.py")
    place = cluster.on_host("/scratch/pyslurm")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place / "source", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    kept = cache_dir() / f"pyslurm-{_hash(place / 'source')}-{cluster.rootfs.name}"
    if not kept.is_dir():
        _build(cluster, place, kept, user)
    shutil.copytree(kept, place / "ready")
    pip = "~/deephpc-venv/bin/python -m pip install -q --disable-pip-version-check --no-index --no-deps"
    cluster.run(f"{pip} --force-reinstall /scratch/pyslurm/ready/*.whl", user=user, timeout=120)


def _build(cluster: Cluster, place: Path, kept: Path, user: str) -> None:
    shutil.copy(_BUILD, place / "build.sh")
    cluster.root(["chown", "-R", user, "/scratch/pyslurm"])
    cluster.run("sh /scratch/pyslurm/build.sh /scratch/pyslurm/source /scratch/pyslurm/built", user=user, timeout=900)
    part = kept.with_name(f"{kept.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(place / "built", part)
    part.rename(kept)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:10]
