"""What Slurm's commands are asked about the cluster itself, and how their answers are read.

Sources: sinfo(1), scontrol(1), sacctmgr(1), sbatch(1) of Slurm 22.05 and 24.11.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from deephpc.jobs.slurm_answers import clean_environment, outside_of_any_job, refusal_reason
from deephpc.jobs.slurm_controller import clusters_meant
from deephpc.jobs.slurm_units import parse_walltime
from deephpc.shell import Completed

_DELIMITER = "\x1f"
#: Partition (a star marks the default), state, time limit, default time, job size, CPUs, memory, nodes, GRES, groups.
_SINFO_FORMAT = _DELIMITER.join(("%P", "%a", "%l", "%L", "%s", "%c", "%m", "%D", "%G", "%g"))
_SETTING = re.compile(r"([A-Za-z][\w/ ]*?)\s*=\s?(.*)")
_GPU = re.compile(r"gpu(?::(?P<type>[A-Za-z][\w.-]*))?:(?P<count>\d+)(?:\(.*\))?")
_STARTS = re.compile(r"Job \d+ to start at (\S+) using (\d+) processors on nodes (\S+) in partition (\S+)")
_NO_ANSWER = re.compile(r"unable to contact|timed out|connect|communication|authentication|zero bytes", re.IGNORECASE)
_PING = re.compile(r"Slurmctld\((\S+?)\) at (\S+) is (\S+)")
_CONFIG_READ_AT = re.compile(r"Configuration data as of (?:([0-9]{9,10})\b|([0-9T:-]{19}))")


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """One partition as sinfo tells it; of nodes that differ, the most that any one of them has."""

    name: str
    default: bool
    up: bool
    max_walltime: timedelta | None
    default_walltime: timedelta | None
    max_nodes: int | None
    node_count: int
    cpus_per_node: int
    memory_mib: int
    gpus_per_node: int
    gpu_type: str | None


@dataclass(frozen=True, slots=True)
class Association:
    """One account the user may charge."""

    account: str
    is_default: bool
    qos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """What `sbatch --test-only` said: accepted True or False, None when there was no clear answer."""

    accepted: bool | None
    words: str


def probe_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to ask in: nothing of the user's changes what sinfo, scontrol and sacctmgr print.

    Where clusters are named for jobs, sinfo, scontrol, sbatch and srun are sent there; they all read SLURM_CLUSTERS.
    """
    kept = clean_environment(outside_of_any_job(environ))
    there = {"SLURM_CLUSTERS": names} if (names := ",".join(clusters_meant(environ))) else {}
    return {**{name: value for name, value in kept.items() if not name.startswith("SINFO_")}, **there}


def sinfo_argv() -> list[str]:
    """Ask for every partition, hidden ones too, one line per kind of node."""
    return ["sinfo", "--all", "--noheader", "--exact", f"--format={_SINFO_FORMAT}"]


def config_argv() -> list[str]:
    """Ask for the cluster's configuration."""
    return ["scontrol", "show", "config"]


def ping_argv() -> list[str]:
    """Ask whether the controllers answer."""
    return ["scontrol", "ping"]


def associations_argv(user: str) -> list[str]:
    """Ask the accounting database which accounts a user may charge."""
    fields = "format=DefaultAccount,Account,QOS"
    return ["sacctmgr", "--noheader", "--parsable2", "show", "user", f"name={user}", "withassoc", fields]


def accounting_argv() -> list[str]:
    """Ask the accounting database the cheapest question."""
    return ["sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=Cluster,ControlHost"]


def version_argv() -> list[str]:
    """Ask for the release of the commands here."""
    return ["sbatch", "--version"]


def test_only_argv(*options: str, partition: str | None = None, account: str | None = None) -> list[str]:
    """Ask whether a one-minute job with these options would be taken; nothing is queued (sbatch(1), --test-only)."""
    where = [f"--partition={partition}"] if partition else []
    who = [f"--account={account}"] if account else []
    return ["sbatch", "--test-only", "--time=1", "--nodes=1", *where, *who, *options, "--wrap=true"]


def compute_node_argv(
    script: str, wait_s: int, partition: str | None, account: str | None, *, more: Sequence[str] = ()
) -> list[str]:
    """Run a line of shell on one node, giving up after `wait_s` seconds in the queue (srun(1), --immediate)."""
    where = [f"--partition={partition}"] if partition else []
    who = [f"--account={account}"] if account else []
    return [
        "srun",
        "--job-name=deephpc-doctor",
        "--nodes=1",
        "--ntasks=1",
        "--time=1",
        f"--immediate={wait_s}",
        "--quiet",
        *where,
        *who,
        *more,
        "/bin/sh",
        "-c",
        script,
    ]


def parse_partitions(text: str, groups: Collection[str] = ()) -> tuple[PartitionFacts, ...]:
    """Read sinfo's lines of partitions that are for everybody or for these groups.

    Lines that make no sense are passed over.
    """
    rows: dict[str, PartitionFacts] = {}
    for line in text.splitlines():
        *words, admitted = line.split(_DELIMITER)
        row = _partition_row(words)
        if row is not None and {"all", *groups} & set(admitted.strip().split(",")):
            rows[row.name] = _most(rows[row.name], row) if row.name in rows else row
    return tuple(rows.values())


def parse_config(text: str) -> dict[str, str]:
    """Read `scontrol show config` as a table; `(null)` is left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _SETTING.fullmatch(line.strip())
        if match is not None and match[2] != "(null)":
            found.setdefault(match[1], match[2].strip())
    return found


def parse_config_time(text: str) -> datetime | None:
    """Return the controller's clock as `scontrol show config` heads its answer, aware.

    It comes as seconds since 1970 or, from a Slurm that ignores SLURM_TIME_FORMAT, as UTC: see `probe_environment`.
    """
    match = _CONFIG_READ_AT.search(text)
    if match is None:
        return None
    if match[1]:
        return datetime.fromtimestamp(int(match[1]), timezone.utc)
    try:
        return datetime.fromisoformat(match[2]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def parse_slurm_version(text: str) -> str | None:
    """Return `24.11.5` from `slurm 24.11.5` or `slurm-wlm 22.05.8`."""
    match = re.search(r"\bslurm\S* (\d+\.\d+[\w.-]*)", text)
    return match[1] if match else None


def parse_ping(text: str) -> dict[str, bool]:
    """Return controller → whether it is up."""
    return {f"{match[2]} ({match[1]})": match[3].upper() == "UP" for match in _PING.finditer(text)}


def parse_associations(text: str) -> tuple[Association, ...]:
    """Read what `associations_argv` printed: one entry per account, the default first."""
    found: dict[str, Association] = {}
    for line in text.splitlines():
        words = line.split("|")
        if len(words) == 3 and words[1]:
            qos = tuple(word for word in words[2].split(",") if word)
            found.setdefault(words[1], Association(words[1], words[1] == words[0], qos))
    return tuple(sorted(found.values(), key=lambda each: (not each.is_default, each.account)))


def parse_test_only(completed: Completed) -> TrialAnswer:
    """Tell acceptance from refusal from silence."""
    if completed.timed_out:
        return TrialAnswer(None, "no answer in time")
    if completed.ok:
        match = _STARTS.search(completed.stderr)
        return TrialAnswer(True, f"would start at {match[1]} in partition {match[4]}" if match else "accepted")
    return TrialAnswer(None if _NO_ANSWER.search(completed.stderr) else False, refusal_reason(completed.stderr))


def parse_gpus(gres: str) -> tuple[int, str | None]:
    """Return how many GPUs a GRES text such as `gpu:a100:4(S:0-1),tmp:1` holds, and the type of the first."""
    count, kind = 0, None
    for word in re.split(r",(?![^(]*\))", gres):
        match = _GPU.fullmatch(word.strip())
        if match is not None:
            count += int(match["count"])
            kind = kind or match["type"]
    return count, kind


def node_local_scratch(config: Mapping[str, str]) -> str | None:
    """Return the folder for temporary files on nodes (slurm.conf(5), TmpFS), where it is a plain path."""
    path = config.get("TmpFS", "")
    return path if re.fullmatch(r"/[A-Za-z0-9_./-]*", path) else None


def has_accounting(config: Mapping[str, str]) -> bool | None:
    """Whether the cluster keeps accounts; None when no configuration was read.

    Without a plugin 22.05 shows `accounting_storage/none`, 24.11 `(null)` (both seen).
    """
    return "/slurmdbd" in config.get("AccountingStorageType", "") if config else None


def controller_clock_skew(config_text: str, before: datetime, after: datetime) -> timedelta | None:
    """Return how far the controller's clock is ahead of ours; zero within the time the question took and its second."""
    theirs = parse_config_time(config_text)
    if theirs is None:
        return None
    if theirs > after:
        return theirs - after
    return min(timedelta(0), theirs + timedelta(seconds=1) - before)


def default_partition(partitions: Iterable[PartitionFacts]) -> str | None:
    """Return the partition of jobs that name none."""
    return next((each.name for each in partitions if each.default), None)


def _partition_row(words: Sequence[str]) -> PartitionFacts | None:
    if len(words) != 9:
        return None
    name, avail, limit, default_limit, size, cpus, memory, nodes, gres = (word.strip() for word in words)
    gpus, gpu_type = parse_gpus(gres)
    if not name or not nodes.isdecimal():
        return None
    return PartitionFacts(
        name=name.rstrip("*"),
        default=name.endswith("*"),
        up=avail == "up",
        max_walltime=_time(limit),
        default_walltime=_time(default_limit),
        max_nodes=_largest(size),
        node_count=int(nodes),
        cpus_per_node=_number(cpus),
        memory_mib=_number(memory),
        gpus_per_node=gpus,
        gpu_type=gpu_type,
    )


def _most(one: PartitionFacts, other: PartitionFacts) -> PartitionFacts:
    more_gpus = one if one.gpus_per_node >= other.gpus_per_node else other
    return PartitionFacts(
        name=one.name,
        default=one.default,
        up=one.up,
        max_walltime=one.max_walltime,
        default_walltime=one.default_walltime,
        max_nodes=one.max_nodes,
        node_count=one.node_count + other.node_count,
        cpus_per_node=max(one.cpus_per_node, other.cpus_per_node),
        memory_mib=max(one.memory_mib, other.memory_mib),
        gpus_per_node=more_gpus.gpus_per_node,
        gpu_type=more_gpus.gpu_type,
    )


def _time(text: str) -> timedelta | None:
    try:
        return parse_walltime(text)
    except ValueError:
        return None  # infinite, n/a


def _largest(size: str) -> int | None:
    """Return the upper end of a job size: `1-4` is 4, `1-infinite` is None."""
    top = size.rpartition("-")[2]
    return int(top) if top.isdecimal() and int(top) > 0 else None


def _number(text: str) -> int:
    match = re.match(r"\d{1,15}", text)
    return int(match[0]) if match else 0
