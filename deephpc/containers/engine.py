"""The engines that run images without root, in the order in which `--engine auto` prefers them.

What an engine does on a node stands in its file in `jobscripts/`, as two functions of shell: `engine_set_up` makes the
image ready for it (on a login node, or in the job), `engine_exec` runs words inside. What is known before stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NATIVE = "native"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run an image."""

    name: str
    """As it is recorded, with the mode where an engine has several."""
    program: str
    """Its command."""
    script: str
    """The file in `jobscripts/` that knows its words."""
    folder: str
    """Where under `cache_dir` the images lie that are ready for it."""
    suffix: str = ""
    """What the name of one of those ends with."""
    warning: str = ""
    """What a user should know who gets this one."""
    on_request: bool = False
    """Whether only its own name stands for it."""

    def prepared_path(self, cache_dir: Path, digest: str) -> Path:
        """Return where an image lies, or will lie, ready for this engine; named for its digest alone."""
        return cache_dir / self.folder / (digest.replace(":", "-") + self.suffix)


_SLOW = "every file access of the program is traced: imports take up to half as long again, many small files far longer"

ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("apptainer", "apptainer", "apptainer.sh", "sif", ".sif"),
        Engine("singularity", "singularity", "apptainer.sh", "sif", ".sif"),
        Engine("udocker-r", "udocker", "udocker.sh", "udocker"),
        Engine("udocker-f", "udocker", "udocker.sh", "udocker-f"),
        Engine("udocker-p1", "udocker", "udocker.sh", "udocker", warning=_SLOW),
        Engine("udocker-p2", "udocker", "udocker.sh", "udocker", warning=_SLOW),
        Engine("udocker-s", "udocker", "udocker.sh", "udocker"),
        Engine("apptainer-sandbox", "apptainer", "apptainer.sh", "sandbox", on_request=True),
    )
}


def engines_called(word: str) -> tuple[Engine, ...]:
    """Return the engines a word of `--engine` stands for, best first: all for `auto`, the modes for `udocker`."""
    if word == AUTO:
        return tuple(engine for engine in ENGINES.values() if not engine.on_request)
    called = (engine for engine in ENGINES.values() if word == engine.program and not engine.on_request)
    return (ENGINES[word],) if word in ENGINES else tuple(called)
