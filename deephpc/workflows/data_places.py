"""Where data is kept and how it is reached: the user's surroundings, the cache, the limits."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from deephpc.data.location import Location, read_location
from deephpc.data.staging import Cache
from deephpc.data.storage import Limits
from deephpc.data.surroundings import Surroundings
from deephpc.lock import hold


@dataclass(frozen=True)
class DataPlaces:
    """What every verb about data needs."""

    around: Surroundings
    cache: Cache
    limits: Limits = field(default_factory=Limits)

    def locate(self, text: str) -> Location:
        """Return the location a text names; no network.

        Raises
        ------
        InputError
            It names none.
        """
        return read_location(text, self.around)


def open_places(
    environ: Mapping[str, str], home: Path, cwd: Path, cache_dir: Path, limits: Limits | None = None
) -> DataPlaces:
    """Return the places of a user; makes nothing."""
    import os

    cache = Cache(cache_dir / "data" / f"user-{os.getuid()}", _hold)
    return DataPlaces(Surroundings(environ, home, cwd), cache, limits or Limits())


def _hold(path: Path) -> AbstractContextManager[object]:
    """Hold a lock as long as another owner gives a sign of life."""
    return hold(path, timeout_s=float("inf"), mode=0o600)
