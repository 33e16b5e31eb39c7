"""Which launcher a program gets where nobody says, and what is told of nodes that do nothing."""

from pathlib import Path

import pytest

from deephpc.jobs.spec import Resources
from deephpc.workflows.launcher_choice import choose_launcher, imported_packages, starts_ranks
from deephpc.workflows.request import JobRequest

FOUR_GPUS = Resources(gpus_per_node=4)
TWO_NODES = Resources(nodes=2)
TWO_BY_TWO = Resources(nodes=2, tasks_per_node=2)


def training(folder: Path, text: str, **files: str) -> JobRequest:
    for name, content in {"train.py": text, **{f"{name}.py": content for name, content in files.items()}}.items():
        (folder / name).write_text(content)
    words = ("python3", str(folder / "train.py"))
    return JobRequest(kind="train", target="train.py", command=words, workdir=folder)


@pytest.mark.parametrize(
    ("text", "resources", "launcher", "told"),
    [
        ("import torch\n", FOUR_GPUS, "torchrun", "4 ranks by torchrun, as train.py imports torch;"),
        ("from torch.nn.parallel import DistributedDataParallel\n", TWO_NODES, "torchrun", "2 ranks by torchrun"),
        ("def main():\n    import lightning as L\n", FOUR_GPUS, "torchrun", "imports lightning"),
        ("import torch\nimport horovod.torch as hvd\n", TWO_BY_TWO, "horovod", "4 ranks by horovod"),
        ("import tensorflow\n", TWO_BY_TWO, "srun", "4 ranks by srun, as train.py imports neither horovod nor torch"),
        ("from mpi4py import MPI\n", TWO_NODES, "srun", "2 ranks by srun"),
        ("import net\n", TWO_NODES, "torchrun", "imports torch"),
        ("from parts import more\n", TWO_NODES, "horovod", "imports horovod"),
        ("print 'python 2'\n", TWO_NODES, "srun", "srun"),
        ("# import torch\nx = 'import torch'\n", FOUR_GPUS, None, ""),
        ("import torch\n", Resources(gpus_per_node=1), None, ""),
        ("import torch\n", Resources(), None, ""),
        ("import numpy\n", FOUR_GPUS, None, ""),
    ],
)
def test_a_training_is_started_as_its_imports_say(
    tmp_path: Path, text: str, resources: Resources, launcher: str | None, told: str
):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "more.py").write_text("import horovod\n")
    request = training(tmp_path, text, net="from torch import nn\nimport train\n")
    chosen, words = choose_launcher(request, resources)
    assert chosen == launcher
    assert (words == "") is (told == "")
    assert told in words


@pytest.mark.parametrize(
    ("command", "resources", "told"),
    [
        (("./simulate",), TWO_NODES, "one process is started, on the first of its 2 nodes; --launcher srun"),
        (("python3", "-c", "1"), Resources(tasks_per_node=8), "on a node with 8 tasks"),
        (("srun", "./simulate"), TWO_NODES, ""),
        (("/usr/bin/mpirun", "-n", "4", "./simulate"), TWO_BY_TWO, ""),
        (("bash", "-c", "module load mpi && mpiexec ./simulate"), TWO_NODES, ""),
        (("bash", "starts.sh"), TWO_NODES, ""),
        (("./starts.sh",), TWO_NODES, ""),
        (("bash", "-c", "./my-srun-like tool"), TWO_NODES, "one process"),
        (("./simulate",), FOUR_GPUS, ""),
        (("torchrun", "--nproc-per-node", "8", "t.py"), Resources(tasks_per_node=8), ""),
        (("torchrun", "--nproc-per-node", "8", "t.py"), TWO_NODES, "on the first of its 2 nodes"),
        (("accelerate", "launch", "t.py"), TWO_NODES, "on the first of its 2 nodes"),
    ],
)
def test_a_command_runs_once_and_that_is_said(
    tmp_path: Path, command: tuple[str, ...], resources: Resources, told: str
):
    (tmp_path / "starts.sh").write_text("#!/bin/bash\nsrun --mpi=pmix ./simulate\n")
    request = JobRequest(kind="run", target=command[0], command=command, workdir=tmp_path)
    launcher, words = choose_launcher(request, resources)
    assert launcher is None
    assert (words == "") is (told == "")
    assert told in words


def test_programs_of_every_kind_are_read_or_passed_over(tmp_path: Path):
    (tmp_path / "latin.py").write_bytes(b"import torch\nname = '\xff'\n")
    (tmp_path / "huge.py").write_bytes(b"import torch\n" + b"#" * 2_000_000)
    (tmp_path / "deep.py").write_text("import torch\nx = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "nul.py").write_bytes(b"import torch\0")
    for name in ("latin.py", "huge.py", "deep.py", "nul.py", "missing.py"):
        assert imported_packages(tmp_path / name) == frozenset()
    assert not starts_ranks(("a\0b", "x" * 5000), tmp_path, 2)
