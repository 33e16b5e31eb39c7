"""Opens the schedulers that this machine reaches."""

from collections.abc import Mapping

from deephpc.account import account_name
from deephpc.config import Settings
from deephpc.jobs.local import LocalScheduler
from deephpc.jobs.scheduler import Scheduler
from deephpc.jobs.slurm import SlurmScheduler
from deephpc.jobs.slurm_pyslurm import open_pyslurm


def open_schedulers(
    settings: Settings, environ: Mapping[str, str], *, has_slurm: bool
) -> tuple[dict[str, Scheduler], str]:
    """Return the schedulers by the name jobs are recorded under, and one line where pyslurm cannot be had."""
    found: dict[str, Scheduler] = {"local": LocalScheduler(settings.state_dir)}
    note = ""
    if has_slurm:
        slurm = SlurmScheduler(environ, account_name(), silence=settings.state_dir / "accounting-silent")
        found["slurm"] = slurm
        if settings.scheduler == "pyslurm":
            found["slurm"], note = open_pyslurm(slurm)
    return found, note
