"""What a job was granted, which a site's policy may have made another thing than what was asked for.

squeue tells while it remembers the job, accounting afterwards.
Source: squeue(1), --Format, and sacct(1), --format, of Slurm 22.05 and 24.11.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from deephpc.jobs.slurm_controller import on_clusters
from deephpc.jobs.slurm_ids import parse_slurm_id
from deephpc.jobs.slurm_reports import parse_time
from deephpc.jobs.slurm_units import parse_walltime
from deephpc.jobs.slurm_usage import parse_size_mib
from deephpc.model import Model

_DELIMITER = "\x1f"
#: Both sources' words for the same; accounting has what was asked for apart, where nothing is allocated yet.
_IN_QUEUE = ("Partition", "Account", "QOS", "TimeLimit", "NumNodes", "NumCPUs", "SubmitTime", "tres-alloc", "Name")
_IN_ACCOUNTS = "Partition,Account,QOS,Timelimit,NNodes,ReqCPUS,Submit,AllocTRES,ReqTRES,JobName"
#: squeue cuts each field off at its width, 20 where none is said.
_WIDTH = 200


class Granted(Model):
    """What Slurm holds of one job, or gave it. None: it does not say."""

    partition: str
    """Several, with commas, while it waits for the first of them."""
    account: str
    qos: str
    walltime: timedelta | None
    """Time limit; None for no limit too."""
    nodes: int | None
    cpus: int | None
    """Over all nodes, as the rest."""
    memory_mib: int | None
    gpus: int | None
    """None too where the site does not count them (AccountingStorageTRES, slurm.conf(5))."""
    gpu_type: str | None = None
    submitted_at: datetime | None
    name: str
    """The job's name; others may have been given its id (`Job.owns`)."""


def queue_argv(job_id: str, user: str) -> list[str]:
    """Ask squeue for a user's job (`4711`) or array task (`4711_3`), by its widest fields."""
    fields = ",".join(f"{name}:{_WIDTH}{_DELIMITER}" for name in _IN_QUEUE)
    argv = ["squeue", f"--user={user}", "--all", "--states=all", "--noheader", f"--Format={fields}"]
    return [*argv, *_of(job_id)]


def accounts_argv(job_id: str, user: str) -> list[str]:
    """Ask accounting for a user's job or array task, its last attempt."""
    argv = ["sacct", f"--user={user}", "--allocations", "--parsable2", "--noheader", "--noconvert"]
    return [*argv, f"--delimiter={_DELIMITER}", f"--format={_IN_ACCOUNTS}", *_of(job_id)]


def parse_queue(text: str) -> tuple[Granted, ...]:
    """Read what `queue_argv` brings; lines that make no sense are passed over."""
    rows = ([field.strip() for field in line.split(_DELIMITER)] for line in text.split("\n"))
    return tuple(_granted(row[:-1]) for row in rows if len(row) == len(_IN_QUEUE) + 1)


def parse_accounts(text: str) -> tuple[Granted, ...]:
    """Read what `accounts_argv` brings."""
    rows = (line.split(_DELIMITER, 9) for line in text.split("\n"))
    return tuple(_granted([*row[:7], row[7] or row[8], row[9]]) for row in rows if len(row) == 10)


def _of(job_id: str) -> list[str]:
    one = parse_slurm_id(job_id)
    return [*on_clusters([one.cluster or ""]), f"--jobs={replace(one, cluster=None)}"]


def _granted(fields: Sequence[str]) -> Granted:
    partition, account, qos, limit, nodes, cpus, submit, tres, name = fields
    given = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    typed = {key.removeprefix("gres/gpu:"): number for key, number in given.items() if key.startswith("gres/gpu:")}
    memory = parse_size_mib(given.get("mem", ""))
    return Granted(
        partition=partition,
        account=_word(account),
        qos=_word(qos),
        walltime=_limit(limit),
        nodes=_count(nodes),
        cpus=_count(given.get("cpu", cpus)),
        memory_mib=None if memory is None else round(memory),
        gpus=_count(given.get("gres/gpu", "")) or sum(_count(number) or 0 for number in typed.values()) or None,
        gpu_type="+".join(sorted(typed)) or None,
        submitted_at=parse_time(submit),
        name=name,
    )


def _word(text: str) -> str:
    return "" if text == "(null)" else text  # where there is no accounting


def _limit(text: str) -> timedelta | None:
    try:
        return parse_walltime(text)
    except ValueError:  # Partition_Limit, NOT_SET, INVALID
        return None


def _count(text: str) -> int | None:
    first = text.partition("-")[0]  # squeue has `1-4` for a job that takes what it gets
    return int(first) if first.isdecimal() and len(first) < 10 else None
