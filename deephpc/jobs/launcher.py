"""How the ranks of a job are started: what each launcher asks of the resources, and what the job script is told.

A launcher is the answer to one question, how many ranks a node gets when nobody says. The rest is the same for all: one
task of a job step for each rank (`jobscripts/launch.sh`), with the environment its framework expects
(`jobscripts/launch_rendezvous.py`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast, get_args

from deephpc.jobs.spec import JobSpec, Launch, LauncherName, Resources

#: The files of `jobscripts/` that a run with a launcher needs, as patterns.
LAUNCH_SCRIPTS = ("launch*.sh", "launch_*.py", "listener.sh", "proot_said.sh")
#: What --launcher takes for a single process, and for what the program's imports say.
NONE, AUTO = "none", "auto"


class Launcher(Protocol):
    """How the ranks of a job are started."""

    def ranks_per_node(self, asked: Resources) -> int:
        """Return how many ranks each node gets."""

    def mpi(self, sites: str | None) -> str | None:
        """Return what `srun --mpi` is told, from what the site wants."""


class Plain:
    """One process for each task, as srun has it: for MPI programs, and for any other."""

    def ranks_per_node(self, asked: Resources) -> int:
        """Return the tasks asked for, one otherwise."""
        return asked.tasks_per_node or 1

    def mpi(self, sites: str | None) -> str | None:
        """Return the site's way to start MPI."""
        return sites


class OnePerGpu:
    """One process for each GPU, which finds the others by what its framework brings."""

    def ranks_per_node(self, asked: Resources) -> int:
        """Return the tasks asked for; one for each GPU otherwise."""
        return asked.tasks_per_node or asked.gpus_per_node or 1

    def mpi(self, sites: str | None) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return none: there is no MPI in it."""
        return "none"


LAUNCHERS: Mapping[LauncherName, Launcher] = MappingProxyType(
    {"srun": Plain(), "horovod": OnePerGpu(), "torchrun": OnePerGpu()}
)


def parse_launcher(word: str) -> LauncherName | None:
    """Read what was given as --launcher; None for `none`, and for `auto`, which is chosen later.

    Raises
    ------
    ValueError
        There is no such launcher.
    """
    for name in get_args(LauncherName):
        if word == name:
            return cast(LauncherName, name)
    if word not in (NONE, AUTO):
        raise ValueError(f"{word!r} is no launcher; there are {', '.join((AUTO, NONE, *LAUNCHERS))}")
    return None


def plan_launch(
    name: LauncherName | None, asked: Resources, *, mpi: str | None = None, interface: str | None = None
) -> tuple[Resources, Launch | None]:
    """Return the resources with as many tasks as there will be ranks, and how these are started (pure).

    Parameters
    ----------
    mpi, interface
        What the site says: its word for `srun --mpi`, and the network interface between nodes.
    """
    if name is None:
        return asked, None
    launcher = LAUNCHERS[name]
    resources = asked.model_copy(update={"nodes": asked.node_count, "tasks_per_node": launcher.ranks_per_node(asked)})
    return resources, Launch(launcher=name, mpi=launcher.mpi(mpi), interface=interface)


def launch_variables(spec: JobSpec) -> dict[str, str]:
    """Return the variables by which the job script tells `launch.sh` what to do; none without a launcher (pure)."""
    if spec.launch is None:
        return {}
    resources = spec.resources
    variables = {
        "DEEPHPC_LAUNCHER": spec.launch.launcher,
        "DEEPHPC_NODES": str(resources.node_count),
        "DEEPHPC_TASKS_PER_NODE": str(resources.tasks_per_node or 1),
        "DEEPHPC_CPUS_PER_TASK": str(resources.cpus_per_task or 1),
        "DEEPHPC_GPUS_PER_NODE": str(resources.gpus_per_node or 0),
        "DEEPHPC_MPI": spec.launch.mpi,
        "DEEPHPC_INTERFACE": spec.launch.interface,
    }
    return {name: value for name, value in variables.items() if value is not None}
