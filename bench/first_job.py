"""The first try of a peer that is a batch job: by its exit code, its logs and what it left."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.row import first_try

_SHOWING_LOGS = 'folder=$0; "$@"; code=$?; cat "$folder"/*.log; exit "$code"'


def first_job(folder: Path, words: Sequence[str], check: Callable[[], str] = lambda: "") -> str:
    """Submit a job that writes its logs into a folder, wait for its end, and return how it stumbled; "" if it did not.

    Parameters
    ----------
    words
        Of sbatch.
    check
        Says what is wrong with what the job left; "" when nothing is.
    """
    return first_try(["sh", "-c", _SHOWING_LOGS, str(folder), "sbatch", "--parsable", "--wait", *words], check=check)
