"""How soon and how fast two ranks train under `deephpc train`: against a batch script with torchrun or horovodrun.

Run on a login node of the test cluster with the venv deephpc is installed in; PyTorch is the nodes' own. Both start the
same program on one node with one thread a rank, in turn, each alone on the cluster. Prints its rows as JSON on the last
line.
"""

import itertools
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.first_job import first_job
from bench.login import await_empty_queue, quietly
from bench.row import Row, dump

ROUNDS = 5
RANKS = 2
LEARNING = ("--epochs", "10")
_BENCH = Path(__file__).resolve().parent
_HOROVOD = "/scratch/horovod"
_PROGRAM = str(_BENCH / "timed_training.py")
_NUMBERS = itertools.count()
#: torchrun meets at a file, and its ranks at rank 0: it insists on libuv, and Debian builds PyTorch 2.6 without it.
_MEETS = ("--rdzv-backend=c10d", "--rdzv-endpoint=meeting", "--rdzv-conf=store_type=file")
_VARIABLES = {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
#: What a user would write in a batch script. horovodrun is this module's console script.
_BARE = {
    "torchrun": ("torchrun", *_MEETS, f"--nproc-per-node={RANKS}", _PROGRAM),
    "horovod": ("python3", "-m", "horovod.runner.launch", "-np", str(RANKS), "--gloo", "python3", _PROGRAM),
}
_NAMES = {"torchrun": "torchrun", "horovod": "horovodrun --gloo"}


@dataclass(frozen=True)
class Trained:
    """What one training showed."""

    from_command_ms: float
    from_script_ms: float
    samples_per_s: float


def main() -> None:
    """Run everything and print the rows."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as folder:
        home = Path(folder)
        rows = [row for launcher in _BARE for row in compare(launcher, home)]
    print(dump(rows))


def compare(launcher: str, home: Path) -> list[Row]:
    """Train in turn, ours and bare, after one round that does not count."""
    stumbled = first_bare(launcher, home)
    measure(start_ours, launcher, home)
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(measure(start_ours, launcher, home))
        if not stumbled:
            bare.append(measure(start_bare, launcher, home))
        print(f"{launcher} ours {ours[-1]} bare {bare[-1:]} load {os.getloadavg()[0]:.1f}", flush=True)
    peer = _NAMES[launcher]
    who = f"{RANKS} ranks by --launcher {launcher}"
    fast, as_fast = (_median(one, "samples_per_s") for one in (ours, bare))
    whole, script = (
        Row(f"from {start} to the first step, {who}", _median(ours, name), by, _median(bare, name), "≤ 0.8")
        for start, by, name in (
            ("the command", f"sbatch of {peer}", "from_command_ms"),
            ("the start of the job script", peer, "from_script_ms"),
        )
    )
    samples = f"1000 samples ({fast:.0f} a second against {as_fast:.0f}), {who}"
    rows = [whole, script, Row(samples, 1e6 / fast, peer, 1e6 / as_fast if as_fast else 0.0, "≤ 1.02")]
    return [replace(row, stumbled=stumbled) for row in rows]


def _median(trained: list[Trained], name: str) -> float:
    return statistics.median(getattr(each, name) for each in trained) if trained else 0.0


def first_bare(launcher: str, home: Path) -> str:
    """Train once as the peer does, and return how it stumbled."""
    folder, result = _new_folder(home)
    words = bare_words(launcher, folder, result)
    return first_job(folder, words, lambda: "" if result.exists() else "it left no result")


def measure(start: Callable[[str, Path, Path], None], launcher: str, home: Path) -> Trained:
    """Start one training, wait until it is over and the queue empty, and return what it showed."""
    folder, result = _new_folder(home)
    started_at = time.time()
    start(launcher, folder, result)
    await_empty_queue()
    noted = json.loads(result.read_text())
    first_at = noted["first_step_at"]
    return Trained((first_at - started_at) * 1000, (first_at - noted["began_at"]) * 1000, noted["samples_per_s"])


def start_ours(launcher: str, _folder: Path, result: Path) -> None:
    """Submit by deephpc."""
    words = ["deephpc", "--quiet", "train", _PROGRAM, "--launcher", launcher, "--tasks-per-node", str(RANKS)]
    own = ["--env", f"PYTHONPATH={_HOROVOD}"] if launcher == "horovod" else []
    quietly(*words, "--nodes", "1", "--time", "5", *own, "--", str(result), *LEARNING)


def start_bare(launcher: str, folder: Path, result: Path) -> None:
    """Submit a script of the user's own, in a folder that has no checkpoint."""
    quietly("sbatch", "--parsable", *bare_words(launcher, folder, result))


def bare_words(launcher: str, folder: Path, result: Path) -> list[str]:
    """Write the user's script and return the words of its sbatch."""
    script = folder / "bare.sh"
    own = {"PYTHONPATH": _HOROVOD} if launcher == "horovod" else {}
    variables = [f"{name}={value}" for name, value in {**_VARIABLES, **own}.items()]
    words = shlex.join([*_BARE[launcher], str(result), *LEARNING])
    script.write_text(f"#!/bin/bash\nexport {shlex.join(variables)}\n{words}\n")
    allocation = ["--nodes=1", f"--ntasks-per-node={RANKS}", "--time=5", f"--output={folder}/job.log"]
    return [f"--chdir={folder}", *allocation, str(script)]


def _new_folder(home: Path) -> tuple[Path, Path]:
    folder = home / str(next(_NUMBERS))
    folder.mkdir()
    return folder, folder / "result.json"


if __name__ == "__main__":
    main()
