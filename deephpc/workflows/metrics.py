"""Reads the metrics a program writes as JSON lines to `$DEEPHPC_METRICS`."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from deephpc.jobs.run_folder import read_json_lines

#: Keys that place a line rather than measure something.
_AXES = ("step", "epoch", "time", "at", "timestamp")

Series = dict[str, list[tuple[float, float]]]


def load_series(path: Path) -> Series:
    """Return `{metric: [(x, value), …]}` in the order written; x is the line's step, epoch or number.

    Values that are not finite numbers are passed over, as are lines that are not JSON objects.
    """
    return series_of(read_json_lines(path))


def series_of(lines: Iterable[Mapping[str, object]]) -> Series:
    """Fold lines into one series per metric (pure)."""
    series: Series = {}
    for number, line in enumerate(lines):
        x = next((_number(line.get(axis)) for axis in _AXES[:2] if _number(line.get(axis)) is not None), None)
        for name, value in line.items():
            measured = _number(value)
            if measured is not None and name not in _AXES:
                series.setdefault(str(name), []).append((float(number) if x is None else x, measured))
    return series


def last_values(series: Series) -> dict[str, float]:
    """Return the last value of each metric (pure)."""
    return {name: points[-1][1] for name, points in series.items()}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) else None
