"""Reads the metrics that programs write in ways of their own, where they lie in a run's output.

Sources: tensorboard/compat/proto/event.proto and summary.proto (TensorBoard 2.x); TensorFlow's record_writer.h
(a record is its length in 8 bytes, little-endian, a checksum of 4, the data, a checksum of 4).
"""

import contextlib
import csv
import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from deephpc.jobs.run_folder import TaskFolder, read_text
from deephpc.workflows.metrics import Series, load_series, series_of

_CSV = re.compile(r"(.*(metric|history|log|loss|results).*)\.csv", re.IGNORECASE)
_EVENTS = re.compile(r".*tfevents.*")
_JSON = ("stats.json", "train.json", "history.json", "metrics.json")
_LARGEST_BYTES = 32 << 20
_MOST_FILES = 2000
_DEEPEST = 6
_MOST_SERIES = 200


def run_series(files: TaskFolder) -> Series:
    """Return the metrics of a run: its own `metrics.jsonl`, or else what the program wrote in its output."""
    return load_series(files.metrics) or found_series(files)


def found_series(files: TaskFolder) -> Series:
    """Return the metrics in the newest of TensorBoard's event files, else table, else JSON, below a run's output.

    What an image had before is not the run's: its own models, and files older than the run.
    """
    newest: dict[str, Path] = {}
    for _, path in sorted(_files(files)):
        kind = "events" if _EVENTS.fullmatch(path.name) else path.suffix
        newest[kind] = path
    found: Series = {}
    for kind, read in (("events", _read_events), (".csv", _read_table), (".json", _read_json)):
        with contextlib.suppress(
            OSError, ValueError, RecursionError, csv.Error
        ):  # a stranger's file, which may be gone
            if kind in newest and not found:
                found = read(newest[kind])
    return dict(list(found.items())[:_MOST_SERIES])


def _files(files: TaskFolder) -> Iterator[tuple[float, Path]]:
    """Yield the files that may hold metrics, with when they were written."""
    began = files.path / "claim"
    since = began.stat().st_mtime if began.exists() else 0.0
    shipped = {files.output / "models" / name for name in (read_text(files.shipped_models) or "").splitlines()}
    seen = 0
    for folder, names, members in os.walk(files.output):
        place = Path(folder)
        if len(place.relative_to(files.output).parts) >= _DEEPEST:
            names.clear()
        names[:] = [name for name in names if place / name not in shipped]
        for name in members:
            seen += 1
            if seen > _MOST_FILES:
                return
            path = place / name
            if not (_EVENTS.fullmatch(name) or _CSV.fullmatch(name) or name in _JSON) or path in shipped:
                continue
            with contextlib.suppress(OSError):
                about = path.lstat()
                if stat.S_ISREG(about.st_mode) and about.st_mtime >= since and about.st_size <= _LARGEST_BYTES:
                    yield about.st_mtime, path


def _read_table(path: Path) -> Series:
    """Return the columns of numbers; x is the column step or epoch, or the number of the row."""
    lines = (path.read_text(encoding="utf-8", errors="replace")).splitlines()
    rows = csv.DictReader(lines, skipinitialspace=True)
    return series_of({str(name).strip(): _number(text) for name, text in row.items()} for row in rows)


def _read_json(path: Path) -> Series:
    """Return numbers as series of one point, lists of numbers as series, whatever objects they lie in."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and isinstance(value.get("result"), dict):  # DEEPaaS's word on a training
        value = value["result"].get("output")
    series: Series = {}
    _fold(series, "", value)
    return series


def _fold(series: Series, name: str, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _fold(series, f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and value and all(_number(each) is not None for each in value):
        series[name or "result"] = [(float(at), float(each)) for at, each in enumerate(value)]
    elif _number(value) is not None:
        series[name or "result"] = [(0.0, float(value))]  # type: ignore[arg-type] # it is a number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type] # that is what is tried
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _read_events(path: Path) -> Series:
    """Return the scalars of an event file; one that is cut off is read as far as it goes."""
    series: Series = {}
    content = path.read_bytes()
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = content[at + 12 : at + 12 + length]
        at += 16 + length
        if len(event) < length:
            break
        try:
            _add_event(series, event)
        except (struct.error, IndexError, UnicodeDecodeError):
            break
    return series


def _add_event(series: Series, event: bytes) -> None:
    members = dict(_members(event))
    step, summary = members.get(2, 0), members.get(5, b"")
    if not isinstance(summary, bytes):
        return
    for number, value in _members(summary):
        if number != 1 or not isinstance(value, bytes):
            continue
        parts = dict(_members(value))
        name, scalar = parts.get(1), _scalar(parts)
        if isinstance(name, bytes) and scalar is not None and math.isfinite(scalar):
            series.setdefault(name.decode("utf-8", "replace"), []).append((float(step), scalar))


def _scalar(parts: dict[int, int | bytes]) -> float | None:
    """Return a scalar: `simple_value`, or a tensor of one float (PyTorch writes the first, TensorFlow 2 the second)."""
    simple, tensor = parts.get(2), parts.get(8)
    if isinstance(simple, bytes):
        return float(struct.unpack("<f", simple)[0])
    if not isinstance(tensor, bytes):
        return None
    inside = dict(_members(tensor))
    held = inside.get(4) or inside.get(5)
    is_one = inside.get(1) == 1 and isinstance(held, bytes) and len(held) == struct.calcsize("<f")
    return float(struct.unpack("<f", held)[0]) if is_one else None  # type: ignore[arg-type] # they are bytes


def _members(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each member of a protocol buffer. Source: protobuf.dev/programming-guides/encoding."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise IndexError(kind)
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError(shift)
