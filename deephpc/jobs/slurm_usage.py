"""What one job used, as Slurm's accounting has it.

Source: sacct(1) of Slurm 22.05 and 24.11, --format, --noconvert and --duplicates.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from deephpc.jobs.scheduler import JobId
from deephpc.jobs.slurm_controller import on_clusters
from deephpc.jobs.slurm_ids import SlurmId, parse_slurm_id
from deephpc.jobs.slurm_reports import parse_time

_DELIMITER = "\x1f"
_FIELDS = "JobID,ElapsedRaw,TotalCPU,AllocCPUS,AllocTRES,MaxRSS,NTasks,NNodes,ConsumedEnergyRaw,State,Submit,JobName"
_CPU_TIME = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,2})(?:\.([0-9]{1,6}))?")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)([KMGTP]?)")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclass(frozen=True, slots=True)
class Accounted:
    """What one attempt of a job, or of an array task, was given and used. None means accounting does not say."""

    job_id: JobId
    task: int | None
    elapsed_s: int
    cpu_seconds: float | None
    """CPU time of all its processes, once the step they ran in has ended."""
    cpus: int
    gpus: int
    nodes: int
    memory_mib: int | None
    """Memory allocated over all nodes."""
    max_rss_mib: float | None
    """The largest resident set of any one task."""
    energy_joules: int | None
    name: str = ""
    """The job's name; others may have been given its id (`Job.owns`)."""
    submitted_at: datetime | None = None

    @property
    def cpu_hours(self) -> float:
        """Core-hours allocated, used or not."""
        return self.cpus * self.elapsed_s / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours allocated, used or not."""
        return self.gpus * self.elapsed_s / 3600

    @property
    def cpu_efficiency(self) -> float | None:
        """CPU time used over CPU time allocated, 0 to 1."""
        allocated = self.cpus * self.elapsed_s
        return self.cpu_seconds / allocated if self.cpu_seconds is not None and allocated else None


def usage_argv(job_ids: Sequence[str], user: str) -> list[str]:
    """Ask for a user's jobs (`4711`) or array tasks (`4711_3`) with their steps, every attempt of each."""
    argv = ["sacct", "--duplicates", "--parsable2", "--noheader", "--noconvert", f"--delimiter={_DELIMITER}"]
    parsed = [parse_slurm_id(job_id) for job_id in job_ids]
    argv += [f"--user={user}", *on_clusters(sorted({one.cluster for one in parsed if one.cluster}))]
    return [*argv, f"--format={_FIELDS}", f"--jobs={','.join(str(replace(one, cluster=None)) for one in parsed)}"]


def parse_usage(text: str) -> tuple[Accounted, ...]:
    """Read what `usage_argv` brings: one value per attempt, in accounting's order; pending jobs are left out."""
    attempts: list[Accounted] = []
    place: dict[tuple[int, int | None], int] = {}
    for line in text.split("\n"):
        fields = line.split(_DELIMITER, 11)
        if len(fields) != 12:
            continue
        try:
            slurm_id = parse_slurm_id(fields[0])
        except ValueError:
            continue
        key = (slurm_id.job, slurm_id.task)
        if slurm_id.step is None and not slurm_id.het and fields[9] != "PENDING":
            place[key] = len(attempts)
            attempts.append(_allocation(slurm_id, fields))
        elif slurm_id.step is not None and key in place:
            attempts[place[key]] = _with_step(attempts[place[key]], fields)
    return tuple(attempts)


def parse_cpu_time(text: str) -> float | None:
    """Read `[[days-]hours:]minutes:seconds[.fraction]` as seconds."""
    match = _CPU_TIME.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:4])
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + float(f"0.{match[5] or 0}")


def parse_size_mib(text: str) -> float | None:
    """Read `123456K`, `1.5G`, `1048576` (bytes) as MiB."""
    match = _SIZE.fullmatch(text)
    return float(match[1]) * _BYTES[match[2]] / 2**20 if match else None


def _allocation(slurm_id: SlurmId, fields: list[str]) -> Accounted:
    _, elapsed, cpu_time, cpus, tres, rss, _, nodes, energy, _, submit, name = fields
    granted = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    memory = parse_size_mib(granted.get("mem", ""))
    return Accounted(
        job_id=str(slurm_id.job),
        task=slurm_id.task,
        elapsed_s=_count(elapsed),
        cpu_seconds=parse_cpu_time(cpu_time) or None,
        cpus=_count(cpus),
        gpus=_count(granted.get("gres/gpu", "")),
        nodes=_count(nodes),
        memory_mib=None if memory is None else round(memory),
        max_rss_mib=parse_size_mib(rss),
        energy_joules=_count(energy) or None,
        name=name,
        submitted_at=parse_time(submit),
    )


def _with_step(attempt: Accounted, fields: list[str]) -> Accounted:
    """Add what a step says and its allocation does not."""
    rss = parse_size_mib(fields[5])
    if rss is None:
        return attempt
    return replace(attempt, max_rss_mib=max(rss, attempt.max_rss_mib or 0.0))


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0
