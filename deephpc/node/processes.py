"""Finds, signals and buries every process a job started, also those that left its session or lost their parent.

Sources: prctl(2) PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG; proc_pid_stat(5); proc_pid_status(5), SigCgt.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_PROC = Path("/proc")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tie_to_parent(parent: int, number: int) -> bool:
    """Ask for a signal when the parent ends; False when it has ended already."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    return os.getppid() == parent


def reap() -> dict[int, int]:
    """Bury all children that have ended, and return their exit codes by pid; minus the signal that ended one."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def children(parent: int) -> tuple[int, ...]:
    """Return the pids of a process's living children."""
    return tuple(pid for pid, its_parent in _parents() if its_parent == parent)


def descendants(ancestor: int) -> tuple[int, ...]:
    """Return the pids of all living processes below one."""
    below: dict[int, list[int]] = {}
    for pid, parent in _parents():
        below.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        generation = below.get(waiting.pop(), [])
        found += generation
        waiting += generation
    return tuple(found)


def signal_all(pids: tuple[int, ...], number: int) -> None:
    """Send a signal to each; those that are gone, or belong to someone else by setuid, are passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def end_descendants(deadline_s: float = 10.0) -> dict[int, int]:
    """Kill everything below this process and bury it; return exit codes by pid.

    What hangs in the kernel (state D) dies when the kernel lets it go; after the deadline we no longer wait for it.
    """
    ended = reap()
    give_up_at = time.monotonic() + deadline_s
    while time.monotonic() < give_up_at:
        left = descendants(os.getpid())
        if not left:
            break
        signal_all(left, signal.SIGKILL)
        time.sleep(0.005)
        ended |= reap()
    return ended


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, so that the signal tells it something rather than kills it."""
    try:
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return False
    mask = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return bool(mask >> (number - 1) & 1)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each living process with its parent; zombies are not alive."""
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        try:
            stat = (_PROC / entry.name / "stat").read_text(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            yield int(entry.name), int(parent)
