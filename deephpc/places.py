"""Finds the files that ship beside the package (`jobscripts/`, `configs/`) in a checkout, an install, a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Return the shipped folder `jobscripts` or `configs`.

    A wheel carries both under `deephpc/_data/`; in a checkout or an editable install they lie beside the package.

    Raises
    ------
    FileNotFoundError
        The installation lacks the folder: the package was copied without its data.
    """
    for candidate in (_PACKAGE / "_data" / folder, _PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"deephpc's own folder {folder!r} is missing beside {_PACKAGE}")
