"""What a run requested, and what it was granted, side by side."""

from datetime import timedelta
from typing import TYPE_CHECKING

from deephpc.jobs.job import Job
from deephpc.jobs.slurm_units import render_memory, render_walltime
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState

if TYPE_CHECKING:  # loaded by the one command that has it
    from deephpc.jobs.slurm_granted import Granted

_FACTS = ("partition", "account", "QOS", "time limit", "nodes", "CPUs", "memory", "GPUs")


def resource_lines(job: Job, granted: "Granted | None") -> list[str]:
    """Return a table of both, or one line of what was requested where nobody tells what was granted."""
    asked = job.resources
    if granted is None:
        return [f"requested  {asked.describe() or 'the defaults of the site'}"]
    given = "queued with" if job.state is JobState.PENDING else "granted"
    rows = zip(_FACTS, _requested(asked), _granted(granted), strict=True)
    table = [("resources", "requested", given), *((f"  {fact}", *both) for fact, *both in rows if any(both))]
    more = [("constraint", asked.constraint), ("exclusive", "yes" if asked.exclusive else "")]
    table += [(f"  {name}", value, "-") for name, value in more if value]
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    return [
        f"{fact:<{first}}  {requested or '-':<{second}}  {answer or 'not told'}" for fact, requested, answer in table
    ]


def _requested(asked: Resources) -> tuple[str, ...]:
    cpus = asked.cpu_count if asked.tasks_per_node or asked.cpus_per_task else ""
    memory = "all of each node" if asked.memory_mib == 0 else _memory_each(asked.memory_mib, 1)
    limit = render_walltime(asked.walltime) if asked.walltime is not None else ""
    gpus = _gpus_each(asked.gpu_count, asked.gpu_type, asked.node_count)
    words = (asked.partition, asked.account, asked.qos, limit, asked.nodes, cpus, memory, gpus)
    return tuple(str(word or "") for word in words)


def _granted(granted: "Granted") -> tuple[str, ...]:
    nodes = granted.nodes or 1
    memory, gpus = _memory_each(granted.memory_mib, nodes), _gpus_each(granted.gpus, granted.gpu_type, nodes)
    limit = _limit(granted.walltime)
    words = (granted.partition, granted.account, granted.qos, limit, granted.nodes, granted.cpus, memory, gpus)
    return tuple(str(word or "") for word in words)


def _limit(walltime: timedelta | None) -> str:
    return render_walltime(walltime) if walltime is not None else ""


def _memory_each(mib: int | None, nodes: int) -> str:
    if not mib:
        return ""
    return f"{render_memory(mib)} in all" if mib % nodes else f"{render_memory(mib // nodes)} per node"


def _gpus_each(count: int | None, kind: str | None, nodes: int) -> str:
    if not count:
        return ""
    type_ = f" {kind}" if kind else ""
    return f"{count}{type_} in all" if count % nodes else f"{count // nodes}{type_} per node"
