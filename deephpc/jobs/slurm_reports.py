"""What squeue and sacct are asked about jobs, and how their answers are read.

Both are asked for our own fields with an unprintable delimiter, times as seconds since 1970, whatever the user's
variables say. Lines that make no sense are passed over: a site's wrapper may print what it likes.
Sources: squeue(1) and sacct(1) of Slurm 22.05 and 24.11.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache

from deephpc.jobs.scheduler import JobId, Sighting
from deephpc.jobs.slurm_controller import on_clusters
from deephpc.jobs.slurm_hostlist import expand_hostlist
from deephpc.jobs.slurm_ids import SlurmId, parse_array_ids
from deephpc.jobs.state import JobState

Report = Mapping[JobId, tuple[Sighting, ...]]

_DELIMITER = "\x1f"
#: The name comes last: it is the one field that could hold the delimiter.
_SQUEUE_FORMAT = _DELIMITER.join(("%i", "%T", "%r", "%V", "%S", "%e", "%C", "%N", "%j"))
_SACCT_FIELDS = "JobID,State,Reason,Submit,Start,End,AllocCPUS,NodeList,ExitCode,Cluster,JobName"
_SACCT = (
    "sacct",
    "--allocations",
    "--duplicates",
    "--parsable2",
    "--noheader",
    f"--delimiter={_DELIMITER}",
    f"--format={_SACCT_FIELDS}",
)
_IDS_AT_ONCE = 5000
_CLOCK_SKEW = timedelta(minutes=5)
_LONGEST_HISTORY = timedelta(days=30)
_LAST_SIGNAL = 64
_NO_TIME = frozenset({"", "N/A", "Unknown", "None", "0"})
_NO_NODES = frozenset({"", "None assigned", "(null)"})

_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "POWER_UP_NODE": JobState.PENDING,
    "EXPEDITING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETING": JobState.COMPLETING,
    "STAGE_OUT": JobState.COMPLETING,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "NODE_FAIL": JobState.NODE_FAIL,
    "PREEMPTED": JobState.PREEMPTED,
    "DEADLINE": JobState.DEADLINE,
    "BOOT_FAIL": JobState.BOOT_FAIL,
    # what these say of the job's fate depends on more than the word
    "LAUNCH_FAILED": JobState.UNKNOWN,
    "RECONFIG_FAIL": JobState.UNKNOWN,
    "REVOKED": JobState.UNKNOWN,
    "UPDATE_DB": JobState.UNKNOWN,
}


@lru_cache(maxsize=256)
def parse_state(raw: str) -> JobState:
    """Return our word for Slurm's: `CANCELLED by 0` is CANCELLED, `OUT_OF_ME+` OUT_OF_MEMORY, the unheard-of UNKNOWN.

    A job that was put back into the queue is PENDING, a suspended one RUNNING. Source: job_state_codes.html (26.05).
    """
    words = raw.split()
    word = words[0] if words else ""
    if word.endswith("+"):
        meant = {state for name, state in _STATES.items() if name.startswith(word[:-1])}
        return meant.pop() if len(meant) == 1 else JobState.UNKNOWN
    return _STATES.get(word, JobState.UNKNOWN)


def squeue_argv(user: str, cluster: str = "") -> list[str]:
    """Ask for every job of a user, also those that ended and are still remembered; without exit codes.

    `--all` has those in hidden partitions too.
    One cluster at a time: of several, squeue without a header does not tell which row is of which (22.05 and 24.11).
    """
    argv = ["squeue", f"--user={user}", "--all", "--states=all", "--noheader", f"--format={_SQUEUE_FORMAT}"]
    return [*argv, *on_clusters([cluster])]


def parse_squeue(text: str, cluster: str = "") -> Report:
    """Read what `squeue_argv` brings; a pending array comes as one sighting per task.

    Parameters
    ----------
    cluster
        The one that was asked; job ids carry it, as sbatch gave them.
    """
    found: dict[JobId, list[Sighting]] = {}
    for line in text.split("\n"):
        fields = line.split(_DELIMITER, 8)
        if len(fields) != 9:
            continue
        ids, raw, reason, submit, start, end, cpus, nodes, name = fields
        state = parse_state(raw)
        facts = (  # in the order of Sighting's fields
            state,
            raw,
            "squeue",
            name,
            "" if reason == "None" else reason,
            None,
            None,
            parse_time(submit),
            None if state is JobState.PENDING else parse_time(start),
            parse_time(end) if state.is_final else None,
            _parse_nodes(nodes),
            None,
            _parse_cpus(cpus),
        )
        for slurm_id, task in _tasks(ids):
            job_id = f"{slurm_id.job};{cluster}" if cluster else str(slurm_id.job)
            found.setdefault(job_id, []).append(Sighting(job_id, task, *facts))
    return {job_id: tuple(sightings) for job_id, sightings in found.items()}


def sacct_argv(job_ids: Sequence[str], user: str, cluster: str = "") -> list[str]:
    """Ask for a user's jobs by id, however many and however old; others may have been given the same ids.

    Every incarnation of a requeued job is asked for (`--duplicates`); `parse_sacct` keeps the last and counts. Ids go
    in portions, since Linux limits one argument to 128 KiB (execve(2)); sacct adds `--jobs` up (seen in 22.05).
    """
    portions = (job_ids[start : start + _IDS_AT_ONCE] for start in range(0, len(job_ids), _IDS_AT_ONCE))
    return [
        *_SACCT,
        *on_clusters([cluster]),
        f"--user={user}",
        *(f"--jobs={','.join(portion)}" for portion in portions),
    ]


def sacct_by_name_argv(job_names: Sequence[str], *, user: str, since: datetime | None, cluster: str = "") -> list[str]:
    """Ask for jobs whose id never came back, among a user's since then (30 days back where that is not known).

    Asked this way, sacct leaves out jobs that were never eligible to run: held ones, and those cancelled while held or
    waiting for another (seen in 22.05 and 24.11). squeue has them while they wait.
    """
    begin = (since or datetime.now(timezone.utc) - _LONGEST_HISTORY).astimezone(timezone.utc) - _CLOCK_SKEW
    begin_text = begin.strftime("%Y-%m-%dT%H:%M:%S")
    among = [*on_clusters([cluster]), f"--user={user}", f"--starttime={begin_text}"]
    return [*_SACCT, *among, f"--name={','.join(job_names)}"]


def parse_sacct(text: str, cluster: str = "") -> Report:
    """Read what `sacct_argv` brings: the last incarnation of each job or task, with how often it was requeued before.

    Jobs of one id and different names are different jobs.

    Parameters
    ----------
    cluster
        The one that was asked; job ids carry it, as sbatch gave them.
    """
    latest: dict[tuple[JobId, int | None, str], Sighting] = {}
    for line in text.split("\n"):
        fields = line.split(_DELIMITER, 10)
        if len(fields) != 11:
            continue
        for sighting in _sacct_sightings(fields, cluster):
            key = (sighting.job_id, sighting.task, sighting.name)
            before = latest.get(key)
            if before is None:
                latest[key] = sighting
            else:
                last = before if _is_later(before, sighting) else sighting
                latest[key] = replace(last, restarts=(before.restarts or 0) + 1)
    found: dict[JobId, list[Sighting]] = {}
    for (job_id, _, _), sighting in latest.items():
        found.setdefault(job_id, []).append(sighting)
    return {job_id: tuple(sightings) for job_id, sightings in found.items()}


def _sacct_sightings(fields: list[str], cluster: str) -> Iterator[Sighting]:
    ids, raw, reason, submit, start, end, cpus, nodes, exit_code, _, name = fields
    state = parse_state(raw)
    code, signal = _parse_exit_code(exit_code, state)
    for slurm_id, task in _tasks(ids):
        yield Sighting(
            job_id=f"{slurm_id.job};{cluster}" if cluster else str(slurm_id.job),
            task=task,
            state=state,
            raw_state=raw,
            source="sacct",
            name=name,
            # afterwards the reason is what the job once waited for, not why it ended
            reason="" if state.is_final or reason == "None" else reason,
            exit_code=code,
            signal=signal,
            submitted_at=parse_time(submit),
            started_at=None if state is JobState.PENDING else parse_time(start),
            ended_at=parse_time(end) if state.is_final else None,
            nodes=_parse_nodes(nodes),
            restarts=0,
            cpus=_parse_cpus(cpus),
        )


def _tasks(ids: str) -> Iterator[tuple[SlurmId, int | None]]:
    """Yield the job once, or once per array task; only the leader of a heterogeneous job, and no steps."""
    if ids.isdecimal() and ids.isascii() and 0 < len(ids) < 10:
        yield SlurmId(int(ids)), None
        return
    try:
        slurm_id, tasks = parse_array_ids(ids)
    except ValueError:
        return
    if slurm_id.het or slurm_id.step:
        return
    for task in (None,) if tasks is None else tasks:
        yield slurm_id, task


def _is_later(one: Sighting, other: Sighting) -> bool:
    """Whether `one` was submitted after `other`; of two unknowns or equals the one listed last is the later."""
    return one.submitted_at is not None and other.submitted_at is not None and one.submitted_at > other.submitted_at


@lru_cache(maxsize=4096)
def parse_time(text: str) -> datetime | None:
    """Read seconds since 1970, or Slurm's standard form (in UTC, since our environment says TZ=UTC)."""
    if text in _NO_TIME:
        return None
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), timezone.utc)
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


@lru_cache(maxsize=1024)
def _parse_nodes(text: str) -> tuple[str, ...]:
    if text in _NO_NODES:
        return ()
    try:
        return expand_hostlist(text)
    except ValueError:
        return (text,)


def _parse_cpus(text: str) -> int | None:
    return int(text) or None if text.isdecimal() and len(text) < 10 else None


@lru_cache(maxsize=1024)
def _parse_exit_code(text: str, state: JobState) -> tuple[int | None, int | None]:
    """Read `code:signal`. Slurm writes 0 also for jobs that were cut short, and `0:125` for want of memory."""
    code, colon, signal = text.partition(":")
    if not (state.is_final and colon and code.isdecimal() and signal.isdecimal() and len(text) < 12):
        return None, None
    ended_by = int(signal) if 0 < int(signal) <= _LAST_SIGNAL else None
    return int(code) if int(code) or state is JobState.COMPLETED else None, ended_by
