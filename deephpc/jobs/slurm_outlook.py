"""When a waiting job may start: Slurm's own estimate, who stands before it, and where it could start sooner.

Every question has a short deadline, and what is not answered is not told. Source: squeue(1), sbatch(1) --test-only and
slurm.conf(5) PrivateData of Slurm 22.05 and 24.11.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from deephpc.account import account_groups
from deephpc.jobs.scheduler import JobId, Submission, cluster_of
from deephpc.jobs.slurm_answers import outside_of_any_job
from deephpc.jobs.slurm_controller import on_clusters, without_clusters
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.jobs.slurm_ids import parse_slurm_id
from deephpc.jobs.slurm_probe import config_argv, parse_config, parse_partitions, sinfo_argv
from deephpc.jobs.slurm_reports import parse_time
from deephpc.model import Model
from deephpc.shell import CommandNotFound, Completed, run

_DELIMITER = "\x1f"
#: Job number, priority, reason, expected start, partition.
_FORMAT = _DELIMITER.join(("%A", "%Q", "%r", "%S", "%P"))
_WAITING = ("squeue", "--all", "--states=PENDING", "--noheader", f"--format={_FORMAT}")
#: Times come as seconds since 1970.
_CLOCK = {"SLURM_TIME_FORMAT": "%s", "TZ": "UTC"}
#: Trials in other partitions; all together they may take twice as long as one question.
_MOST_TRIALS = 5
#: Reasons of a job that waits for its turn, so that it matters who stands before it, and another partition may help.
_IN_LINE = re.compile(r"None|Priority|Resources|ReqNodeNotAvail.*|Nodes required.*|Partition(Down|Inactive)|SchedDefer")
#: What a partition must win to be told of.
_WORTH = timedelta(minutes=1)
_STARTS = re.compile(r"Job [0-9]+ to start at (\S+) .*in partition (\S+)")


class Start(Model):
    """A partition, and when a job could start there."""

    partition: str
    starts_at: datetime


class Outlook(Model):
    """What Slurm tells of a waiting job's start. Times are aware, UTC."""

    partition: str
    starts_at: datetime | None = None
    """Slurm's estimate, as the queue stands; None where it has none yet."""
    ahead: int | None = None
    """Jobs of higher priority that wait for the same partition, an array as one; None where the site shows them not."""
    sooner: tuple[Start, ...] = ()
    """Other partitions that could start it sooner, the soonest first."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One waiting job as squeue lists it."""

    number: int
    priority: int
    reason: str
    starts_at: datetime | None
    partition: str

    @property
    def is_in_line(self) -> bool:
        """Whether it could start if its resources were free."""
        return self.priority > 0 and _IN_LINE.fullmatch(self.reason) is not None


def foresee(job_id: JobId, user: str, desk: "Desk", submission: Submission | None) -> Outlook | None:
    """Ask when a user's waiting job may start (login node); None where it does not wait, or Slurm does not answer.

    Parameters
    ----------
    submission
        What the job was submitted with, to try it in other partitions; None asks for the estimate alone, by one squeue.
    """
    own = next(iter(parse_turns(desk.ask(turn_argv(job_id, user)))), None)
    if own is None:
        return None
    told = Outlook(partition=own.partition, starts_at=own.starts_at)
    if submission is None or not own.is_in_line:
        return told
    cluster = cluster_of(job_id)
    ahead, sooner = _count_ahead(own, cluster, desk), _find_sooner(own, cluster, desk, submission)
    return told.model_copy(update={"ahead": ahead, "sooner": sooner})


@dataclass(frozen=True, slots=True)
class Desk:
    """Where questions are asked: the environment of squeue, sinfo and scontrol, and how long each may take."""

    environ: Mapping[str, str]
    timeout_s: float

    def ask(self, argv: Sequence[str]) -> str:
        """Return what a command printed, nothing where it failed."""
        completed = _run(argv, self.environ, self.timeout_s)
        return completed.stdout if completed.ok else ""

    def try_in(self, partitions: Sequence[str], cluster: str, submission: Submission) -> Iterator[Start]:
        """Ask when a job would start in each of some partitions, as long as there is time."""
        environ = without_clusters(environment_for_sbatch(outside_of_any_job(submission.environment)))
        until = time.monotonic() + 2 * self.timeout_s
        for name in partitions:
            left = until - time.monotonic()
            if left <= 0:
                return
            argv = trial_argv(submission.script.name, name, cluster)
            completed = _run(argv, {**environ, **_CLOCK}, min(left, self.timeout_s), submission.script.parent)
            start = parse_trial(completed)
            if start is not None:
                yield start


def turn_argv(job_id: JobId, user: str) -> list[str]:
    """Ask for a user's waiting job (`4711`) or array task (`4711_3`)."""
    one = parse_slurm_id(job_id)
    return [*_WAITING, *on_clusters([one.cluster or ""]), f"--user={user}", f"--jobs={replace(one, cluster=None)}"]


def line_argv(partition: str, cluster: str) -> list[str]:
    """Ask for all that waits for a partition."""
    return [*_WAITING, *on_clusters([cluster]), f"--partition={partition}"]


def trial_argv(script: str, partition: str, cluster: str) -> list[str]:
    """Ask when the job of a script would start in a partition; nothing is queued."""
    return ["sbatch", "--test-only", *on_clusters([cluster]), f"--partition={partition}", script]


def parse_turns(text: str) -> tuple[_Turn, ...]:
    """Read squeue's lines; those that make no sense are passed over."""
    rows = (line.split(_DELIMITER) for line in text.split("\n"))
    return tuple(
        _Turn(int(number), int(priority), reason, parse_time(start), partition)
        for number, priority, reason, start, partition in (row for row in rows if len(row) == 5)
        if number.isdecimal() and priority.isdecimal() and len(number) < 12 and len(priority) < 12
    )


def count_ahead(own: _Turn, line: Sequence[_Turn]) -> int:
    """Return how many of the jobs in line have their turn before one; of equal priority the older ones."""
    others = {one.number: one for one in line if one.is_in_line and one.number != own.number}
    return sum((-one.priority, one.number) < (-own.priority, own.number) for one in others.values())


def parse_trial(completed: Completed) -> Start | None:
    """Read what a trial said, whatever the site said beside it; None where the partition does not take the job."""
    match = _STARTS.search(completed.stderr) if completed.ok else None
    at = parse_time(match[1]) if match else None
    return Start(partition=match[2], starts_at=at) if match and at else None


def _count_ahead(own: _Turn, cluster: str, desk: Desk) -> int | None:
    config = parse_config(desk.ask(["scontrol", *on_clusters([cluster]), *config_argv()[1:]]))
    if not config or "jobs" in config.get("PrivateData", "").split(","):
        return None
    line = parse_turns(desk.ask(line_argv(own.partition, cluster)))
    return count_ahead(own, line) if any(one.number == own.number for one in line) else None


def _find_sooner(own: _Turn, cluster: str, desk: Desk, submission: Submission) -> tuple[Start, ...]:
    """Try other partitions one after the other, few and not for long."""
    partitions = parse_partitions(desk.ask([*sinfo_argv(), *on_clusters([cluster])]), account_groups())
    wanted, named = submission.spec.resources.walltime, own.partition.split(",")
    fitting = [
        each.name
        for each in partitions
        if each.up and each.name not in named and not (wanted and each.max_walltime and wanted > each.max_walltime)
    ]
    before = (own.starts_at or datetime.now(timezone.utc) + 2 * _WORTH) - _WORTH
    found = desk.try_in(fitting[:_MOST_TRIALS], cluster, submission)
    return tuple(sorted((one for one in found if one.starts_at < before), key=lambda one: one.starts_at))


def _run(argv: Sequence[str], environ: Mapping[str, str], timeout_s: float, folder: Path | None = None) -> Completed:
    """Run a command; one that does not exist answers like one that fails."""
    try:
        return run(argv, timeout_s=timeout_s, cwd=folder, env=environ)
    except CommandNotFound as error:
        return Completed(tuple(argv), 127, "", error.message)
