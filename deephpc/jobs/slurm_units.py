"""Slurm's notation for time, memory and generic resources, read and written.

Source: sbatch(1) of Slurm 24.11, options --time, --mem, --gpus-per-node.
"""

import re
from datetime import timedelta

_UNLIMITED = frozenset({"UNLIMITED", "INFINITE", "-1"})
_MEMORY = re.compile(r"(\d{1,15})([KMGT]?)B?", re.IGNORECASE)
_MIB = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_MOST_SECONDS = 100 * 366 * 86400


def parse_walltime(text: str) -> timedelta | None:
    """Read `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`; None is no limit.

    Raises
    ------
    ValueError
        The text is none of these, is zero, or is beyond a hundred years.
    """
    word = text.strip()
    if word.upper() in _UNLIMITED:
        return None
    days, dash, clock = word.rpartition("-")
    parts = clock.split(":")
    if not all(re.fullmatch(r"[0-9]{1,12}", part) for part in (*parts, *([days] if dash else []))) or len(parts) > 3:
        raise ValueError(_bad_walltime(text))
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= _MOST_SECONDS:
        raise ValueError(_bad_walltime(text))
    return timedelta(seconds=total)


def render_walltime(limit: timedelta | None) -> str:
    """Return `days-hours:minutes:seconds`, or `UNLIMITED` for None; seconds are whole."""
    if limit is None:
        return "UNLIMITED"
    seconds = int(limit.total_seconds())
    clock = f"{seconds % 86400 // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 86400}-{clock}" if seconds >= 86400 else clock


def parse_memory(text: str) -> int:
    """Read `16G`, `16000`, `512M`, `1T`, `2048K` as MiB; a bare number is MiB, 0 is all of a node's memory.

    Raises
    ------
    ValueError
        The text is not a whole number with an optional unit.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory such as 16G, 512M or 16000 (MiB)")
    number, unit = int(match[1]), match[2].upper()
    if unit == "K":
        return -(-number // 1024)
    return number * _MIB[unit]


def render_memory(mib: int) -> str:
    """Return `16G` where the amount is whole in GiB, else `16001M`."""
    return f"{mib // 1024}G" if mib and mib % 1024 == 0 else f"{mib}M"


def _bad_walltime(text: str) -> str:
    return f"{text!r} is not a time limit such as 30 (minutes), 2:00:00, 1-12 (days-hours) or UNLIMITED"
