"""Looks into an image on this machine (a login node), by the very scripts that start it in a job."""

from collections.abc import Sequence

from deephpc.containers.container import Container
from deephpc.errors import DeephpcError
from deephpc.jobs.run_folder import RunFolder
from deephpc.shell import Completed, run
from deephpc.workflows.conversion import is_here, private_place, write_scripts
from deephpc.workflows.in_image import ImageDesk

_PROGRAM_S = 30.0
_NONE = "none of that name"


def can_look_inside(container: Container, desk: ImageDesk) -> bool:
    """Say whether this machine has the engine, and the image as that takes it."""
    return is_here(container.engine_command, desk.places.environ) and container.prepared.exists()


def has_program(container: Container, desk: ImageDesk, name: str) -> bool | None:
    """Say whether an image has a program on its PATH; None where that cannot be told on this machine."""
    words = ["/bin/sh", "-c", 'command -v "$1" || echo "$2"', "sh", name, _NONE]
    try:
        if not can_look_inside(container, desk):
            return None
        with private_place(desk.settings.cache_dir) as place:
            done = run_inside(container, desk, RunFolder(place), words, timeout_s=_PROGRAM_S)
    except (DeephpcError, OSError):  # a cache of somebody else's, a full disk: no word about the program
        return None
    lines = done.stdout.split("\n") if done.ok else []
    return lines[-2] != _NONE if len(lines) > 1 else None


def run_inside(
    container: Container, desk: ImageDesk, folder: RunFolder, words: Sequence[str], *, timeout_s: float
) -> Completed:
    """Run a command in an image at low priority, without GPUs; what it keeps goes to a run folder that is not kept."""
    private = folder.path / "private"
    private.mkdir(mode=0o700)
    quiet = container.model_copy(update={"gpus": 0, "stages_image": False, "keeps_folders": False})
    script = write_scripts(quiet, folder.container, folder.path, ())
    environ = {
        **desk.places.environ,
        "DEEPHPC_OUTPUT_DIR": str(folder.path / "output"),
        "DEEPHPC_DATA_DIR": str(folder.path / "data"),
        "OMP_NUM_THREADS": "1",
    }
    return run(["nice", "/bin/bash", str(script), str(private), *words], timeout_s=timeout_s, env=environ)
