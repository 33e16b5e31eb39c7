"""Locks that hold among processes on several login nodes, and that no dead owner keeps.

A lock is a file made by link(2), which is atomic on NFS too (open(2), O_EXCL). It names its owner. An owner on the same
host that is gone loses it at once: the process id is unused, or in use by a process that started at another time. Any
other owner keeps it alive by a heartbeat on the file's time; whoever waits watches that time change by its own clock,
so that hosts whose clocks differ agree.
"""

import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deephpc.errors import SiteError

_BEAT_S = 5.0
_STALE_S = 45.0
_LONGEST_NAP_S = 0.5
_SHORTEST_NAP_S = 0.02


@dataclass(frozen=True, slots=True)
class Timing:
    """How often an owner gives a sign, and after how long a silence it counts as dead (seconds)."""

    beat_s: float = _BEAT_S
    stale_s: float = _STALE_S
    clock: Callable[[], float] = time.monotonic
    """What tells the time to whoever waits."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock."""

    host: str
    """Node name, boot and process name space: a process id means something only there."""
    pid: int
    started: str
    """Start time in the kernel's ticks (proc_pid_stat(5), field 22)."""
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return an owner that stands for the caller, told apart from every other by its token."""
        return cls(_this_host(), os.getpid(), _start_time(os.getpid()) or "", uuid.uuid4().hex)

    def is_dead(self) -> bool:
        """Say whether the owner is certainly gone; never certain for another host's."""
        if self.host != _this_host():
            return False
        started = _start_time(self.pid)
        return _is_gone(self.pid) if started is None else started != self.started

    def __str__(self) -> str:
        """Return the owner for people."""
        return f"process {self.pid} on {self.host.split()[0]}"


@dataclass
class Lock:
    """A lock that is held; `lost` turns true when somebody took it over because no sign of us was seen."""

    path: Path
    owner: Owner
    lost: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def _beat(self, every_s: float) -> None:
        while not self._released.wait(every_s):
            seen = _read_owner(self.path)
            if seen is None or seen.token != self.owner.token:
                self.lost.set()
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextmanager
def hold(
    path: Path,
    *,
    timeout_s: float,
    timing: Timing = Timing(),
    mode: int = 0o644,
    stop: threading.Event | None = None,
) -> Iterator[Lock]:
    """Hold a lock for the block.

    Parameters
    ----------
    path
        The lock's file; its folder exists.
    timeout_s
        How long to wait for a living owner.
    mode
        Permissions of the file: a colleague takes over only what the folder lets them replace.
    stop
        Ends the wait.

    Raises
    ------
    SiteError
        A living owner kept it all that time, the wait was stopped, or the folder cannot be written.
    """
    lock = Lock(path, _acquire(path, timeout_s, timing, mode, stop or threading.Event()))
    beat = threading.Thread(target=lock._beat, args=(timing.beat_s,), daemon=True)
    beat.start()
    try:
        yield lock
    finally:
        lock._released.set()
        beat.join()
        if not lock.lost.is_set():
            _unlink_if(path, lock.owner.token)


def _acquire(path: Path, timeout_s: float, timing: Timing, mode: int, stop: threading.Event) -> Owner:
    me = Owner.this_process()
    deadline = timing.clock() + timeout_s
    nap, watch = _SHORTEST_NAP_S, _Watch(timing)
    try:
        while not _link(path, me, mode):
            holder = watch.look(path)
            if holder is not None and watch.is_stale(holder):
                _take_away(path, holder, timing, mode)
                continue
            if timing.clock() > deadline or stop.is_set():
                raise SiteError(
                    f"{path} is held by {holder or 'somebody'}, and the wait for it ended",
                    "wait for it to end, or end it",
                    transient=True,
                )
            stop.wait(random.uniform(nap / 2, nap))  # noqa: S311 - spreads the waiters, guards nothing
            nap = min(nap * 1.5, _LONGEST_NAP_S)
    except OSError as error:
        raise SiteError(f"cannot lock {path}: {error.strerror}", "check the folder's permissions and space") from error
    return me


@dataclass
class _Watch:
    """Sees whether a lock's file still changes, by our own clock."""

    timing: Timing
    _seen: tuple[str, int] | None = None
    _since: float = 0.0

    def look(self, path: Path) -> Owner | None:
        """Return who holds the lock; None when it was just released."""
        try:
            with path.open(encoding="utf-8") as file:  # opening makes NFS ask its server, a bare stat may not
                changed = os.fstat(file.fileno()).st_mtime_ns
                owner = _parse_owner(file.read())
        except FileNotFoundError:
            return None
        if self._seen != (owner.token, changed):
            self._seen, self._since = (owner.token, changed), self.timing.clock()
        return owner

    def is_stale(self, holder: Owner) -> bool:
        """Say whether the holder is dead, or gave no sign for too long."""
        return holder.is_dead() or self.timing.clock() - self._since > self.timing.stale_s


def _take_away(path: Path, holder: Owner, timing: Timing, mode: int) -> None:
    """Remove a dead owner's lock; of several who saw it dead one does, and never removes the next owner's."""
    guard = path.with_name(f"{path.name}.takeover")
    me = Owner.this_process()
    if not _link(guard, me, mode):
        watch, deadline = _Watch(timing), timing.clock() + timing.stale_s * 2
        while (other := watch.look(guard)) is not None and timing.clock() < deadline:
            if watch.is_stale(other):
                _unlink_if(guard, other.token)
            time.sleep(_SHORTEST_NAP_S)
        return
    try:
        _unlink_if(path, holder.token)
    finally:
        _unlink_if(guard, me.token)


def _link(path: Path, owner: Owner, mode: int) -> bool:
    """Make the lock's file in one step, with its content; False when it is there already."""
    draft = path.with_name(f".{path.name}.{owner.token}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            json.dump({"host": owner.host, "pid": owner.pid, "started": owner.started, "token": owner.token}, file)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        return True
    finally:
        draft.unlink(missing_ok=True)


def _unlink_if(path: Path, token: str) -> None:
    seen = _read_owner(path)
    if seen is not None and seen.token == token:
        path.unlink(missing_ok=True)


def _read_owner(path: Path) -> Owner | None:
    try:
        return _parse_owner(path.read_text(encoding="utf-8"))
    except OSError:
        return None


def _parse_owner(text: str) -> Owner:
    """Read a lock's file; what is not one of ours belongs to nobody and grows stale like any other."""
    try:
        said = json.loads(text)
        return Owner(str(said["host"]), int(said["pid"]), str(said["started"]), str(said["token"]))
    except (ValueError, KeyError, TypeError):
        return Owner("unknown", 0, "", f"not a lock: {text[:64]}")


def _this_host() -> str:
    """Name this machine so that no other one, no container on it and no earlier boot has the same name."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{os.uname().nodename} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _start_time(pid: int) -> str | None:
    """Return when a process started, `Z` when only its remains wait for their parent; None when nothing is seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return "Z" if fields[0] == "Z" else fields[19]


def _is_gone(pid: int) -> bool:
    """Say whether no process has this id; /proc may hide other people's (proc(5), hidepid), kill(2) does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
