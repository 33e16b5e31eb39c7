"""Reads what jobs wrote: whole, by their last lines, or as it grows (login node)."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from deephpc.errors import DataError, InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.workflows.watch import Schedulers, refresh

_CHUNK = 1 << 20
_PAUSE_S = 0.3
_REFRESH_EVERY_S = 3.0
_LONGEST_TAIL = 16 << 20

Emit = Callable[[bytes], None]


class GrowingFile:
    """A file another machine appends to. It is opened anew for every look: NFS shows growth only to a fresh handle."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read_new(self) -> bytes:
        """Return what was added since the last look, at most 1 MiB; a file cut short is read from its start again."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self.offset:
                    self.offset = 0
                file.seek(self.offset)
                data = file.read(_CHUNK)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {error.strerror}", "is the file system of the run folder there?"
            ) from error
        self.offset += len(data)
        return data


def print_log(job: Job, task: int | None, emit: Emit, *, last_lines: int | None = None) -> None:
    """Emit the output of a run, across its attempts; an array's tasks one after the other, each under a heading.

    Raises
    ------
    InputError
        Nothing was written yet.
    DataError
        The run folder is gone.
    """
    _check_folder(job)
    found = False
    for heading, path in log_paths(job, task):
        if not path.exists():
            continue
        found = True
        if heading:
            emit(f"==> {heading} <==\n".encode())
        if last_lines is None:
            file = GrowingFile(path)
            while data := file.read_new():
                emit(data)
        else:
            emit(read_tail(path, last_lines))
    if not found:
        raise InputError(
            f"run {job.run_id} has written nothing yet ({job.state.value})", f"`deephpc why {job.run_id}` says why"
        )


def follow_log(  # noqa: PLR0913 - clock and sleep are for tests
    record: Record,
    schedulers: Schedulers,
    job: Job,
    task: int | None,
    emit: Emit,
    *,
    clock: Callable[[], datetime],
    last_lines: int | None = None,
    look: Callable[[Job], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Emit the output of a run, or of that its last lines, as it grows until the run is final, and return it.

    Parameters
    ----------
    look
        Shown the run as it stands after each look.

    Raises
    ------
    DataError
        The run folder is gone.
    """
    _check_folder(job)
    follower = LogFollower(job, task, emit, last_lines=last_lines)
    next_refresh = 0.0
    while True:
        if not job.state.is_final and time.monotonic() >= next_refresh:
            refresh(record, schedulers, clock(), only=[job], environ=environ)
            job = record.get(job.run_id)
            look(job)
            next_refresh = time.monotonic() + _REFRESH_EVERY_S
        moved = follower.pump()
        is_over = job.state_of(task).is_final
        if is_over and not moved:
            follower.finish()
            return job
        if not moved:
            sleep(_PAUSE_S)


class LogFollower:
    """Emits whole lines of one or many growing logs; lines of array tasks carry their number."""

    def __init__(self, job: Job, task: int | None, emit: Emit, *, last_lines: int | None = None) -> None:
        self._emit = emit
        many = task is None and bool(job.tasks)
        self._files = [
            (f"[{number}] ".encode() if many else b"", _grow(path, last_lines), bytearray())
            for number, path in _task_paths(job, task)
        ]

    def pump(self) -> bool:
        """Emit what is new; return whether there was anything."""
        moved = False
        for prefix, file, rest in self._files:
            data = file.read_new()
            if not data:
                continue
            moved = True
            if not prefix:
                self._emit(data)
                continue
            *lines, tail = (bytes(rest) + data).split(b"\n")
            rest[:] = tail
            self._emit(b"".join(prefix + line + b"\n" for line in lines))
        return moved

    def finish(self) -> None:
        """Emit last lines that have no newline."""
        for prefix, _, rest in self._files:
            if rest:
                self._emit(prefix + bytes(rest) + b"\n")
                rest.clear()


def read_tail(path: Path, lines: int) -> bytes:
    """Return the last lines of a file; of lines beyond 16 MiB only the end."""
    with path.open("rb") as file:
        file.seek(find_tail(path, lines))
        return file.read()


def find_tail(path: Path, lines: int) -> int:
    """Return where the last lines of a file begin, reading it from its end, at most 16 MiB.

    A line ends with a newline alone: the carriage returns of a progress bar are part of it.
    """
    with path.open("rb") as file:
        end = position = file.seek(0, 2)
        while lines > 0 and position > 0 and end - position < _LONGEST_TAIL:
            step = min(64 * 1024, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            cut = len(block) - (position + step == end and block.endswith(b"\n"))
            while (cut := block.rfind(b"\n", 0, cut)) >= 0:
                lines -= 1
                if lines == 0:
                    return position + cut + 1
        return position


def log_paths(job: Job, task: int | None) -> Iterator[tuple[str, Path]]:
    """Return (heading, file) of each log asked for; the heading is empty for a single one."""
    for number, path in _task_paths(job, task):
        yield ("" if task is not None or number is None else f"{job.run_id} task {number}"), path


def _task_paths(job: Job, task: int | None) -> list[tuple[int | None, Path]]:
    if task is not None or not job.tasks:
        return [(task, job.files.task(task).log)]
    return [(number, job.files.task(number).log) for number in sorted(job.tasks)]


def _grow(path: Path, last_lines: int | None) -> GrowingFile:
    return GrowingFile(path, offset=find_tail(path, last_lines) if last_lines is not None and path.exists() else 0)


def _check_folder(job: Job) -> None:
    if job.job_id is not None and not job.folder.exists():
        raise DataError(
            f"the run folder {job.folder} is gone, and what run {job.run_id} wrote with it",
            f"is its file system there? `deephpc why {job.run_id}` says what the record knows",
        )
