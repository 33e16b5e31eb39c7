"""From a run's id to its server: which run is one, when it is ready, where it is reached, how it ended (login node)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from deephpc.serve.connection import Address, load_address
from deephpc.serve.endpoint import Endpoint, load_endpoint
from deephpc.workflows.servers import load_stages, service_of
from deephpc.workflows.watch import Schedulers, refresh

_POLL_S = 0.3
_REFRESH_EVERY_S = 3.0
_LOOK_AT_QUEUE_EVERY_S = 20.0
_RUN_ID_BEGINS = "serve-"


class ServerEnded(InputError):  # noqa: N818 - says what happened; a tunnel that was open ends with it, and well
    """The server is gone for good."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A server that is ready: where it is reached from here, and where its certificate and token lie."""

    address: Address
    folder: Path


class Server(Protocol):
    """A server of this user, on this cluster or behind a login node."""

    looks_apart_s: float
    """How rarely to ask whether it still stands."""

    def wait(self) -> Reached:
        """Wait until it is ready.

        Raises
        ------
        ServerEnded
            It never will be.
        """
        ...

    def stands(self, endpoint: Endpoint) -> bool:
        """Whether it is still reached there, as far as is known."""
        ...


class RecordedServer:
    """A server of a run in the record of this machine.

    Parameters
    ----------
    tell
        Takes a line whenever the server gets further on its way.
    """

    def __init__(
        self,
        job: Job,
        record: Record,
        schedulers: Schedulers,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.looks_apart_s = 1.0
        self.job = job
        self._next_refresh = 0.0
        self._record = record
        self._schedulers = schedulers
        self._tell = tell
        self._clock = clock
        self._sleep = sleep

    def wait(self) -> Reached:
        """Wait until it is ready, for as long as its job lives.

        Raises
        ------
        ServerEnded
            Its job has ended.
        """
        seen = ""
        self._next_refresh = 0.0
        while True:
            self._refresh(_REFRESH_EVERY_S)
            endpoint, stages = load_endpoint(self.job.folder), load_stages(self.job.files)
            stage = stages[-1].stage if stages else ""
            if self.job.state.is_final:
                raise _ended(self.job)
            is_running = self.job.state is JobState.RUNNING  # a node that died leaves its endpoint behind
            if is_running and endpoint is not None and stage == "ready":
                return Reached(load_address(self.job.folder), self.job.folder)
            now = stage if is_running and stage else self.job.state.value.lower()
            if now != seen:
                self._tell(f"{self.job.run_id} is not ready yet: {now}")
                seen = now
            self._sleep(_POLL_S)

    def stands(self, endpoint: Endpoint) -> bool:
        """Whether it is still published there, and its job runs."""
        if load_endpoint(self.job.folder) != endpoint:
            return False
        self._refresh(_LOOK_AT_QUEUE_EVERY_S)
        return self.job.state is JobState.RUNNING

    def _refresh(self, every_s: float) -> None:
        """Ask the scheduler how the job stands, unless that was done a moment ago."""
        if time.monotonic() >= self._next_refresh:
            refresh(self._record, self._schedulers, self._clock(), only=[self.job])
            self.job = self._record.get(self.job.run_id)
            self._next_refresh = time.monotonic() + every_s


def find_server(word: str, record: Record) -> Job:
    """Return the run that a word names, which is a server's.

    Raises
    ------
    InputError
        There is no such run, or it is no server.
    """
    job, _ = record.resolve(word)
    service_of(job)
    return job


def is_meant_as_server(word: str, record: Record | None) -> bool:
    """Whether a word, which may also name a module or an image, names a server of the record.

    Raises
    ------
    InputError
        It looks like a server's id, and no run has it, or several have.
    """
    looks_so = word.startswith(_RUN_ID_BEGINS) and not Path(word).exists()
    if record is None:
        return looks_so
    try:
        return record.resolve(word)[0].kind == "serve"
    except InputError:
        if looks_so:
            raise
        return False


def _ended(job: Job) -> ServerEnded:
    why = f": {job.reason}" if job.reason else ""
    return ServerEnded(
        f"the server {job.run_id} has ended ({job.state.value}{why})",
        f"`deephpc why {job.run_id}` says more; `deephpc serve start` starts another",
    )
