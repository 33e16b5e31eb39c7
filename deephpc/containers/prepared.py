"""The forms of an image that engines take, made from the store and removed with the image."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from deephpc.containers.engine import ENGINES
from deephpc.containers.tree import remove_tree, tree_bytes
from deephpc.containers.udocker import remove

#: What the makers of forms call what is not done: folders of conversions, SIFs, trees coming or going.
WORK_PREFIX = ".deephpc-"
_HALF = (".sha256-*", "*.part")
#: Longer than any conversion runs.
_LOOSE_FOR_S = 24 * 3600.0


def prepared_forms(cache_dir: Path, digest: str) -> tuple[Path, ...]:
    """Return the forms of an image that exist, as far as we may look."""
    paths = dict.fromkeys(engine.prepared_path(cache_dir, digest) for engine in ENGINES.values())
    return tuple(path for path in paths if os.path.lexists(path))


def remove_prepared(cache_dir: Path, digest: str) -> tuple[int, tuple[Path, ...]]:
    """Remove every form of an image that we may remove.

    Returns
    -------
    tuple
        The bytes freed of those that are files, and the forms that stay, as they are a colleague's.
    """
    freed_bytes, left = 0, []
    for path in prepared_forms(cache_dir, digest):
        try:
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                remove(path)
            else:
                path.unlink(missing_ok=True)
                freed_bytes += found.st_size
        except OSError:
            left.append(path)
            continue
        with contextlib.suppress(OSError):
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return freed_bytes, tuple(left)


def sweep_halves(cache_dir: Path) -> int:
    """Remove what our killed conversions left a day ago or longer; returns roughly the bytes freed."""
    freed_bytes, before = 0, time.time() - _LOOSE_FOR_S
    for path in _halves(cache_dir):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid != os.geteuid() or found.st_mtime > before:
                continue
            if stat.S_ISDIR(found.st_mode):
                freed_bytes += tree_bytes(path)
                remove_tree(path)
            else:
                path.unlink()
                freed_bytes += found.st_size
    return freed_bytes


def _halves(cache_dir: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from cache_dir.glob(f"{WORK_PREFIX}????????")  # as tempfile names them
    for folder in dict.fromkeys(engine.folder for engine in ENGINES.values()):
        for pattern in _HALF:
            with contextlib.suppress(OSError):
                yield from (cache_dir / folder).glob(pattern)
