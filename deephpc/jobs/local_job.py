"""The files through which the local scheduler and a job's supervisor speak to each other.

One folder (0700) per job: `order.json` (what to run; written by the submitter), `view.json` (how it stands; created
once, exclusively, by the one supervisor, and only written by it), `outcome-N.json` (how a task ended; written by its
keeper), `cancel-all`, `cancel-N` and `requeue-N` (requests; empty files), `supervisor.log`.
Free of pydantic: the supervisor starts fast and stays small.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deephpc.errors import SiteError
from deephpc.jobs.run_folder import read_json, read_text, unwritable, write_atomically
from deephpc.jobs.state import JobState

SUPERVISOR_GONE = "the supervisor is gone: it was killed, or the machine was restarted"
_ROOT = Path(__file__).resolve().parents[2]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def module_argv(module: str, *arguments: str) -> list[str]:
    """Return the words that run one of our modules on this Python, whatever the job's environment and folder hold.

    Isolated (`-I`) and without site packages (`-S`): neither PYTHONPATH nor a `json.py` beside the job is looked at.
    """
    start = f"import sys; sys.path.append(sys.argv[1]); from {module} import main; main(sys.argv[2:])"
    return [sys.executable, "-I", "-S", "-c", start, str(_ROOT), *arguments]


def local_job_id(name: str) -> str:
    """Return the id of the job of this name; the same name always gives the same id, so no index is needed."""
    return f"local-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process, told apart from any later one with the same number, on this machine or another."""

    pid: int
    started: int
    """Clock ticks after boot; field 22 of /proc/PID/stat, proc_pid_stat(5)."""
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> "ProcessMark":
        """Mark a living process of this machine."""
        stat = _stat(pid) or ("", 0)
        return cls(pid, stat[1], _boot_id(), socket.gethostname())

    @property
    def is_elsewhere(self) -> bool:
        """Whether the process belongs to another machine, of which nothing can be known from here."""
        return self.host != socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs here; a zombie does not."""
        stat = _stat(self.pid)
        return self.boot == _boot_id() and stat is not None and stat[0] not in "ZX" and stat[1] == self.started

    def send(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class Order:
    """What a supervisor needs to know; the environment is not here but its own."""

    name: str
    token: str
    run_folder: str
    script: str
    tasks: tuple[int | None, ...]
    """The tasks of an array, or (None,) for a plain job."""
    at_once: int | None
    cpus: int
    """Cores each task asked for."""
    walltime_s: float | None
    grace_s: float
    kill_wait_s: float
    dependencies: tuple[tuple[str, tuple[str, ...]], ...]
    submitted_at: float
    """Seconds since the epoch, as every time in these files."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Order":
        """Read what `asdict` and JSON made of an order."""
        dependencies = tuple((kind, tuple(job_ids)) for kind, job_ids in value.pop("dependencies"))
        return cls(**{**value, "tasks": tuple(value["tasks"]), "dependencies": dependencies})


@dataclass(frozen=True, slots=True)
class TaskView:
    """How a job, or one task of an array, stands."""

    task: int | None
    state: JobState = JobState.PENDING
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    keeper: ProcessMark | None = None
    restarts: int = 0
    """How often it was started again because it asked to be continued."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TaskView":
        """Read what `asdict` and JSON made of a view."""
        keeper = value.get("keeper")
        mark = ProcessMark(**keeper) if keeper else None
        return cls(**{**value, "state": JobState(value["state"]), "keeper": mark})


@dataclass(frozen=True, slots=True)
class JobView:
    """How all tasks of a job stand, and which supervisor says so."""

    supervisor: ProcessMark
    tasks: tuple[TaskView, ...] = field(default=())

    @property
    def is_final(self) -> bool:
        """Whether every task has ended."""
        return all(task.state.is_final for task in self.tasks)

    def without_supervisor(self) -> "JobView":
        """Return how the job stands when its supervisor died first: what had not ended has failed with it."""
        return replace(self, tasks=tuple(t if t.state.is_final else _orphaned(t) for t in self.tasks))


@dataclass(frozen=True, slots=True)
class LocalJob:
    """The folder of one job."""

    path: Path

    @property
    def job_id(self) -> str:
        """The job's id, which is the folder's name."""
        return self.path.name

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor and the keepers said; empty unless something is wrong."""
        return self.path / "supervisor.log"

    def load_order(self) -> Order | None:
        """Read the order; None when the job was never submitted."""
        value = read_json(self.path / "order.json")
        return None if value is None else Order.from_json(value)

    def write_order(self, order: Order) -> None:
        """Write the order; the folder is made when it is missing."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path.parent, error, "state_dir") from error
        write_atomically(self.path / "order.json", json.dumps(asdict(order)))

    def claim(self, view: JobView) -> bool:
        """Write the first view, unless there is one: True makes the caller the job's one and only supervisor.

        link(2) either makes the whole file appear or fails, also on NFS.
        """
        draft = self.path / f"view.json.{socket.gethostname()}.{os.getpid()}"
        write_atomically(draft, json.dumps(asdict(view)))
        try:
            os.link(draft, self._view)
        except FileExistsError:
            return False
        except OSError as error:
            raise unwritable(self.path, error, "state_dir") from error
        finally:
            draft.unlink()
        return True

    def write_view(self, view: JobView) -> None:
        """Replace the view."""
        write_atomically(self._view, json.dumps(asdict(view)))

    def load_view(self) -> JobView | None:
        """Read how the job stands, in truth: a supervisor that is gone no longer speaks. None when none ever spoke."""
        view = self._read_view()
        if view is None or view.is_final or view.supervisor.is_elsewhere or view.supervisor.is_alive:
            return view
        last_words = self._read_view()  # it may have ended well between the two looks
        return last_words if last_words is None or last_words.is_final else last_words.without_supervisor()

    def write_outcome(self, outcome: TaskView) -> None:
        """Write how a task ended."""
        write_atomically(self._outcome(outcome.task), json.dumps(asdict(outcome)))

    def load_outcome(self, task: int | None) -> TaskView | None:
        """Read how a task ended; None when its keeper could not say."""
        value = read_json(self._outcome(task))
        return None if value is None else TaskView.from_json(value)

    def forget_outcome(self, task: int | None) -> None:
        """Remove how an earlier start of a task ended."""
        self._outcome(task).unlink(missing_ok=True)

    def requeue_request(self, task: int | None) -> Path:
        """Return the file by which the script of a task asks to be started again."""
        return self.path / f"requeue-{_label(task)}"

    def request_cancel(self, task: int | None) -> None:
        """Leave a request to end the job (None) or one task, and wake the supervisor."""
        if not self.path.is_dir():
            return
        try:
            (self.path / f"cancel-{_label(task)}").touch(mode=0o600)
        except OSError as error:
            raise unwritable(self.path, error, "state_dir") from error
        view = self._read_view()
        if view is not None:
            view.supervisor.send(signal.SIGUSR1)

    def cancel_requests(self) -> Iterator[int | None]:
        """Yield the tasks to end; None means all of them."""
        for request in self.path.glob("cancel-*"):
            label = request.name.removeprefix("cancel-")
            yield None if label == "all" else int(label)

    @property
    def _view(self) -> Path:
        return self.path / "view.json"

    def _outcome(self, task: int | None) -> Path:
        return self.path / f"outcome-{_label(task)}.json"

    def _read_view(self) -> JobView | None:
        value = read_json(self._view)
        if value is None:
            return None
        tasks = tuple(TaskView.from_json(task) for task in value["tasks"])
        return JobView(ProcessMark(**value["supervisor"]), tasks)


def _label(task: int | None) -> str:
    return "all" if task is None else str(task)


def _orphaned(task: TaskView) -> TaskView:
    return replace(task, state=JobState.NODE_FAIL, reason=SUPERVISOR_GONE)


def _boot_id() -> str:
    return (read_text(_BOOT_ID) or "").strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state letter and start time; the name in between may hold spaces and parentheses."""
    try:
        text = read_text(Path(f"/proc/{pid}/stat"))
    except SiteError:  # ESRCH: it ended while we read
        return None
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
