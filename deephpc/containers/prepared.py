"""The forms of an image that engines take, made from the store and removed with the image."""

from pathlib import Path

from deephpc.containers.engine import ENGINES
from deephpc.containers.udocker import remove


def prepared_forms(cache_dir: Path, digest: str) -> tuple[Path, ...]:
    """Return the forms of an image that exist."""
    paths = dict.fromkeys(engine.prepared_path(cache_dir, digest) for engine in ENGINES.values())
    return tuple(path for path in paths if path.exists())


def remove_prepared(cache_dir: Path, digest: str) -> int:
    """Remove every form of an image; returns the bytes freed of those that are files."""
    freed_bytes = 0
    for path in prepared_forms(cache_dir, digest):
        if path.is_dir():
            remove(path)
        else:
            freed_bytes += path.stat().st_size
            path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return freed_bytes
