"""What the harness does to the host: processes with a deadline, end by pid, locks, name-spaced leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

#: No wait is given up before, on however busy a machine: a deadline ends what hangs, it measures nothing.
LEAST_DEADLINE_S = 180.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HarnessError(Exception):
    """The harness itself could not do its part; the text says what and where to look."""


def call(argv: Sequence[str], *, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a host command without input, with a deadline, and keep what it said."""
    env = {**os.environ, "PATH": PATH + ":" + os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            list(argv),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{' '.join(argv)}: no end after {timeout} s") from error
    except FileNotFoundError as error:
        raise HarnessError(f"{argv[0]} is not installed; run as root: tests/cluster/setup.sh") from error
    if check and done.returncode != 0:
        raise HarnessError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done


def wait_for(
    what: str, condition: Callable[[], bool], *, timeout: float = LEAST_DEADLINE_S, every: float = 0.1
) -> None:
    """Wait until `condition()` holds; a HarnessError that names `what` when it does not in time.

    However short `timeout` is, a busy machine gets `LEAST_DEADLINE_S`.
    """
    timeout = max(timeout, LEAST_DEADLINE_S)
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise HarnessError(f"{what}: not so after {timeout:g} s")
        time.sleep(every)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie is dead (a lazy PID 1 may leave it for seconds)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def children(pid: int) -> list[int]:
    """The direct children of a process, none when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may already be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end(pids: Sequence[int], *, grace: float) -> None:
    """TERM, wait up to `grace` seconds, then KILL and wait until the processes are dead."""
    for pid in pids:
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        send(pid, signal.SIGKILL)
    wait_for(f"end of {pids} after KILL", lambda: not any(map(alive, pids)), timeout=20, every=0.05)


def in_namespace_of(init: int) -> dict[int, str]:
    """Every process in the PID namespace of `init`, as host pid and command name."""
    space = Path(f"/proc/{init}/ns/pid").readlink()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == space and alive(int(entry.name)):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


@contextlib.contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on a file; it goes with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    handle.seek(0)
                    raise HarnessError(f"{path} is held by another session (pid {handle.read().strip()})") from error
                time.sleep(0.2)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
