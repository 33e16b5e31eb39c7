"""Makes an image ready for its engine on this machine, by the very scripts that would do it in the job."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deephpc.containers.container import NODE_SCRIPTS, Container
from deephpc.containers.engine import ENGINES
from deephpc.containers.prepared import WORK_PREFIX
from deephpc.containers.space import check_quota, check_room, unwritable
from deephpc.containers.store import Store
from deephpc.errors import DeephpcError, EngineError, SiteError
from deephpc.places import shipped
from deephpc.shell import run

_CONVERT_S = 6 * 3600.0
#: An image unpacked, and its layers beside it, take at least so many times what the layers take.
_ROOM_FACTOR = 2
#: How errno(3), and `containers/space.py` in the job, name a full disk.
_FULL = re.compile(
    "no space left on device|disk quota exceeded|the disk is full|over quota| free, .* needed| left, .* needed", re.I
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where images are made ready."""

    cache_dir: Path
    environ: Mapping[str, str]
    tell: Callable[[str], None]


def is_ready(container: Container) -> bool:
    """Say whether an image is there as its engine takes it.

    Raises
    ------
    EngineError
        We may not look.
    """
    try:
        return container.prepared.exists()
    except OSError as error:
        raise EngineError(
            f"cannot look at {container.prepared}: {error.strerror}",
            "whoever made its folder can open it with chmod; `cache_dir` (or DEEPHPC_CACHE_DIR) names another place",
        ) from error


def convert(container: Container, workshop: Workshop) -> None:
    """Make an image ready, at low priority; where this machine has not the engine, the job will.

    Raises
    ------
    EngineError
        The engine refused; what it said is in the message.
    SiteError
        The cache lacks room for it, or cannot be written.
    """
    program = ENGINES[container.engine].program
    if not is_here(container.engine_command, workshop.environ):
        workshop.tell(f"note: {program} is not on this machine; the job makes the image ready itself")
        return
    _check_room(container, workshop.cache_dir)
    workshop.tell(f"making {container.image} ready for {container.engine}")
    with private_place(workshop.cache_dir) as folder:
        try:
            script = write_scripts(container, folder / "container", folder, ())
            private = folder / "private"
            private.mkdir(mode=0o700)
        except OSError as error:
            raise unwritable(workshop.cache_dir, error) from error
        done = run(
            ["/bin/bash", str(script), str(private)],
            timeout_s=_CONVERT_S,
            env={**workshop.environ, "TMPDIR": str(folder)},
        )
    if not done.ok:
        lines = [line.removeprefix("deephpc: ") for line in done.stderr.splitlines() if line.strip()]
        raise _failure(container, workshop.cache_dir, lines[-1] if lines else f"exit code {done.returncode}")


def _check_room(container: Container, cache_dir: Path) -> None:
    if container.layout_dir is not None:
        size_bytes = Store(cache_dir / "images").image(container.digest).size_bytes * _ROOM_FACTOR
        check_room(cache_dir, size_bytes, 1)
        check_quota(cache_dir, size_bytes, 1)


def _failure(container: Container, cache_dir: Path, said: str) -> DeephpcError:
    """Return the error for a conversion that failed, by its last words (pure)."""
    message = f"{container.image} cannot be made ready for {container.engine}: {said}"
    if _FULL.search(said):
        return SiteError(
            message,
            f"free space in {cache_dir} (`deephpc image gc`); `cache_dir` (or DEEPHPC_CACHE_DIR) names another place",
        )
    return EngineError(
        message,
        "`deephpc image verify` checks the image; --convert-in-job does it on a node, --engine takes another",
    )


def write_scripts(container: Container, place: Path, folder: Path, variables: tuple[str, ...]) -> Path:
    """Write `container/` of a run folder: the shipped scripts it needs and its facts; returns `container.sh`."""
    copy_scripts(container.scripts, place)
    facts = place / "facts.sh"
    facts.write_text(container.render_facts(folder, variables), encoding="utf-8")
    facts.chmod(0o600)
    return place / NODE_SCRIPTS[0]


def copy_scripts(names: tuple[str, ...], place: Path) -> None:
    """Copy shipped scripts, named by patterns, to a folder, which is made; owner-only."""
    place.mkdir(mode=0o700, exist_ok=True)
    for source in (path for name in names for path in shipped("jobscripts").glob(name)):
        target = place / source.name
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)


def is_here(command: str, environ: Mapping[str, str]) -> bool:
    """Say whether a program is on this machine: a path, or a name to be found on PATH."""
    paths = [Path(command)] if command.startswith("/") else _on_path(command, environ)
    return any(os.access(path, os.X_OK) for path in paths)


def _on_path(command: str, environ: Mapping[str, str]) -> list[Path]:
    return [Path(folder) / command for folder in environ.get("PATH", "").split(":") if folder]


@contextmanager
def private_place(cache_dir: Path) -> Iterator[Path]:
    """Give a folder of our own beside the images, as /tmp of a login node is often small memory; gone afterwards."""
    try:
        place = tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=cache_dir)
    except OSError as error:
        raise unwritable(cache_dir, error) from error
    with place as folder:
        yield Path(folder)
