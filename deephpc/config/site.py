"""A site profile: what a cluster offers and how it wants to be asked."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from deephpc.jobs.spec import MemoryMib, Resources, Walltime, Word
from deephpc.model import Model

SchedulerName = Literal["slurm", "pyslurm", "local"]
GpuRequest = Literal["gpus-per-node", "gres", "none"]
GpuVendor = Literal["nvidia", "amd", "intel"]

#: What may name a profile.
SITE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
#: A variable's name as POSIX shells take it.
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _bare_minutes(value: object) -> object:
    """Read a bare number as minutes, as Slurm does; pydantic alone would take it for seconds."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _walltime_in_minutes(value: object) -> object:
    if isinstance(value, dict) and "walltime" in value:
        return {**value, "walltime": _bare_minutes(value["walltime"])}
    return value


def _variable_names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a variable's name (letters, digits and _ only, no digit first)")
    return value


def _node_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9$_{}./-]+", value):
        raise ValueError(f"{value!r} is not a path of letters, digits, . _ - / and $VARIABLES")
    return value


def _bind(value: str) -> str:
    if not re.fullmatch(r"/[^:,\0\n]*(:/[^:,\0\n]*)?(:r[ow])?", value):
        raise ValueError(f"{value!r} is not SRC[:DST][:ro] with absolute paths")
    return value


Bind = Annotated[str, AfterValidator(_bind)]
TimeLimit = Annotated[Walltime, BeforeValidator(_bare_minutes)]
Defaults = Annotated[Resources, BeforeValidator(_walltime_in_minutes)]
Variables = Annotated[dict[str, str], AfterValidator(_variable_names)]
NodePath = Annotated[str, AfterValidator(_node_path)]


class Partition(Model):
    """One partition and its limits; None where nothing is known or nothing is limited."""

    description: str = ""
    """What it is for, one line."""
    default: bool = False
    """Whether jobs that name no partition land here."""
    max_walltime: TimeLimit | None = None
    """Longest time limit a job may ask for."""
    default_walltime: TimeLimit | None = None
    """Time limit of a job that asks for none."""
    max_nodes: int | None = Field(None, ge=1)
    """Most nodes one job may ask for."""
    cpus_per_node: int | None = Field(None, ge=1)
    """Cores Slurm hands out on a node of this partition."""
    memory_mib: MemoryMib | None = None
    """Memory Slurm hands out on a node, in MiB or as text such as 480G."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs on each node."""
    gpu_type: Word | None = None
    """GPU model as the site names it in requests, such as a100."""
    gpu_vendor: GpuVendor | None = None
    """Who makes the GPUs, where the type's name does not tell."""


class Site(Model):
    """A cluster: how it is asked for resources, where its files go, what a job must set up there."""

    name: str = Field(pattern=SITE_NAME)
    """The file's name without `.toml`."""
    description: str = ""
    """The machine in one line."""
    source: str | None = None
    """Where the facts come from, and when they were read."""
    scheduler: SchedulerName = "slurm"
    """Who runs the jobs."""
    slurm_version: str | None = None
    """Slurm's release, as probed or documented."""
    gpu_request: GpuRequest = "gpus-per-node"
    """The one form in which GPUs are asked for."""
    gpu_types: tuple[Word, ...] = ()
    """GPU models that requests may name."""
    memory_request: bool = True
    """Whether the site accepts a request for memory; where it does not, none is made."""
    account_required: bool | None = None
    """Whether every job must name an account."""
    nodes_have_internet: bool | None = None
    """Whether compute nodes reach the internet."""
    partitions: dict[Word, Partition] = Field(default_factory=dict)
    """Partitions by name."""
    account: Word | None = None
    """Account (project) to charge."""
    defaults: Defaults = Resources()
    """What a job asks for when nothing else is said."""
    work_dir: str | None = None
    """Folder of runs; `~`, `$VARIABLES` and `{account}` are filled in on the login node."""
    cache_dir: str | None = None
    """Folder of images and staged data; filled in like work_dir."""
    node_scratch: NodePath | None = None
    """Node-local scratch, with variables that only the node knows, such as $TMPDIR."""
    modules: tuple[str, ...] = ()
    """Environment modules every job loads, in order."""
    setup: tuple[str, ...] = ()
    """Shell lines every job runs before its program."""
    variables: Variables = Field(default_factory=dict)
    """Environment variables every job gets."""
    binds: tuple[Bind, ...] = ()
    """Folders that every container sees where a node has them, as SRC[:DST][:ro]."""
    mpi: Word | None = None
    """What `srun --mpi` should be told, such as pmix."""
    network_interface: str | None = Field(None, pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    """Network interface between nodes, such as ib0 or hsn0."""
    fabric: Variables = Field(default_factory=dict)
    """Variables of communication libraries (NCCL_…, UCX_…, GLOO_…); jobs get them too."""

    @property
    def default_partition(self) -> str | None:
        """The partition of jobs that name none, where known."""
        return next((name for name, partition in self.partitions.items() if partition.default), None)
