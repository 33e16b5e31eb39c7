"""Knows conda environments (conda, mamba, pixi) by their files, as rattler's activation does (rattler.shell 0.28.0)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

_LARGEST_BYTES = 1024 * 1024


def is_conda(folder: Path) -> bool:
    """Whether a folder is the prefix of a conda environment."""
    return (folder / "conda-meta").is_dir()


def conda_variables(prefix: Path) -> dict[str, str]:
    """Return the variables that an environment sets when it is activated (login node).

    Those of its packages come first (`etc/conda/env_vars.d/*.json`), then the user's own (`conda env config vars set`),
    which may be secrets. What cannot be read counts as none.
    """
    found: dict[str, str] = {}
    for path in sorted((prefix / "etc/conda/env_vars.d").glob("*.json")):
        found.update(_texts(_load(path)))
    own = _load(prefix / "conda-meta/state").get("env_vars")
    found.update(_texts(own if isinstance(own, dict) else {}))
    return found


def _load(path: Path) -> Mapping[str, object]:
    try:
        raw = json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _texts(raw: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in raw.items() if isinstance(value, str))
