"""What a run folder proves: the result, the events of every attempt, and how the run ended as last judged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import AwareDatetime, ValidationError

from deephpc.jobs.job import Standing
from deephpc.jobs.run_folder import RunFolder, TaskFolder, read_json, read_json_lines, write_atomically
from deephpc.jobs.scheduler import JobId, cluster_of
from deephpc.jobs.state import JobState
from deephpc.model import Model


class Result(Model):
    """How a program ended, as the job script wrote it (`result.json`)."""

    schema_name: Literal["deephpc.result/1"]
    run_id: str
    job_id: str
    task: int | None
    attempt: int
    state: JobState
    exit_code: int
    signal: int | None
    ended_by: Literal["program", "signal", "setup", "script"]
    """`program`: it ended by itself; `signal`: the scheduler or the user ended it; `setup`: it never started."""
    reason: str
    host: str
    nodes: str
    cpus: int
    started_at: AwareDatetime
    ended_at: AwareDatetime
    elapsed_s: float
    cpu_s: float | None
    """CPU seconds of all processes on the first node."""


class Attempt(Model):
    """One start of the job on its nodes."""

    number: int
    job_id: str
    nodes: str = ""
    cpus: int | None = None
    memory_mib: int | None = None
    """What the scheduler gave on each node, where it says; 0 is all of it."""
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    """None: it runs, or ended without a word (its node died, or it was killed)."""
    state: JobState | None = None
    exit_code: int | None = None
    signal: int | None = None
    free: bool = False
    """Whether this start is no requeue: the attempt before it worked, and left a newer checkpoint."""
    edited: tuple[str, ...] = ()
    """Files of its command that were edited between the submission and this start."""
    told: bool | None = None
    """Whether something in the program heard that its end was near; None where nobody was to be told."""
    was_terminated: bool = False
    """Told to end by SIGTERM, whether or not it managed to write how it ended."""
    at_limit: bool = False
    """Whether that was at the time limit."""
    continues: Literal["requeue", "chain"] | None = None
    """How it goes on, where its program asked to be continued: in the same job queued again, or in a successor."""
    earned: bool = False
    """Whether it did its work until its end was near, or for a minute and more: its next start is no requeue then."""
    successor: str | None = None
    """The job submitted to go on with the run, where it could be submitted from this one."""


class KeptStanding(Model):
    """How a run ended, as the record judged it (`standing.json`)."""

    standing: Standing
    tasks: dict[int, JobState]


def load_result(files: TaskFolder) -> Result | None:
    """Read `result.json`; None while there is none. A file that is not one of ours counts as none."""
    raw = read_json(files.result)
    if raw is None:
        return None
    try:
        return Result.model_validate({"schema_name" if key == "schema" else key: value for key, value in raw.items()})
    except ValidationError:
        return None


def load_attempts(files: TaskFolder) -> tuple[Attempt, ...]:
    """Read `events.jsonl` into one Attempt per start, in order."""
    return attempts_of(read_json_lines(files.events))


def attempts_of(events: Iterable[dict[str, Any]]) -> tuple[Attempt, ...]:
    """Fold events into attempts (pure); events without a start before them, and malformed ones, are passed over."""
    attempts: list[Attempt] = []
    for event in events:
        try:
            _fold(attempts, event)
        except (ValidationError, KeyError, TypeError, ValueError):
            continue
    return tuple(attempts)


def newest_job(known: JobId, attempts: Sequence[Attempt]) -> JobId:
    """Return the job in which a run goes on, as far as its folder tells (pure).

    Parameters
    ----------
    known
        The job that was last known for it.
    """
    if not any(attempt.continues == "chain" for attempt in attempts):
        return known
    last, cluster = attempts[-1], cluster_of(known)
    if last.continues == "chain":
        has_begun = any(attempt.job_id == known.partition(";")[0] for attempt in attempts)
        return _there(last.successor, cluster) if has_begun and last.successor else known
    return _there(last.job_id, cluster)


def _there(job_id: JobId, cluster: str) -> JobId:
    """Return a job's id with its cluster: on its node, where its successor is submitted, the number is enough."""
    return f"{job_id};{cluster}" if cluster and not cluster_of(job_id) else job_id


def awaits_successor(known: JobId | None, attempts: Sequence[Attempt]) -> bool:
    """Whether a run is to go on in a job that nobody has told of yet (pure)."""
    if known is None or not attempts or attempts[-1].continues != "chain":
        return False
    number = known.partition(";")[0]
    return newest_job(known, attempts) == known and any(attempt.job_id == number for attempt in attempts)


def write_standing(files: RunFolder, standing: Standing, tasks: Mapping[int, JobState]) -> None:
    """Keep in the run folder how a run ended, so that the record can be rebuilt from it.

    Raises
    ------
    SiteError
        The folder cannot be written.
    """
    kept = KeptStanding(standing=standing.standing(), tasks=dict(tasks))
    write_atomically(files.standing, kept.model_dump_json() + "\n", sync=False)


def load_standing(files: RunFolder) -> KeptStanding | None:
    """Return how a run ended as kept in its folder; None where nothing final was kept."""
    raw = read_json(files.standing)
    try:
        return KeptStanding.model_validate(raw) if raw is not None else None
    except ValidationError:
        return None


def _fold(attempts: list[Attempt], event: dict[str, Any]) -> None:
    if event["event"] == "started":
        attempts.append(
            Attempt(
                number=event["attempt"],
                job_id=event["job_id"],
                nodes=event.get("nodes", ""),
                cpus=event.get("cpus"),
                memory_mib=event.get("memory_mib"),
                started_at=event["at"],
                free=event.get("free", False),
            )
        )
    elif attempts and event["event"] == "edited":
        edited = (*attempts[-1].edited, str(event["file"]))
        attempts[-1] = attempts[-1].model_copy(update={"edited": edited})
    elif attempts and event["event"] == "grace":
        told = attempts[-1].told is True or event["told"] is True
        attempts[-1] = attempts[-1].model_copy(update={"told": told})
    elif attempts and event["event"] == "terminated":
        attempts[-1] = attempts[-1].model_copy(update={"was_terminated": True, "at_limit": event["at_limit"] is True})
    elif attempts and event["event"] == "continued":
        ended = {
            "ended_at": event["at"],
            "exit_code": event["exit_code"],
            "continues": event["by"],
            "earned": event.get("earned", False),
        }
        attempts[-1] = Attempt.model_validate({**attempts[-1].model_dump(), **ended})
    elif attempts and event["event"] == "chained":
        attempts[-1] = Attempt.model_validate({**attempts[-1].model_dump(), "successor": event["successor"]})
    elif attempts and event["event"] == "finished":
        ended = {
            "ended_at": event["at"],
            "state": event["state"],
            "exit_code": event["exit_code"],
            "signal": event["signal"],
            "continues": None,
        }
        attempts[-1] = Attempt.model_validate({**attempts[-1].model_dump(), **ended})
