"""Writes a site profile as TOML, in the words a person would use (`2:00:00`, `480G`), with comments above."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import tomli_w

from deephpc.config.site import Site
from deephpc.jobs.slurm_units import render_memory, render_walltime


def render_site(site: Site, comments: Sequence[str] = ()) -> str:
    """Return the text of a profile that loads as the same site; what is unknown or built in is left out."""
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    return head + tomli_w.dumps(_plain(site.model_dump(exclude_defaults=True, exclude_none=True)))


def _plain(value: Any, key: str = "") -> Any:  # noqa: ANN401 - a tree as TOML has it
    if isinstance(value, dict):
        return {name: _plain(each, name) for name, each in value.items() if each is not None}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, timedelta):
        return render_walltime(value)
    if key == "memory_mib":
        return render_memory(value)
    return value
