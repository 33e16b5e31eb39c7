"""Finds in a prediction, whatever its form, what fits into the cells of a table (pure)."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from pydantic import JsonValue

Cell = str | int | float | bool

#: How DEEPaaS 2 wraps what a module returned (deepaas/api/v2/predict.py).
_WRAPPING = frozenset({"status", "predictions"})
_LONGEST_CELL = 1000
"""Characters."""
_MOST_MEMBERS = 50
"""Of an object whose members get columns of their own."""
LEFT_OUT = "left_out"
"""The column that names what was too large for a table."""
_LABELS = re.compile(r"lab|class|name|categor", re.IGNORECASE)
_PROBABILITIES = re.compile(r"prob|score|conf", re.IGNORECASE)


def result_columns(result: JsonValue) -> dict[str, Cell]:
    """Return column → cell: every member of the result, and its likeliest label with the probability.

    Modules answer with an object, a list with one in it, or either inside `predictions`; and with labels and
    probabilities as two lists of the same length or as a list of objects with one of each. Objects inside are flattened
    (`result.box.width`), lists are JSON; of a list of objects `objects` says how many there are. What is too large for
    a cell is named in `left_out`.
    """
    value = _only(result)
    left_out: list[str] = []
    if isinstance(value, dict) and value.keys() <= _WRAPPING and "predictions" in value:
        return result_columns(value["predictions"])
    if isinstance(value, dict):
        own = {name: member for name, member in value.items() if name != "predictions"}
        columns = {**_flat("result", own, left_out), **result_columns(value.get("predictions")), **_likeliest(value)}
    elif isinstance(value, list):
        columns = {**_flat("result", value, left_out), **_likeliest_of(value)}
        if all(isinstance(item, dict) for item in value):
            columns["objects"] = len(value)
    else:
        columns = _flat("result", value, left_out)
    if left_out:
        columns[LEFT_OUT] = ", ".join(filter(None, [str(columns.get(LEFT_OUT, "")), *left_out]))[:_LONGEST_CELL]
    return columns


def _flat(name: str, value: JsonValue, left_out: list[str]) -> dict[str, Cell]:
    """Return the columns of one value, whatever it holds; what is too large goes into `left_out`."""
    if value is None:
        return {}
    if _is_cell(value):
        return {name: value}
    if isinstance(value, dict) and 0 < len(value) <= _MOST_MEMBERS:
        columns: dict[str, Cell] = {}
        for member, inner in value.items():
            columns.update(_flat(f"{name}.{member}", inner, left_out))
        return columns
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_CELL:
        return {name: text}
    size = f"{len(value)} items" if isinstance(value, list | dict) else f"{len(text)} characters"
    left_out.append(f"{name} ({size})")
    return {}


def _only(value: JsonValue) -> JsonValue:
    """Return the one item of a list, or the value itself."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _likeliest(value: Mapping[str, JsonValue]) -> dict[str, Cell]:
    """Return the label with the highest probability, where labels and probabilities are two lists of an object."""
    labels = _list_called(_LABELS, value)
    probabilities = _list_called(_PROBABILITIES, value)
    if not labels or not probabilities or len(labels) != len(probabilities):
        return {}
    pairs = [(chance, label) for chance, label in zip(probabilities, labels, strict=True) if _is_number(chance)]
    return _best(pairs)


def _likeliest_of(items: list[JsonValue]) -> dict[str, Cell]:
    """Return the same of a list of objects, each with a label and a probability."""
    pairs: list[tuple[float, Cell]] = []
    for item in items:
        if not isinstance(item, dict):
            return {}
        label = next((member for name, member in item.items() if _LABELS.search(name) and _is_cell(member)), None)
        chance = next(
            (member for name, member in item.items() if _PROBABILITIES.search(name) and _is_number(member)), None
        )
        if label is None or chance is None:
            return {}
        pairs.append((chance, label))
    return _best(pairs)


def _best(pairs: Sequence[tuple[float, JsonValue]]) -> dict[str, Cell]:
    if not pairs:
        return {}
    chance, label = max(pairs, key=lambda pair: pair[0])
    return {"label": label, "probability": chance} if _is_cell(label) else {}


def _list_called(name: re.Pattern[str], value: Mapping[str, JsonValue]) -> list[JsonValue] | None:
    lists = (_only(member) if _is_nested(member) else member for key, member in value.items() if name.search(key))
    return next((each for each in lists if isinstance(each, list)), None)


def _is_nested(value: JsonValue) -> bool:
    """Whether a list holds one list: models answer for a batch of one."""
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)


def _is_number(value: JsonValue) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_cell(value: JsonValue) -> TypeGuard[Cell]:
    if isinstance(value, str):
        return len(value) <= _LONGEST_CELL
    return isinstance(value, bool | int | float)
