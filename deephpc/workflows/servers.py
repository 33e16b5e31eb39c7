"""How servers stand: the stages their gateways noted, where they are reached, what they answer now (login node)."""

import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta

import httpx
from pydantic import ValidationError

from deephpc.errors import DeephpcError, InputError, SiteError
from deephpc.jobs.job import Job
from deephpc.jobs.run_folder import RunFolder, read_json_lines
from deephpc.jobs.state import JobState
from deephpc.model import Model
from deephpc.serve.connection import load_address, open_session
from deephpc.serve.endpoint import load_endpoint
from deephpc.serve.service import Service, load_service
from deephpc.workflows.trained import tell_opened

_ANSWERS_S = 5.0
_CLOCK_SKEW = timedelta(seconds=10)
#: Stages that no gateway notes.
NOT_NOTED = QUEUED, _STARTING, _ENDED = "queued", "starting", "ended"


class Stage(Model):
    """One stage that a server reached, as its gateway noted it, or before that as its job tells."""

    stage: str
    at: datetime
    after_s: float = 0.0
    """How long the stage before it took."""
    reason: str = ""
    host: str = ""
    port: int | None = None
    """Where the gateway listens, at the stage where it begins to."""
    model: str | None = None
    last_lines: tuple[str, ...] = ()


_NOTED = tuple(Stage.model_fields)


class Server(Model):
    """One server and how it stands."""

    run_id: str
    job_id: str | None
    kind: str
    """deepaas, jupyter or command."""
    target: str
    model: str | None
    """The module that is served, by its own name; None while that is not known."""
    state: JobState
    stage: str
    """queued, starting, listening, loading, warming, ready, failed, stopping or ended."""
    reason: str
    """Why it waits, failed or ended, or what is to be known of one that is ready."""
    host: str | None = None
    port: int | None = None
    url: str | None = None
    """Where the gateway is reached from machines that see the node; None when it is not."""
    started_at: datetime | None
    ends_at: datetime | None = None
    """When its job reaches its time limit."""
    stages: tuple[Stage, ...]
    opened: str = ""
    """Which files of its models it opened so far, as a sentence; empty where nothing noted that."""
    last_lines: tuple[str, ...] = ()
    """The end of what it wrote before it failed."""
    folder: str

    def time_left_s(self, now: datetime) -> int | None:
        """Return how long the job has; None when that is not known, or it does not run."""
        return None if self.ends_at is None else max(0, int((self.ends_at - now).total_seconds()))


class Reply(Model):
    """What a server said when it was asked whether it is ready."""

    reached: bool
    ready: bool = False
    said: str = ""


def load_stages(folder: RunFolder) -> tuple[Stage, ...]:
    """Return the stages of a run's newest attempt, in order; lines that are none of the gateway's are passed over."""
    stages: list[Stage] = []
    for event in read_json_lines(folder.task(None).events):
        if event.get("event") == "started":
            stages.clear()
        elif event.get("event") == "serve":
            with contextlib.suppress(ValidationError):
                stages.append(Stage.model_validate({name: event[name] for name in _NOTED if name in event}))
    return tuple(stages)


def gather_server(job: Job) -> Server:
    """Return how a server stands, from its row and its run folder.

    Raises
    ------
    InputError
        The run is no server, or its folder is gone.
    """
    service = service_of(job)
    stages = load_stages(job.files)
    last = stages[-1] if stages else None
    server = Server(
        run_id=job.run_id,
        job_id=job.job_id,
        kind=service.kind,
        target=job.target,
        model=next((stage.model for stage in stages if stage.model), service.model),
        state=job.state,
        stage=_stage(job, last),
        reason=(last.reason if last and last.stage in ("failed", "ready") else "") or job.reason,
        started_at=job.started_at,
        stages=stages,
        opened=tell_opened(job.files) if any(stage.stage == "ready" for stage in stages) else "",
        last_lines=last.last_lines if last else (),
        folder=str(job.folder),
    )
    return server if server.stage in (*NOT_NOTED, "failed", "stopping") else _with_endpoint(server, job)


def gather_servers(jobs: Iterable[Job]) -> tuple[list[Server], tuple[str, ...]]:
    """Return how servers stand, and one line for each whose folder tells nothing any more."""
    servers, troubles = [], []
    for job in jobs:
        try:
            servers.append(gather_server(job))
        except DeephpcError as error:
            troubles.append(error.message)
    return servers, tuple(troubles)


def service_of(job: Job) -> Service:
    """Return what a run serves.

    Raises
    ------
    InputError
        It is no server, or its folder is gone.
    """
    if job.kind != "serve":
        raise InputError(f"run {job.run_id} is no server", "`deephpc serve list` shows the servers")
    return load_service(job.folder)


def ask_server(job: Job) -> Reply:
    """Ask a server from here whether it is ready; where it cannot be reached, say so."""
    try:
        with open_session(load_address(job.folder), _ANSWERS_S) as session:
            answer = session.get("/ready")
    except InputError:
        return Reply(reached=False, said="it has no address")
    except httpx.HTTPError as error:
        return Reply(reached=False, said=str(error) or type(error).__name__)
    is_ready = answer.status_code == httpx.codes.OK
    return Reply(reached=True, ready=is_ready, said="" if is_ready else _said(answer))


def _with_endpoint(server: Server, job: Job) -> Server:
    try:
        endpoint = load_endpoint(job.folder)
    except SiteError as error:
        return server.model_copy(update={"reason": error.message})
    if endpoint is None:
        return server
    where = {"host": endpoint.host, "port": endpoint.port, "url": f"https://{endpoint.host}:{endpoint.port}"}
    return server.model_copy(update={**where, "ends_at": endpoint.ends_at})


def _stage(job: Job, last: Stage | None) -> str:
    if job.state.is_final:
        return "failed" if last is not None and last.stage == "failed" else _ENDED
    waits = job.state is JobState.PENDING or job.state.is_unsent
    if last is None or (waits and job.seen_at is not None and job.seen_at - last.at > _CLOCK_SKEW):  # queued again
        return QUEUED if waits else _STARTING
    return last.stage


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {answer.status_code}"
