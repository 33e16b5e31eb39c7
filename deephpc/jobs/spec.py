"""What a job asks for and what it runs: Resources, Array, Dependency, JobSpec."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from deephpc.jobs.slurm_units import parse_memory, parse_walltime, render_memory, render_walltime
from deephpc.model import Model


def _walltime(value: object) -> object:
    return parse_walltime(value) if isinstance(value, str) and not value.startswith("P") else value


def _memory(value: object) -> object:
    return parse_memory(value) if isinstance(value, str) else value


def _word(value: str) -> str:
    """Check a word that goes onto a directive line: printable ASCII without spaces, quotes or escapes."""
    if not re.fullmatch(r"[A-Za-z0-9@%+=:,./_&|*()\[\]!-]{1,255}", value) or value.startswith("-"):
        raise ValueError(f"{value!r} has characters a scheduler option cannot carry")
    return value


Walltime = Annotated[timedelta, BeforeValidator(_walltime)]
MemoryMib = Annotated[int, BeforeValidator(_memory), Field(ge=0)]
Word = Annotated[str, AfterValidator(_word)]


class Resources(Model):
    """What one job asks of the scheduler. None leaves the choice to the site, then to the scheduler."""

    nodes: int | None = Field(None, ge=1, le=100_000)
    """Nodes to allocate."""
    tasks_per_node: int | None = Field(None, ge=1, le=10_000)
    """Tasks (ranks) on each node."""
    cpus_per_task: int | None = Field(None, ge=1, le=10_000)
    """Cores for each task."""
    gpus_per_node: int | None = Field(None, ge=0, le=64)
    """GPUs on each node."""
    gpu_type: Word | None = None
    """GPU model as the site names it, such as a100."""
    memory_mib: MemoryMib | None = None
    """Memory on each node in MiB (or text such as 16G); 0 asks for all of it."""
    walltime: Walltime | None = None
    """Time limit, such as 30 (minutes), 2:00:00 or 1-12."""
    partition: Word | None = None
    """Partition to run in."""
    account: Word | None = None
    """Account (project) to charge."""
    qos: Word | None = None
    """Quality of service."""
    constraint: Word | None = None
    """Node features the job needs."""
    exclusive: bool | None = None
    """Whether to share no node with other jobs."""

    @property
    def node_count(self) -> int:
        """Nodes, 1 when not said."""
        return self.nodes or 1

    @property
    def cpu_count(self) -> int:
        """Cores asked for over all nodes."""
        return self.node_count * (self.tasks_per_node or 1) * (self.cpus_per_task or 1)

    @property
    def gpu_count(self) -> int:
        """GPUs asked for over all nodes."""
        return self.node_count * (self.gpus_per_node or 0)

    def describe(self) -> str:
        """Return what is asked for in one line, as people write it; empty when nothing is."""
        words = self.model_dump(exclude_none=True)
        if self.walltime is not None:
            words["walltime"] = render_walltime(self.walltime)
        if self.memory_mib is not None:
            words["memory"] = render_memory(words.pop("memory_mib"))
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in words.items())


class Array(Model):
    """The tasks of an array job."""

    tasks: tuple[int, ...]
    """Task numbers, ascending, each once."""
    at_once: int | None = Field(None, ge=1)
    """How many may run at the same time."""


DependencyKind = Literal["after", "afterany", "afterok", "afternotok", "aftercorr"]


class Dependency(Model):
    """Wait for other jobs."""

    kind: DependencyKind
    job_ids: tuple[str, ...]
    """The scheduler's ids."""
    run_ids: tuple[str, ...] = ()
    """Our ids for the same jobs, where the user gave those."""


MailEvent = Literal[
    "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50"
]


class Mail(Model):
    """Whom the scheduler tells, and of what."""

    address: Word
    events: tuple[MailEvent, ...] = ("END", "FAIL")


class Environment(Model):
    """What the job's shell sets up before the program starts."""

    modules: tuple[str, ...] = ()
    """Environment modules to load, in order."""
    loaded_modules: tuple[str, ...] = ()
    """Those that the submitting shell had loaded, loaded anew where none are named; a missing one ends nothing."""
    has_modules: bool = False
    """Whether the submitting shell knew `module`: the program's shells know it then too."""
    setup: tuple[str, ...] = ()
    """Shell lines of the site, run as they are."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Variables to set; they lie in the script, so no secrets."""
    venv: Path | None = None
    """Python virtual environment to activate."""


JobKind = Literal["train", "run", "predict", "serve"]
LauncherName = Literal["srun", "horovod", "torchrun"]


class Launch(Model):
    """How the ranks of a job are started."""

    launcher: LauncherName
    mpi: Word | None = None
    """What `srun --mpi` is told; None leaves it to the cluster."""
    interface: str | None = None
    """Network interface between nodes; None for the one that leads there."""


class Gateway(Model):
    """What stands in front of a program that is a server, and starts it."""

    python: Path
    """The interpreter that runs deephpc here; on a file system that the nodes share."""
    port_variable: str | None = None
    """Variable that tells the program which port of loopback is its own; None for one that listens on a socket."""


class Collection(Model):
    """How a job itself sends its results when its program has ended; where to is said in the plan."""

    python: Path
    """The Python that has deephpc, as the login node knows it; a node that has it not leaves it to that one."""
    cache_dir: Path


class JobSpec(Model):
    """A job, decided: all that its script is made from."""

    run_id: str
    token: str
    kind: JobKind
    folder: Path
    """The run folder, absolute."""
    command: tuple[str, ...]
    """The program and its arguments, passed through exactly."""
    workdir: Path
    """Where the program runs, absolute."""
    resources: Resources
    environment: Environment
    array: Array | None = None
    dependencies: tuple[Dependency, ...] = ()
    max_requeues: int = Field(0, ge=0, le=100)
    """How often the job may start again: after its node failed, it was preempted, or its program asked for it."""
    chain: bool = False
    """Whether a program that asks to be continued goes on in a successor of its job, not in the same job again."""
    grace: timedelta = timedelta(seconds=60)
    """How long before the time limit the program gets SIGUSR1."""
    mail: Mail | None = None
    raw_options: tuple[str, ...] = ()
    """The user's own options for the scheduler, one word each, checked against ours."""
    has_secrets: bool = False
    """Whether the run folder holds `secrets/env.sh`, with variables that must not show in the script."""
    launch: Launch | None = None
    """How its ranks are started; None for one process on the first node."""
    gateway: Gateway | None = None
    """What starts the program, where that is a server; None for any other."""
    collection: Collection | None = None
    """How it sends its results when its program has ended; None where nobody said where to."""
    in_container: bool = False
    """Whether the program runs in an image: `container/container.sh` in the run folder is handed its words."""
    node_scratch: str | None = None
    """Folder on the node's own disk, with variables that only the node knows; TMPDIR or /tmp when not said."""
