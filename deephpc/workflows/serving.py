"""Stays with a server from its submission until it is ready or will never be, and sees it to its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deephpc.containers.engine import NATIVE
from deephpc.errors import DeephpcError, EngineError, ProgramError, SiteError
from deephpc.jobs.evidence import load_result
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.workflows.keep import cancel_jobs
from deephpc.workflows.plan import load_plan
from deephpc.workflows.servers import NOT_NOTED, QUEUED, Server, Stage, gather_server, service_of
from deephpc.workflows.watch import Schedulers, refresh, wait_for

_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0
#: How late it may be noticed that a server is ready, as a part of what that took.
_LATE = 0.02
_REFRESH_S = 2.0
#: What a gateway that works may take beyond the deadline that it keeps itself, and a job beyond its server's end.
_SLACK_S = 60.0
_ENDS_WITHIN = timedelta(seconds=120)


@dataclass(frozen=True)
class Desk:
    """What it takes to look after a run."""

    record: Record
    schedulers: Schedulers
    clock: Callable[[], datetime]
    sleep: Callable[[float], None] = time.sleep


@dataclass
class _Deadlines:
    """When a server that says nothing more is given up."""

    ready_within_s: float
    runs_since: float | None = field(default=None)
    failed_since: float | None = field(default=None)

    def passed(self, server: Server) -> str:
        """Return why it is given up; nothing while there is hope. The time in the queue does not count."""
        now = time.monotonic()
        if server.stage == QUEUED:
            self.runs_since = None
            return ""
        self.runs_since = now if self.runs_since is None else self.runs_since
        if server.stage == "failed":
            self.failed_since = now if self.failed_since is None else self.failed_since
            return server.reason if now - self.failed_since > _SLACK_S else ""
        late = now - self.runs_since > self.ready_within_s + _SLACK_S
        return f"it was not ready within {self.ready_within_s:g} s, and its gateway says nothing of it" if late else ""


@dataclass
class _Progress:
    """Tells of each stage once, in an order that no clock of a node's can break."""

    say: Callable[[Stage], None]
    told: tuple[Stage, ...] = ()
    waits: tuple[str, str] = ("", "")
    latest: datetime | None = None

    def tell(self, stage: Stage) -> None:
        """Tell of a stage, which came no sooner than the one before."""
        self.latest = stage.at if self.latest is None else max(self.latest, stage.at)
        self.say(stage.model_copy(update={"at": self.latest}))

    def begin(self, job: Job) -> None:
        """Tell that it was queued, which a job that starts at once would hide."""
        self.waits = (QUEUED, "")
        self.tell(Stage(stage=QUEUED, at=job.submitted_at or job.created_at))

    def show(self, server: Server, now: datetime) -> None:
        """Tell what has not been told yet."""
        if server.stages[: len(self.told)] != self.told:  # its job was queued again, and it starts anew
            self.told = ()
        for stage in server.stages[len(self.told) :]:
            self.tell(stage)
        self.told = server.stages
        waits = (server.stage, server.reason)
        if server.stage in NOT_NOTED and waits != self.waits:
            self.waits = waits
            self.tell(Stage(stage=server.stage, at=now, reason=server.reason))


def wait_until_ready(job: Job, desk: Desk, tell: Callable[[Stage], None]) -> Server:
    """Wait until a server is ready; `tell` gets every stage it reaches.

    A server that gives no sign of life by its deadline is cancelled; the job of one that fails ends by itself.

    Raises
    ------
    ProgramError
        It failed, or its job ended.
    EngineError, SiteError
        It never started: its image, or the node, is at fault.
    """
    deadlines = _Deadlines(service_of(job).ready_within_s)
    progress = _Progress(tell)
    progress.begin(job)
    began, refreshed_at = time.monotonic(), -_REFRESH_S
    while True:
        if time.monotonic() - refreshed_at >= _REFRESH_S:
            refresh(desk.record, desk.schedulers, desk.clock(), only=[job])
            job, refreshed_at = desk.record.get(job.run_id), time.monotonic()
        server = gather_server(job)
        progress.show(server, desk.clock())
        if server.stage == "ready":
            return server
        if job.state.is_final:
            raise _failure(server, job)
        given_up = deadlines.passed(server)
        if given_up:
            stop_server(job, desk)
            raise ProgramError(f"{job.run_id} failed: {given_up}; it is cancelled", _hint(job))
        desk.sleep(min(max(_LOOK_S, _LATE * (time.monotonic() - began)), _LONGEST_LOOK_S))


def stop_server(job: Job, desk: Desk) -> Job:
    """End a server and wait until nothing of it is left in the queue; one that has ended stays as it is.

    Raises
    ------
    SiteError
        The scheduler does not answer, or it takes too long (transient).
    """
    if job.state.is_final:
        return job
    cancel_jobs([(job, None)], desk.record, desk.schedulers, desk.clock())
    (job,) = wait_for(
        desk.record,
        desk.schedulers,
        [(job.run_id, None)],
        clock=desk.clock,
        timeout=_ENDS_WITHIN,
        tell=lambda _line: None,
        sleep=desk.sleep,
    )
    return job


def _failure(server: Server, job: Job) -> DeephpcError:
    """Return the error for a server whose job has ended, by who can mend it."""
    result = load_result(job.files.task(None))
    reason = server.reason or f"its job ended {job.state.value}"
    message = f"{job.run_id} failed: {reason}" if server.stage == "failed" else f"{job.run_id} ended: {reason}"
    if result is None or result.ended_by != "setup":
        return ProgramError(message, _hint(job))
    plan = load_plan(job.files)
    is_native = plan is None or plan.engine == NATIVE
    return (SiteError if is_native else EngineError)(message, _hint(job))


def _hint(job: Job) -> str:
    return f"`deephpc logs {job.run_id}` shows all it wrote, `deephpc why {job.run_id}` what to do"
