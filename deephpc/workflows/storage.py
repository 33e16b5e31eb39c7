"""The state of a folder we write to: file system, free space and inodes, quota, the clock of its server."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from deephpc.shell import CommandNotFound, run

_MOUNTS = Path("/proc/self/mountinfo")
_QUOTA_TIMEOUT_S = 5.0
#: File systems that live on another machine, where SQLite's write-ahead log must not be used (sqlite.org/wal.html).
_NETWORK = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "9p", "panfs", "wekafs", "fuse.sshfs"}
)


@dataclass(frozen=True, slots=True)
class FolderState:
    """A folder as it was found; fields are None where nothing could be learned."""

    path: Path
    problem: str | None
    """Why it cannot be written, in words; None when it can."""
    file_system: str | None
    on_network: bool
    free_bytes: int | None
    free_inodes: int | None
    """None too where the file system has no fixed number."""
    skew_s: float | None
    """Seconds the file server's clock is ahead of ours."""


def inspect_folder(path: Path) -> FolderState:
    """Look at a folder, or at its nearest parent where it does not exist yet; leaves nothing behind."""
    place = _existing(path)
    problem, skew = _try_writing(place)
    kind = file_system_of(place)
    try:
        stats = os.statvfs(place)
    except OSError:
        return FolderState(path, problem, kind, kind in _NETWORK, None, None, skew)
    inodes = stats.f_favail if stats.f_files else None
    return FolderState(path, problem, kind, kind in _NETWORK, stats.f_bavail * stats.f_frsize, inodes, skew)


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the kind of file system a path lies on, such as ext4, nfs4 or lustre (proc_pid_mountinfo(5))."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        real = os.path.realpath(path)
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        before, dash, after = line.partition(" - ")
        words = before.split()
        if not dash or len(words) < 5:
            continue
        point = words[4].encode().decode("unicode_escape")  # spaces are written \040
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def quota_report(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return what `lfs quota` or `quota` says about the user, whitespace folded; None where neither answers."""
    place = _existing(path)
    lustre = ["lfs", "quota", "-q", "-h", "-u", str(os.getuid()), str(place)]
    for argv in [lustre] if file_system_of(place) == "lustre" else [["quota", "-s", "-w"]]:
        if shutil.which(argv[0], path=environ.get("PATH")) is None:
            continue
        try:
            completed = run(argv, timeout_s=_QUOTA_TIMEOUT_S, env=environ)
        except CommandNotFound:
            continue
        text = "; ".join(" ".join(line.split()) for line in completed.stdout.splitlines() if line.strip())
        if text and not completed.timed_out:
            return text
    return None


def _existing(path: Path) -> Path:
    for place in (path, *path.parents):
        if place.is_dir():
            return place
    return Path("/")


def _try_writing(place: Path) -> tuple[str | None, float | None]:
    """Write a small file and see when its server thinks it was written."""
    before = time.time()
    try:
        with NamedTemporaryFile(dir=place, prefix=".deephpc-doctor-") as file:
            file.write(b"deephpc doctor\n")
            file.flush()
            os.fsync(file.fileno())
            written = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        return f"{place}: {error.strerror}", None
    after = time.time()
    # the kernel stamps local files with a clock that ticks every few milliseconds, some servers in whole seconds
    return None, 0.0 if before - 1 <= written <= after + 1 else written - (before + after) / 2
