"""How one run uses one image: what the user asked for (ImageOptions), and what was decided (Container, its facts)."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from deephpc.containers.engine import AUTO, ENGINES
from deephpc.errors import InputError
from deephpc.model import Model
from deephpc.quoting import quote_for_bash

#: What runs on the node whatever the engine, from `jobscripts/`.
NODE_SCRIPTS = ("container.sh", "events.sh", "devices.sh", "inside.sh", "preflight.sh")
#: What drives a DEEPaaS module inside its image, with all that it imports.
MODULE_SCRIPTS = "deepaas_*.py"
MODULE_SCRIPT = "deepaas_module.py"
#: Where that lies inside.
MODULE_PROGRAM = f"/deephpc/bin/{MODULE_SCRIPT}"
#: What serves a module, there too.
MODULE_SERVER = "/deephpc/bin/deepaas_serve.py"
#: What serves Jupyter, there too.
JUPYTER_SCRIPT = "serve_jupyter.sh"
JUPYTER_SERVER = f"/deephpc/bin/{JUPYTER_SCRIPT}"

#: Places inside that belong to the image, the kernel or us.
_NOT_OURS = frozenset(
    ["/", "/bin", "/deephpc", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/tmp", "/usr"]  # noqa: S108 - named
)
_PATH = re.compile(r"/[^:,\0\n]*")


class ImageOptions(Model):
    """What a run may be told about its image."""

    reference: str | None = None
    """The image or module, as written; None for a native run."""
    engine: str = AUTO
    binds: tuple[str, ...] = ()
    """`SRC:DST` or `SRC:DST:ro`, absolute and checked."""
    stage_image: bool = False
    """Whether every node gets a copy of the image on its own disk."""
    convert_in_job: bool = False
    """Whether the image is converted in the job and not here."""
    model: str | None = None
    """The module to use of an image with several, by the name of its entry point; None for the only one."""
    models: Path | None = None
    """A folder that stands in for the module's `models`, read-only."""
    locked: Path | None = None
    """The lock file whose digest must be met."""


class Container(Model):
    """How a run uses its image, decided; part of `plan.json`."""

    engine: str
    """One of ENGINES."""
    engine_command: str
    """Its program: a path as the nodes see it, or a name to look for there."""
    reason: str
    """Why this engine."""
    image: str
    """Its full name."""
    digest: str
    """Of the manifest; empty in a dry run before the image was ever pulled."""
    prepared: Path
    """The image as the engine takes it: made before the job starts, or by it."""
    layout_dir: Path | None
    """The OCI layout it is made from; None for a SIF."""
    cache_dir: Path
    environment: tuple[str, ...] = ()
    """`NAME=VALUE` as the image says."""
    workdir: str
    """Where the program starts, inside."""
    binds: tuple[str, ...] = ()
    """What must be seen inside, as SRC:DST[:ro]."""
    usual_binds: tuple[str, ...] = ()
    """What is seen inside where the node has it."""
    data: tuple[str, ...] = ()
    """The run's data sets as NAME=PATH."""
    module_data: Path | None = None
    """The one of them whose content a module finds in its own `data` folder; without one it finds them by name."""
    is_module: bool = False
    """Whether the folders `data` and `models` of the modules under /srv are made writable."""
    module_folders: tuple[str, ...] = ()
    """Further folders of the module as `data PATH` or `models PATH`: it was asked where it keeps them."""
    keeps_folders: bool = False
    """Whether what a module writes there belongs to the run's results."""
    models: Path | None = None
    """What lies in the module's `models` instead of what the image has there, read-only."""
    stages_image: bool = False
    gpus: int = 0
    """GPUs on each node."""
    gpu_vendor: Literal["nvidia", "amd", "intel", ""] = ""

    @property
    def scripts(self) -> tuple[str, ...]:
        """The files from `jobscripts/` that the run folder needs, as patterns."""
        return (*NODE_SCRIPTS, ENGINES[self.engine].script, *((MODULE_SCRIPTS,) if self.is_module else ()))

    def with_binds(self, binds: Iterable[str]) -> "Container":
        """Return it with more binds, outer folders first: bound later, they would hide what is bound inside them."""
        all_binds = dict.fromkeys((*self.binds, *binds))
        ordered = sorted(all_binds, key=lambda bind: bind.split(":")[1].count("/"))
        return self.model_copy(update={"binds": tuple(ordered)})

    def render_facts(self, folder: Path, variables: Collection[str]) -> str:
        """Return `facts.sh`: what `container.sh` must know, as assignments of bash.

        Parameters
        ----------
        folder
            The run folder.
        variables
            Names of the variables that the job script has set and the program shall see.
        """
        words: Mapping[str, str] = {
            "engine": self.engine,
            "engine_command": self.engine_command,
            "engine_script": ENGINES[self.engine].script,
            "image_digest": self.digest,
            "prepared": str(self.prepared),
            "layout_dir": str(self.layout_dir or ""),
            "store_root": str(self.cache_dir / "images"),
            "cache_dir": str(self.cache_dir),
            "run_folder": str(folder),
            "workdir": self.workdir,
            "is_module": _yes(self.is_module),
            "keeps_folders": _yes(self.keeps_folders),
            "models": str(self.models or ""),
            "module_data": str(self.module_data or ""),
            "stages_image": _yes(self.stages_image),
            "gpus_wanted": str(self.gpus),
            "gpu_vendor": self.gpu_vendor,
        }
        lists = {
            "image_environment": self.environment,
            "asked_binds": self.binds,
            "usual_binds": self.usual_binds,
            "data_sets": self.data,
            "module_folders": self.module_folders,
            "variables": sorted(variables),
        }
        lines = [f"{name}={quote_for_bash(value)}" for name, value in words.items()]
        lines += [f"{name}=({' '.join(quote_for_bash(word) for word in each)})" for name, each in lists.items()]
        header = "# shellcheck shell=bash disable=SC2034  # read by container.sh, and by the engine's file\n"
        return header + "\n".join(lines) + "\n"


def parse_bind(text: str, cwd: Path) -> str:
    """Read `SRC[:DST][:ro]`; a relative SRC counts from here, DST is SRC when left out.

    Raises
    ------
    InputError
        There is no such file here, DST is not absolute, or a path has a character that engines cannot carry.
    """
    parts = text.split(":")
    access = parts.pop() if len(parts) > 1 and parts[-1] in ("ro", "rw") else "rw"
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise InputError(f"--bind {text!r} is not SRC:DST", "write SRC, SRC:DST or SRC:DST:ro; paths have no colon")
    source = (cwd / Path(parts[0]).expanduser()).absolute()
    inside = parts[1] if len(parts) == 2 else str(source)
    for path in (str(source), inside):
        check_path(path, f"--bind {text!r}")
    place = os.path.normpath("/" + inside.lstrip("/"))
    if place in _NOT_OURS or place.startswith("/deephpc/"):
        raise InputError(f"--bind {text!r}: {inside} inside is not free", "choose another place for it in the image")
    if not source.exists():
        raise InputError(f"--bind {text!r}: there is no {source} here", "check the path")
    return f"{source}:{inside}" + (":ro" if access == "ro" else "")


def check_path(path: str, where: str) -> None:
    """Check that a path can be bound into a container.

    Raises
    ------
    InputError
        It is not absolute, or has a colon, a comma or a line break, which engines take for something else.
    """
    if not _PATH.fullmatch(path):
        raise InputError(
            f"{where}: {path!r} cannot be bound into a container",
            "use an absolute path without colon, comma and line break",
        )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
