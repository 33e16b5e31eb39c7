"""What reading and opening a location takes from around the process: its environment, home and current folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the user stands."""

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    cwd: Path
