"""A server in the record, as `deephpc serve start` leaves one: a real gateway, its job in a fake queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from tests.fakes.programs import CommandLine
from tests.fakes.samples import a_job
from tests.node.gateway_process import GatewayProcess, gateway

RUN = "serve-demo-1a2b"


class Served:
    """A server that runs, and the queue that says so."""

    def __init__(self, deephpc: CommandLine, running: GatewayProcess) -> None:
        self.running = running
        self._queue = deephpc.slurm / "queue" / "4711"

    @property
    def token(self) -> str:
        """Its secret."""
        return (self.running.folder / "secrets" / "token").read_text().strip()

    def stands(self, state: str, name: str) -> None:
        """Have the queue say so."""
        self._queue.write_text("\x1f".join(["4711", state, "None", "1", "2", "3", "1", "n1", name]) + "\n")

    def end(self, state: str = "CANCELLED") -> None:
        """End the gateway, as the job's end would, and have the queue say so."""
        self.running.process.terminate()
        self.running.wait_for_end()
        name = self._queue.read_text().rstrip("\n").rpartition("\x1f")[2]
        self.stands(state, name)


@contextmanager
def serving(deephpc: CommandLine, mode: str = "ok", state: str = "RUNNING", **service: object) -> Iterator[Served]:
    """Have a server of the fake user."""
    with gateway(mode, **service) as running:
        now = datetime.now(timezone.utc)
        times = {"created_at": now, "submitted_at": now, "seen_at": now}
        job = a_job(running.folder.parent, RUN, site="generic", kind="serve", state=JobState.PENDING, **times)
        job = job.model_copy(update={"folder": running.folder})
        with Record(deephpc.home / "state" / "deephpc.db") as record:
            record.add(job)
        served = Served(deephpc, running)
        served.stands(state, job.job_name)
        yield served
