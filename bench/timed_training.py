"""Runs examples/digits/train.py as one rank and notes when its job began, when its first step was done, and its rate.

python3 timed_training.py RESULT OPTIONS OF train.py…

train.py lies beside this file. Rank 0 writes RESULT, whole, when the training is over.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train  # type: ignore[import-not-found]  # examples/digits/train.py, copied beside it


def main() -> None:
    """Train, and write what was noted."""
    result = Path(sys.argv.pop(1))
    began_at = script_began_at(os.environ["SLURM_JOB_ID"])
    steps: list[tuple[float, int]] = []
    train.Training.take_step = noting(train.Training.take_step, steps)
    train.main()
    if os.environ.get("HOROVOD_RANK", os.environ.get("RANK")) == "0":
        first_at, last_at = steps[0][0], steps[-1][0]
        samples = sum(count for _, count in steps[1:])
        noted = {
            "began_at": began_at,
            "first_step_at": first_at,
            "samples_per_s": samples / (last_at - first_at),
        }
        part = result.with_suffix(".part")
        part.write_text(json.dumps(noted))
        part.rename(result)


def noting(take_step: Callable[..., None], steps: list[tuple[float, int]]) -> Callable[..., None]:
    """Return a step that also notes when it was done, and on how many samples of all ranks."""

    def noted(training: Any, batch: Any) -> None:
        take_step(training, batch)
        steps.append((time.time(), len(batch.labels)))

    return noted


def script_began_at(job_id: str) -> float:
    """Return when slurmd started the job's script on this node, in seconds since the epoch, to a hundredth.

    Slurm itself tells whole seconds. Source: proc(5), field 22 of /proc/PID/stat, in clock ticks since boot.
    """
    mark = f"job{int(job_id):05d}/slurm_script"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (process / "cmdline").read_text():
                continue
            ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:  # it has ended, or is another user's
            continue
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
    raise ProcessLookupError(f"no script of job {job_id} runs on this node")


if __name__ == "__main__":
    main()
