"""Starts every process deephpc starts: argv lists only, always with a deadline."""

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deephpc.errors import SiteError

_PR_SET_PDEATHSIG = 1
_LAST_WORDS_S = 1.0
_GOES_S = 2.0
_TAIL_BYTES = 4096
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a process left behind.

    `returncode` is None when the deadline passed and the process was killed; a negative value is minus the signal.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str
    stderr: str

    @property
    def timed_out(self) -> bool:
        """Whether the deadline passed before the process ended."""
        return self.returncode is None

    @property
    def ok(self) -> bool:
        """Whether the process ended in time with status 0."""
        return self.returncode == 0

    def last_words(self) -> str:
        """Return the last line of stderr, or of stdout, for a one-line error message."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip() if lines else ""


class CommandNotFound(SiteError):  # noqa: N818 - says what happened; callers catch it as such
    """The program is not on PATH."""


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    dies_with_us: bool = False,
) -> Completed:
    """Run a process to its end or to its deadline; its output is decoded as UTF-8, bytes that are not are replaced.

    Parameters
    ----------
    dies_with_us
        Have the kernel kill the process when we are killed (`PR_SET_PDEATHSIG`, prctl(2)), so that no sbatch is left
        behind that submits later. It costs a full fork, some milliseconds.

    Raises
    ------
    CommandNotFound
        The program does not exist or may not be executed.
    """
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()) if dies_with_us else None,  # noqa: PLW1509 - two calls, no lock
        )
    except (FileNotFoundError, PermissionError) as error:
        if cwd is not None and not cwd.is_dir():
            raise SiteError(f"the folder {cwd} does not exist", "check work_dir with `deephpc config show`") from error
        raise _not_found(argv[0]) from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_s)
            return Completed(tuple(argv), process.returncode, stdout, stderr)
        except subprocess.TimeoutExpired:
            _kill_session(process)
            return Completed(tuple(argv), None, *_last_output(process))
        except BaseException:
            _kill_session(process)
            raise


class Child:
    """A process that works beside us, and ends when we do, however we end."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._last_words = ""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """End it and its children, if need be: asked first, killed soon after."""
        if self._process.poll() is None:
            _kill_session(self._process)
        self._last_words = self.last_words()
        self._errors.close()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        return self._process.wait(timeout)

    def last_words(self) -> str:
        """Return the last line it wrote to stderr."""
        if self._errors.closed:
            return self._last_words
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def start_child(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Child:
    """Start a process that works beside us, in a session of its own: Ctrl-C reaches us alone.

    The kernel kills it when the thread that starts it ends (`PR_SET_PDEATHSIG`, prctl(2)); start it from the main one.

    Raises
    ------
    CommandNotFound
        The program does not exist or may not be executed.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - two calls, no lock
        )
    except (FileNotFoundError, PermissionError) as error:
        errors.close()
        raise _not_found(argv[0]) from error
    return Child(process, errors)


def start_detached(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, descriptors: Sequence[int] = ()
) -> int:
    """Start a process that outlives us, in a session of its own, and return its pid.

    Parameters
    ----------
    log
        File that takes stdout and stderr, appended; created 0600.
    descriptors
        Those of ours that stay open in it.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=tuple(descriptors),
        )
    finally:
        os.close(descriptor)
    process.returncode = 0  # it is nobody's to wait for: keeps Popen.__del__ from warning
    return process.pid


def signal_name(number: int) -> str:
    """Return a signal's number, with its name where it has one."""
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _not_found(program: str) -> CommandNotFound:
    return CommandNotFound(f"{program}: command not found", "run `deephpc doctor` to see what is missing")


def _kill_session(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """End a process and its children: asked first, since an srun that is killed leaves its job in the queue."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_GOES_S)
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):  # a loaded machine is slow even at that
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_GOES_S)


def _last_output(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what a killed process wrote: all, or where one in a session of its own still holds the pipes, so far."""
    try:
        return process.communicate(timeout=_LAST_WORDS_S)
    except subprocess.TimeoutExpired as held:  # whose output is bytes, whatever was asked for
        return _decoded(held.stdout), _decoded(held.stderr)


def _decoded(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


class _die_with:  # noqa: N801 - reads as a verb where it is used
    """Ask the kernel to kill the child when its parent dies; called between fork and exec."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __call__(self) -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.parent:  # the parent died before prctl
            os._exit(127)
