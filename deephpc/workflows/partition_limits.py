"""Holds what a job asks for against what its partition has, as far as the site's profile knows it (pure)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deephpc.config import Partition, Site
from deephpc.errors import InputError
from deephpc.jobs.slurm_units import render_memory, render_walltime
from deephpc.jobs.spec import Resources


def check_limits(wanted: Resources, site: Site, what: str, *, has_reservation: bool = False) -> None:
    """Check that a job fits the partition it goes to.

    Parameters
    ----------
    wanted
        All it asks for, the settings' defaults included.
    what
        What the job is, for the message.
    has_reservation
        Whether it names a reservation. As a quality of service may, that may allow more time and nodes than the
        partition does; what a node does not have, it cannot give.

    Raises
    ------
    InputError
        It does not; one of the partitions would do where several are named.
    """
    excess = _excess(wanted, site)
    if excess is None:
        return
    partition, complaints = excess
    if wanted.qos or has_reservation:
        complaints = [each for each in complaints if each.is_physical]
    if not complaints:
        return
    first = complaints[0]
    fitting = [name for name, part in site.partitions.items() if not _complaints(wanted, part, site)]
    has_it = f"that fits --partition {' or '.join(fitting)}" if fitting else f"no partition of {site.name} has it"
    raise InputError(
        f"{what} asks for {first.asked}, but partition {partition} has {first.has}",
        f"{has_it}; or ask for less: {first.remedy}; `deephpc site init --force` reads the limits anew",
    )


def describe_excess(wanted: Resources, site: Site) -> str:
    """Return what a job asks for beyond what its partition allows; nothing where it keeps to that, or nodes lack it."""
    excess = _excess(wanted, site)
    if excess is None or any(each.is_physical for each in excess[1]):
        return ""
    partition, (first, *_) = excess
    return f"{first.asked} is beyond partition {partition}, which has {first.has}"


@dataclass(frozen=True, slots=True)
class _Complaint:
    """What a partition has too little of."""

    asked: str
    has: str
    remedy: str
    """The option with what the partition would take."""
    is_physical: bool
    """Whether its nodes do not have it; else it is not allowed."""


def _excess(wanted: Resources, site: Site) -> tuple[str, Sequence[_Complaint]] | None:
    """Return the first partition that a job may go to, with what it lacks; None where one has it all, or is unknown."""
    named = wanted.partition.split(",") if wanted.partition else [site.default_partition or ""]
    known = [name for name in named if name in site.partitions]
    if site.name == "generic" or not known or len(known) < len(named):
        return None
    complaints = [_complaints(wanted, site.partitions[name], site) for name in known]
    return (known[0], complaints[0]) if all(complaints) else None


def _complaints(wanted: Resources, has: Partition, site: Site) -> list[_Complaint]:
    return [*_lacking(wanted, has, counts_gpus=site.gpu_request != "none"), *_forbidden(wanted, has)]


def _lacking(wanted: Resources, has: Partition, *, counts_gpus: bool) -> Iterator[_Complaint]:
    """Say what a node of the partition does not have."""
    tasks = wanted.tasks_per_node or 1
    cpus, gpus, memory = tasks * (wanted.cpus_per_task or 1), wanted.gpus_per_node or 0, wanted.memory_mib or 0
    if counts_gpus and gpus > has.gpus_per_node:
        there = has.gpus_per_node
        noun = "GPU per node" if gpus == 1 else "GPUs per node"
        yield _Complaint(f"{gpus} {noun}", str(there or "none"), f"--gpus-per-node {there}", True)
    if has.cpus_per_node is not None and cpus > has.cpus_per_node:
        remedy = f"--cpus-per-task {has.cpus_per_node // tasks}" if tasks <= has.cpus_per_node else "--tasks-per-node"
        yield _Complaint(f"{cpus} cores per node", str(has.cpus_per_node), remedy, True)
    if has.memory_mib is not None and memory > has.memory_mib:
        there_too = render_memory(has.memory_mib)
        yield _Complaint(f"{render_memory(memory)} of memory per node", there_too, f"--mem {there_too}", True)


def _forbidden(wanted: Resources, has: Partition) -> Iterator[_Complaint]:
    """Say what the partition does not allow."""
    if has.max_nodes is not None and wanted.node_count > has.max_nodes:
        nodes = f"{wanted.node_count} nodes"
        yield _Complaint(nodes, f"a limit of {has.max_nodes}", f"--nodes {has.max_nodes}", False)
    limit = has.max_walltime
    if limit is not None and wanted.walltime is not None and wanted.walltime > limit:
        most = render_walltime(limit)
        asked = f"{render_walltime(wanted.walltime)} of time"
        yield _Complaint(asked, f"a limit of {most}", f"--time {most}", False)
