"""A stand-in for Slurm where there is none: `sbatch`, `scancel` and `sinfo` over the local scheduler.

Only so that the pyslurm scheduler can be held to the contract with the stand-in for pyslurm beside this; it proves
nothing about Slurm itself. Run as `slurm_on_local.py PROGRAM WORDS…`; `STAND_IN_SLURM` names its folder.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from deephpc.jobs.local_job import LocalJob

RELEASE = "slurm 24.11.5"


def jobs() -> Iterator[tuple[int, LocalJob]]:
    """Yield every job by its number."""
    for link in sorted((state() / "numbers").iterdir(), key=lambda link: int(link.name)):
        yield int(link.name), LocalJob(state() / "local" / link.readlink())


def state() -> Path:
    """Return the folder of this Slurm."""
    return Path(os.environ["STAND_IN_SLURM"])


def cancel(job_id: str) -> bool:
    """End a job or task by its number; False when there is none."""
    number, _, task = job_id.partition("_")
    found = dict(jobs()).get(int(number))
    if found is not None:
        found.request_cancel(int(task) if task else None)
    return found is not None


def submit(script: Path) -> int:
    """Read a script's directives, start it, and return its number."""
    from datetime import timedelta

    from deephpc.jobs.local import LocalScheduler, LocalTimes
    from deephpc.jobs.scheduler import Submission
    from deephpc.jobs.slurm_ids import parse_task_set
    from deephpc.jobs.slurm_units import parse_walltime
    from deephpc.jobs.spec import Array, Dependency, Environment, JobSpec, Resources

    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    words = [word for line in lines for word in shlex.split(line)[1:]]
    options = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    tasks, at_once = parse_task_set(options["array"]) if "array" in options else ((), None)
    kind, _, number = options.get("dependency", "").partition(":")
    run_id, _, token = options["job-name"].rpartition(".")
    spec = JobSpec(
        run_id=run_id,
        token=token,
        kind="run",
        folder=script.parent,
        command=("unused",),
        workdir=script.parent,
        resources=Resources(walltime=parse_walltime(options["time"])),
        environment=Environment(),
        array=Array(tasks=tasks, at_once=at_once) if tasks else None,
        dependencies=(Dependency(kind=kind, job_ids=(dict(jobs())[int(number)].job_id,)),) if number else (),
        grace=timedelta(0),
    )
    times = LocalTimes(start_s=300.0)
    job_id = LocalScheduler(state(), times=times).submit(Submission(spec, script, os.environ)).job_id
    return _next_number(job_id)


def _next_number(job_id: str) -> int:
    number = 1
    while True:
        try:
            (state() / "numbers" / str(number)).symlink_to(job_id)
            return number
        except FileExistsError:
            number += 1


def main(program: str, *words: str) -> None:
    """Be one of Slurm's programs."""
    if program == "sinfo":
        print(RELEASE)
    elif program == "sbatch":
        print(submit(Path.cwd() / words[-1]))
    elif program == "scancel":
        for word in words:
            if not word.startswith("-") and not cancel(word):
                sys.exit(f"scancel: error: Invalid job id {word}")


if __name__ == "__main__":
    main(*sys.argv[1:])
