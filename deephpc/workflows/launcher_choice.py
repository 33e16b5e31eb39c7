"""Chooses how a program's ranks are started where nobody says (`--launcher auto`): by what the program imports."""

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deephpc.jobs.spec import LauncherName, Resources
from deephpc.workflows.request import JobRequest

#: Packages that join the ranks that torchrun's variables describe.
_TORCH = frozenset({"torch", "lightning", "pytorch_lightning", "accelerate", "transformers", "deepspeed", "colossalai"})
_ON_ALL_NODES = r"srun|mpirun|mpiexec|orterun|prun|horovodrun|deepspeed|scontrol"
_ON_ONE_NODE = r"torchrun|torch\.distributed\.run|torch\.distributed\.launch|accelerate"
_WORD = r"(?<![\w-])(?:\S*/)?({})(?![\w-])"
_STARTS_ON_ALL = re.compile(_WORD.format(_ON_ALL_NODES))
_STARTS_ON_ONE = re.compile(_WORD.format(f"{_ON_ALL_NODES}|{_ON_ONE_NODE}"))
_LARGEST_SCRIPT = 1024 * 1024
_MOST_FILES = 50


def choose_launcher(request: JobRequest, resources: Resources) -> tuple[LauncherName | None, str]:
    """Return how to start the ranks of a request that leaves it open, and why or what is left unused, in words.

    Parameters
    ----------
    resources
        What it asks for, completed by the defaults.
    """
    tasks = resources.node_count * (resources.tasks_per_node or 1)
    gpus = resources.gpus_per_node or 0
    if tasks == 1 and gpus < 2:
        return None, ""
    if request.kind == "train" and request.program == "own":
        program = Path(request.command[1])
        name, cause = _by_imports(imported_packages(program))
        count = resources.node_count * (resources.tasks_per_node or (1 if name == "srun" else gpus or 1))
        if count == 1:
            return None, ""
        return (
            name,
            f"starts {count} ranks by {name}, as {program.name} imports {cause}; --launcher none starts one process",
        )
    if tasks == 1 or starts_ranks(request.command, request.workdir, resources.node_count):
        return None, ""
    where = (
        f"the first of its {resources.node_count} nodes" if resources.node_count > 1 else f"a node with {tasks} tasks"
    )
    return None, f"one process is started, on {where}; --launcher srun starts one for each of {tasks} tasks"


def _by_imports(packages: frozenset[str]) -> tuple[LauncherName, str]:
    if "horovod" in packages:
        return "horovod", "horovod"
    torch = sorted(packages & _TORCH, key=lambda name: (name != "torch", name))
    return ("torchrun", torch[0]) if torch else ("srun", "neither horovod nor torch")


def imported_packages(program: Path) -> frozenset[str]:
    """Return the packages that a Python file and the modules beside it, which it imports, import (login node).

    At most 50 files are read; what is no Python of this version counts as importing nothing.
    """
    found: set[str] = set()
    wanted, seen = [program], {program}
    while wanted and len(seen) <= _MOST_FILES:
        for name in _imports(wanted.pop()):
            found.add(name.split(".")[0])
            for path in _beside(program.parent, name):
                if path not in seen:
                    seen.add(path)
                    wanted.append(path)
    return frozenset(found)


def _imports(path: Path) -> Iterable[str]:
    try:
        if path.stat().st_size > _LARGEST_SCRIPT:
            return ()
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names]
    return names


def _beside(folder: Path, name: str) -> Iterable[Path]:
    place = folder.joinpath(*name.split("."))
    return [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]


def starts_ranks(command: Sequence[str], workdir: Path, nodes: int) -> bool:
    """Whether a command, or a script that it names, calls something that starts processes on all its nodes itself."""
    starts = _STARTS_ON_ALL if nodes > 1 else _STARTS_ON_ONE
    if any(starts.search(word) for word in command):
        return True
    for word in command[:2]:
        path = workdir / word
        try:
            if path.is_file() and path.stat().st_size <= _LARGEST_SCRIPT and starts.search(path.read_text("utf-8")):
                return True
        except (OSError, ValueError):
            continue
    return False
