"""What every scheduler can do, and the plain values that pass between it and the rest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deephpc.jobs.spec import JobSpec
from deephpc.jobs.state import JobState

if TYPE_CHECKING:
    from deephpc.jobs.slurm_granted import Granted
    from deephpc.jobs.slurm_outlook import Outlook
    from deephpc.jobs.slurm_usage import Accounted

#: A job as its scheduler names it, without array task: `4711`, `4711;cluster`, or a local scheduler's own id.
JobId = str


@dataclass(frozen=True, slots=True)
class Submission:
    """Everything a scheduler needs to take a job; the script lies in the run folder already.

    The job is submitted from inside its run folder, so no path of the user's needs quoting in the script.
    """

    spec: JobSpec
    script: Path
    environment: Mapping[str, str]
    """The whole environment of the submitting process; the job inherits it."""
    clusters: tuple[str, ...] = ()
    """Where it may go, of several clusters; empty for the one we are on."""

    @property
    def job_name(self) -> str:
        """The name the job carries in the queue: the run id and the start of its token."""
        return job_name(self.spec.run_id, self.spec.token)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job the scheduler took."""

    job_id: JobId
    said: tuple[str, ...] = ()
    """What the site said beside the id, a line each: that its policy changed the job, what is left of a budget."""


def job_name(run_id: str, token: str) -> str:
    """Return the name under which a run's job stands in the queue."""
    return f"{run_id}.{token[:8]}"


def cluster_of(job_id: JobId | None) -> str:
    """Return the cluster that a job's id names; empty for the one we are on."""
    return (job_id or "").partition(";")[2]


def id_of_task(job_id: JobId, task: int | None) -> str:
    """Return a job, or one task of its array, as schedulers are told of it: `4711`, `4711_3`, `4711_3;cluster`."""
    number, semicolon, cluster = job_id.partition(";")
    return job_id if task is None else f"{number}_{task}{semicolon}{cluster}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One job, or one task of an array, as one source saw it; None: it did not say. Times are UTC."""

    job_id: JobId
    task: int | None
    state: JobState
    raw_state: str
    source: str
    """`squeue`, `sacct`, `pyslurm` or `local`."""
    name: str = ""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    nodes: tuple[str, ...] = ()
    restarts: int | None = None
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What the scheduler's sources answered to one question.

    `queue` and `accounting` map a job id to its sightings: one, or one per array task that the source lists, of each
    job of the user's that was ever given this id (`Job.own`). A source
    that did not answer is None, never an empty mapping: absence from an answer is evidence, silence is not. A source
    that a site does not have is an empty mapping: nothing will ever come from it.
    """

    queue: Mapping[JobId, tuple[Sighting, ...]] | None
    accounting: Mapping[JobId, tuple[Sighting, ...]] | None
    troubles: tuple[str, ...] = field(default=())
    """One line per source that failed, for the user."""
    silent_queues: frozenset[str] = frozenset()
    """Of several clusters those whose queue did not answer; the one we are on is ""."""
    silent_accounts: frozenset[str] = frozenset()
    """Those for which accounting did not answer."""

    def queue_answers(self, *clusters: str) -> bool:
        """Whether the queues of all these clusters answered."""
        return self.queue is not None and self.silent_queues.isdisjoint(clusters)

    def accounting_answers(self, *clusters: str) -> bool:
        """Whether accounting answered for all these clusters."""
        return self.accounting is not None and self.silent_accounts.isdisjoint(clusters)


@dataclass(frozen=True, slots=True)
class Question:
    """What to look up: known jobs by id, and runs whose id never came back by job name."""

    job_ids: tuple[JobId, ...] = ()
    job_names: tuple[str, ...] = ()
    ended_ids: tuple[JobId, ...] = ()
    """Ids that are believed to have ended; the queue answers for those that it holds again, accounting is not asked."""
    lost_names: tuple[str, ...] = ()
    """Names of jobs that are believed never to have been queued; the queue answers, accounting is not asked."""
    name_clusters: tuple[str, ...] = ("",)
    """Where jobs are looked up by name; "" is the cluster we are on."""
    live_tasks: Mapping[JobId, int] = field(default_factory=dict)
    """How many tasks of each array are not known to have ended: while the queue holds as many, nobody else is asked."""
    since: datetime | None = None
    """Nothing asked for was submitted before this (aware)."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked."""
        return not (self.job_ids or self.job_names or self.ended_ids or self.lost_names)


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """The scheduler understood and said no; nothing is queued. `str()` is the scheduler's own reason, one line."""


class Ambiguous(Exception):  # noqa: N818
    """The submission got no clear answer: the job may or may not be queued. `str()` says what was seen."""


class Scheduler(Protocol):
    """A place to run jobs. Every call has a deadline and is made on a login node."""

    name: str

    def submit(self, submission: Submission) -> Accepted:
        """Send a job.

        Raises
        ------
        Refused
            It said no: nothing is queued.
        Ambiguous
            No clear answer: look the job up before trying again.
        """
        ...

    def observe(self, question: Question) -> Observation:
        """Look jobs up, however many, with one call to each source, or one for each cluster; a dead one is silence."""
        ...

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for jobs (`4711`) or array tasks (`4711_3`) to end; ids already gone are not an error.

        Raises
        ------
        deephpc.errors.SiteError
            The scheduler did not answer, or refused.
        """
        ...

    def used(self, job_id: str) -> Sequence["Accounted"]:
        """Return what a job (`4711`) or array task (`4711_3`) was given and used, one row per attempt or task.

        Empty where there is no accounting, or it does not answer.
        """
        ...

    def granted(self, job_id: str) -> Sequence["Granted"]:
        """Return what a job (`4711`) or array task (`4711_3`) was granted, one row per task.

        Where it still waits, it is what it waits with. Empty where nobody who answers knows the job.
        """
        ...

    def outlook(self, job_id: JobId, submission: Submission | None = None) -> "Outlook | None":
        """Return when a waiting job may start; None where it does not wait, or nobody tells in a few seconds.

        Parameters
        ----------
        submission
            What it was submitted with, to look for where it could start sooner; without it one question is asked.
        """
        ...
