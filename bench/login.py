"""What is done on a login node by more than one benchmark: programs that must succeed, and a queue that is empty."""

import os
import subprocess
import sys
import time
from pathlib import Path

_DEADLINE_S = 180.0


def quietly(*words: str) -> str:
    """Run a program that must succeed and return its output; all it says is shown when it does not."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def await_empty_queue() -> None:
    """Wait until no job of the user's is left.

    Raises
    ------
    TimeoutError
        One stays.
    """
    until = time.monotonic() + _DEADLINE_S
    while quietly("squeue", "--noheader", "--user", os.environ["USER"]):
        if time.monotonic() > until:
            raise TimeoutError(f"the queue is not empty within {_DEADLINE_S:.0f} s")
        time.sleep(0.2)
