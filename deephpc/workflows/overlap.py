"""Refuses a transfer whose files would land on, or among, the very files that it reads."""

from collections.abc import Iterable
from pathlib import Path

from deephpc.errors import InputError


def refuse_overlap(source: Path, finals: Iterable[Path], hint: str) -> None:
    """Check that no file would be written over its source, or into the folder that is read.

    Parameters
    ----------
    source
        A file or folder of this machine.
    finals
        Where its files go on this machine; links above them are followed.

    Raises
    ------
    InputError
        One would.
    """
    real, is_file = source.resolve(), source.is_file()
    resolved: dict[Path, Path] = {}
    for final in finals:
        parent = resolved.get(final.parent) or resolved.setdefault(final.parent, final.parent.resolve())
        lands = parent / final.name
        if (lands.exists() and lands.samefile(real)) if is_file else lands.is_relative_to(real):
            where = "onto itself" if is_file or parent in (real, real.parent) else f"into itself, to {lands}"
            raise InputError(f"{source} would be copied {where}", hint)
