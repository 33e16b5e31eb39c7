"""Submits a run exactly once, whatever happens to the scheduler, the network or ourselves.

The run stands in the record with its token before anything is sent. The token travels in the job's name, so a job
whose submission got no clear answer is found and adopted before anything is sent again. Slurm can lose an answer and
keep the job (https://slurm.schedmd.com/sbatch.html gives up after MessageTimeout while slurmctld still holds the
request), so a lookup counts as "not there" only after two looks that the queue answered, some seconds apart. Should two
jobs of one run reach the queue all the same, the job script's claim lets only the first one run.
"""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.jobs.run_folder import RunFolder, read_json, read_text, write_atomically
from deephpc.jobs.scheduler import Ambiguous, JobId, Question, Scheduler, Submission


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to look for a job whose submission got no answer; seconds."""

    deadline_s: float = 30.0
    """Give up after this, leaving the run to the next command."""
    settle_s: float = 3.0
    """Two looks that find nothing must lie this far apart."""
    pause_s: float = 1.0
    """Between looks, with jitter."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A job the scheduler has."""

    job_id: JobId
    was_adopted: bool
    """Found in the queue rather than answered by the submission."""
    warning: str = ""
    """One line for the user, or empty."""
    said: tuple[str, ...] = ()
    """What the site said as it took the job."""


def place(
    submission: Submission,
    scheduler: Scheduler,
    *,
    created_at: datetime,
    may_be_queued: bool,
    but_not: frozenset[JobId] = frozenset(),
    patience: Patience = Patience(),
    sleep: Callable[[float], None] = time.sleep,
) -> Placed:
    """Bring a job into the queue once (login node).

    Parameters
    ----------
    created_at
        When the run was recorded; no job of it is older.
    may_be_queued
        True when an earlier try got no clear answer: look before sending.
    but_not
        Jobs of this run that have ended, to go on with which is what this one is for.

    Raises
    ------
    Refused
        The scheduler said no; nothing is queued.
    SiteError
        No clear answer within the deadline (transient); the job may be queued, the next command will know.
    """
    search = _Search(submission, scheduler, created_at, but_not, patience, sleep)
    adopted = search.run() if may_be_queued else None
    while adopted is None:
        try:
            accepted = scheduler.submit(submission)
            return Placed(accepted.job_id, was_adopted=False, said=accepted.said)
        except Ambiguous as doubt:
            search.doubt = str(doubt)
            adopted = search.run()
            if adopted is None and search.is_late:
                raise search.no_clear_answer() from doubt
    return adopted


class _Search:
    """Looks one run's job up until the queue's answer is certain or the deadline passes."""

    def __init__(
        self,
        submission: Submission,
        scheduler: Scheduler,
        created_at: datetime,
        but_not: frozenset[JobId],
        patience: Patience,
        sleep: Callable[[float], None],
    ) -> None:
        self.submission = submission
        self.scheduler = scheduler
        clusters = submission.clusters or ("",)
        self.question = Question(job_names=(submission.job_name,), since=created_at, name_clusters=clusters)
        self.but_not = but_not
        self.patience = patience
        self.sleep = sleep
        self.deadline = time.monotonic() + patience.deadline_s
        self.doubt = "an earlier submission of this run got no answer"

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self.deadline

    def no_clear_answer(self) -> SiteError:
        """Return the error that leaves the run to the next command."""
        return SiteError(
            f"no clear answer about run {self.submission.spec.run_id}: {self.doubt}",
            "repeat the same command when the scheduler answers again: it goes on with this run, never submits twice",
            transient=True,
        )

    def run(self) -> Placed | None:
        """Return the job found, or None when it is certain that there is none."""
        absent_since: float | None = None
        while True:
            observation = self.scheduler.observe(self.question)
            named = find_by_name(self.submission.job_name, observation.queue, observation.accounting)
            found = tuple(job_id for job_id in named if job_id not in self.but_not)
            if found:
                return self._adopt(found)
            now = time.monotonic()
            if not observation.queue_answers(*self.question.name_clusters):
                absent_since = None
            elif absent_since is None:
                absent_since = now
            elif now - absent_since >= self.patience.settle_s:
                return None
            if self.is_late and absent_since is None:
                raise self.no_clear_answer()
            self.sleep(self.patience.pause_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter

    def _adopt(self, found: tuple[JobId, ...]) -> Placed:
        owner = (read_text(RunFolder(self.submission.spec.folder).claim) or "").strip()
        keep = next((job_id for job_id in found if job_id.partition(";")[0] == owner), found[0])
        extra = tuple(job_id for job_id in found if job_id != keep)
        if extra:
            self.scheduler.cancel(extra)
        warning = f"cancelled the duplicates {', '.join(extra)} of job {keep}" if extra else ""
        return Placed(keep, was_adopted=True, warning=warning)


def find_by_name(name: str, *sources: object) -> tuple[JobId, ...]:
    """Return the ids of the jobs with a name in sources of an Observation, oldest id first."""
    found = {
        sighting.job_id
        for source in sources
        if isinstance(source, dict)
        for sightings in source.values()
        for sighting in sightings
        if sighting.name == name
    }
    return tuple(sorted(found, key=lambda job_id: (len(job_id), job_id)))


def write_answer(folder: RunFolder, job_id: JobId, at: datetime, said: Sequence[str] = ()) -> None:
    """Keep the scheduler's answer in the run folder, so that the record can be rebuilt from it.

    What the site said of earlier jobs of the run stays.
    """
    answer = {"job_id": job_id, "submitted_at": at.isoformat()}
    words = tuple(dict.fromkeys((*read_said(folder), *said)))
    write_atomically(folder.submitted, json.dumps({**answer, "said": words} if words else answer) + "\n")


def read_answer(folder: RunFolder) -> tuple[JobId, datetime] | None:
    """Return the scheduler's id and the time of submission as kept in the run folder."""
    raw = read_json(folder.submitted)
    try:
        return (str(raw["job_id"]), datetime.fromisoformat(raw["submitted_at"])) if raw else None
    except (KeyError, TypeError, ValueError):
        return None


def read_said(folder: RunFolder) -> tuple[str, ...]:
    """Return what the site said as it took the jobs of a run, as kept in the run folder."""
    said = (read_json(folder.submitted) or {}).get("said", [])
    return tuple(map(str, said)) if isinstance(said, list) else ()


def planned_clusters(folder: RunFolder) -> tuple[str, ...] | None:
    """Return the clusters that a run was planned for, of several; None where it has no plan yet."""
    plan = read_json(folder.plan)
    named = plan.get("clusters", []) if plan is not None else None
    return tuple(map(str, named)) if isinstance(named, list) else None


def describe_submitter() -> str:
    """Return who submits, as `host pid start-time`, so that another command can tell whether it still lives."""
    return f"{os.uname().nodename} {os.getpid()} {_start_time(os.getpid())}"


def submitter_lives(submitter: str) -> bool | None:
    """Tell whether a submitter still runs; None when it is on another host and cannot be asked."""
    words = submitter.split()
    if len(words) != 3:
        return False
    host, pid, started = words
    if host != os.uname().nodename:
        return None
    return pid.isdecimal() and _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc(5)): a pid alone may have been given to another process since."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
