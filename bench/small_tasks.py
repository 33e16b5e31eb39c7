"""Many small tasks, from the command until the last has done its work: an array run, a bare array, HyperQueue.

Run on a login node of the test cluster with the venv deephpc is installed in. Each task leaves an empty file.
HyperQueue runs them all inside one job, by a server and a worker on one node, as its users do: `small_tasks.py within
FOLDER` is that job. Prints its rows as JSON on the last line.
"""

import itertools
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.first_job import first_job
from bench.login import await_empty_queue, quietly
from bench.row import Row, dump

TASKS = int(os.environ.get("BENCH_TASKS", "100"))
ROUNDS = 2
CORES = 8
_DEADLINE_S = 300.0
_ARRAY = f"--array=0-{TASKS - 1}"
#: Slurm and HyperQueue name the task each in a variable of its own.
_TASK = ("sh", "-c", ': >"$0/${HQ_TASK_ID:-$SLURM_ARRAY_TASK_ID}"')
_NUMBERS = itertools.count()


def main() -> None:
    """Run everything and print the rows; as `small_tasks.py within FOLDER` only run the tasks by HyperQueue."""
    if sys.argv[1:2] == ["within"]:
        run_by_hyperqueue(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as folder:
        print(dump(compare(Path(folder))))


def compare(home: Path) -> list[Row]:
    """Run the tasks in turn by each, after a first try that does not count."""
    stumbled = {name: _first_try(name, home) for name in _BARE}
    measure_ms(start_ours, home)
    ours: list[float] = []
    peers: dict[str, list[float]] = {name: [] for name in _BARE}
    for _ in range(ROUNDS):
        ours.append(measure_ms(start_ours, home))
        for name, words in _BARE.items():
            if not stumbled[name]:
                peers[name].append(measure_ms(partial(_start_bare, words), home))
    print(f"ours {ours} peers {peers}", flush=True)
    what, our_ms = f"{TASKS} small tasks, from the command to the last one's end", statistics.median(ours)
    return [
        Row(what, our_ms, name, statistics.median(taken or [0.0]), stumbled=stumbled[name])
        for name, taken in peers.items()
    ]


def measure_ms(start: Callable[[Path], object], home: Path) -> float:
    """Start the tasks, wait until each has left its file, and return the milliseconds that took.

    Raises
    ------
    TimeoutError
        Some leave none.
    """
    folder = _new_folder(home)
    started = time.perf_counter()
    start(folder)
    while missing := _missing(folder):
        if time.perf_counter() - started > _DEADLINE_S:
            raise TimeoutError(f"{missing} within {_DEADLINE_S:.0f} s")
        time.sleep(0.05)
    taken_ms = (time.perf_counter() - started) * 1000
    await_empty_queue()
    return taken_ms


def start_ours(folder: Path) -> None:
    """Submit an array run by deephpc."""
    quietly("deephpc", "--quiet", "run", _ARRAY, "--time", "5", "--", *_TASK, str(folder / "done"))


def run_by_hyperqueue(folder: Path) -> None:
    """Run the tasks by HyperQueue's server and worker in this allocation (compute node)."""
    from hyperqueue import Job, LocalCluster  # in its own job only
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster(str(folder / "server"), WorkerConfig(cores=CORES)) as cluster:
        job = Job(default_workdir=folder)
        for _ in range(TASKS):
            job.program([*_TASK, str(folder / "done")])
        client = cluster.client()
        client.wait_for_jobs([client.submit(job)])


# --- the peers' batch scripts ----------------------------------------------------------------------------------------


def _array_words(folder: Path) -> list[str]:
    script = folder / "array.sh"
    script.write_text(f"#!/bin/sh\n{shlex.join([*_TASK, str(folder / 'done')])}\n")
    return [_ARRAY, "--time=5", f"--output={folder}/%a.log", str(script)]


def _hyperqueue_words(folder: Path) -> list[str]:
    script = folder / "hyperqueue.sh"
    words = [sys.executable, str(Path(__file__).resolve()), "within", str(folder)]
    script.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n")
    script.chmod(0o755)
    return [
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={CORES}",
        "--time=5",
        f"--output={folder}/job.log",
        str(script),
    ]


_BARE: dict[str, Callable[[Path], Sequence[str]]] = {
    "sbatch --array": _array_words,
    "HyperQueue in one job": _hyperqueue_words,
}


def _start_bare(words: Callable[[Path], Sequence[str]], folder: Path) -> None:
    quietly("sbatch", "--parsable", *words(folder))


def _first_try(name: str, home: Path) -> str:
    folder = _new_folder(home)
    return first_job(folder, _BARE[name](folder), lambda: _missing(folder))


def _missing(folder: Path) -> str:
    left = TASKS - len(list((folder / "done").iterdir()))
    return f"{left} of {TASKS} tasks left no file" if left else ""


def _new_folder(home: Path) -> Path:
    folder = home / f"tasks-{next(_NUMBERS)}"
    (folder / "done").mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
