"""Makes an image ready for its engine on this machine, by the very scripts that would do it in the job."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deephpc.containers.container import NODE_SCRIPTS, Container
from deephpc.containers.engine import ENGINES
from deephpc.errors import EngineError
from deephpc.places import shipped
from deephpc.shell import run

_CONVERT_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where images are made ready."""

    cache_dir: Path
    environ: Mapping[str, str]
    tell: Callable[[str], None]


def convert(container: Container, workshop: Workshop) -> None:
    """Make an image ready, at low priority; where this machine has not the engine, the job will.

    Raises
    ------
    EngineError
        The engine refused; what it said is in the message.
    """
    program = ENGINES[container.engine].program
    if not is_here(container.engine_command, workshop.environ):
        workshop.tell(f"note: {program} is not on this machine; the job makes the image ready itself")
        return
    workshop.tell(f"making {container.image} ready for {container.engine}")
    with private_place(workshop.cache_dir) as folder:
        script = write_scripts(container, folder / "container", folder, ())
        private = folder / "private"
        private.mkdir(mode=0o700)
        done = run(
            ["/bin/bash", str(script), str(private)],
            timeout_s=_CONVERT_S,
            env={**workshop.environ, "TMPDIR": str(folder)},
        )
    if not done.ok:
        lines = [line.removeprefix("deephpc: ") for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit code {done.returncode}"
        raise EngineError(
            f"{container.image} cannot be made ready for {container.engine}: {said}",
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
    with tempfile.TemporaryDirectory(prefix=".deephpc-", dir=cache_dir) as folder:
        yield Path(folder)
