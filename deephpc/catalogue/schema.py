"""The two public metadata schemas as tables, and what in a document breaks them.

Sources: `ai4-apps-v1.0.0.json` and `ai4-apps-v2.0.0.json` … `ai4-apps-v2.3.0.json` of AI4OS (published with the PyPI
package ai4-metadata 2.4.2). The releases of version 2 differ in optional keys only (`resources`, `links.self`), so the
newest stands for all. Formats (uri, date) are advice here, as validators leave them unasserted.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from deephpc.catalogue.document import Document, Path
from deephpc.catalogue.finding import Finding

LIBRARIES = ("TensorFlow", "PyTorch", "Keras", "Scikit-learn", "XGBoost", "LightGBM", "CatBoost", "Other")
TASKS = (
    "Computer Vision", "Natural Language Processing", "Time Series", "Recommender Systems", "Anomaly Detection",
    "Regression", "Classification", "Clustering", "Dimensionality Reduction", "Generative Models",
    "Graph Neural Networks", "Optimization", "Reinforcement Learning", "Transfer Learning", "Uncertainty Estimation",
    "Other",
)  # fmt: skip
CATEGORIES = ("AI4 pre trained", "AI4 trainable", "AI4 inference", "AI4 tools")
DATA_TYPES = ("Image", "Text", "Time Series", "Tabular", "Graph", "Audio", "Video", "Other")
_RCLONE_INPUTS = ("rclone_conf", "rclone_url", "rclone_vendor", "rclone_user", "rclone_pass")
_VERSION = re.compile(r"^[0-9]{1,}.[0-9]{1,}.[0-9]{1,}$")

Shape = Literal["1", "2"]
Kind = Literal["text", "texts", "table", "tables", "whole", "number"]

_NAMES: dict[Kind, str] = {
    "text": "text",
    "texts": "a list of texts",
    "table": "a table",
    "tables": "a list of tables",
    "whole": "a whole number, 0 or more",
    "number": "a number, 0 or more",
}


@dataclass(frozen=True)
class Rule:
    """What one key may hold."""

    kind: Kind
    choices: tuple[str, ...] = ()
    """The texts that are allowed; empty allows all."""
    unique: bool = False
    pattern: re.Pattern[str] | None = None
    fields: Mapping[str, "Rule"] = field(default_factory=dict)
    """Of a table, or of each table in a list."""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


_TEXT = Rule("text")
_LINK_NAMES = (
    "self", "documentation", "source_code", "docker_image", "zenodo_doi", "dataset", "weights", "citation",
    "base_model",
)  # fmt: skip
_NEED = Rule(
    "table",
    fields={
        "cpu": Rule("whole"),
        "gpu": Rule("whole"),
        "memory_MB": Rule("whole"),
        "gpu_memory_MB": Rule("whole"),
        "gpu_compute_capability": Rule("number"),
        "storage_MB": Rule("whole"),
    },
)

V1 = Rule(
    "table",
    fields={
        "title": _TEXT,
        "summary": _TEXT,
        "description": Rule("texts"),
        "date_creation": _TEXT,
        "keywords": Rule("texts", unique=True),
        "license": _TEXT,
        "cite_url": _TEXT,
        "dataset_url": _TEXT,
        "sources": Rule(
            "table",
            fields=dict.fromkeys(("dockerfile_repo", "docker_registry_repo", "code", "pre_trained_weights"), _TEXT),
            required=("dockerfile_repo", "docker_registry_repo", "code"),
        ),
        "tosca": Rule(
            "tables",
            fields={"title": _TEXT, "url": _TEXT, "inputs": Rule("texts", choices=_RCLONE_INPUTS)},
            required=("title", "url", "inputs"),
        ),
    },
    required=("title", "summary", "description", "date_creation", "keywords", "license", "sources"),
)

V2 = Rule(
    "table",
    fields={
        "metadata_version": Rule("text", pattern=_VERSION),
        "title": _TEXT,
        "summary": _TEXT,
        "description": _TEXT,
        "doi": _TEXT,
        "links": Rule("table", fields=dict.fromkeys(_LINK_NAMES, _TEXT), required=("source_code",)),
        "dates": Rule("table", fields={"created": _TEXT, "updated": _TEXT}, required=("created", "updated")),
        "libraries": Rule("texts", choices=LIBRARIES, unique=True),
        "tasks": Rule("texts", choices=TASKS, unique=True),
        "categories": Rule("texts", choices=CATEGORIES, unique=True),
        "tags": Rule("texts", unique=True),
        "data-type": Rule("texts", choices=DATA_TYPES, unique=True),
        "resources": Rule("table", fields={"inference": _NEED, "training": _NEED}),
    },
    required=(
        "metadata_version", "title", "summary", "description", "links", "libraries", "tasks", "categories", "tags",
    ),
    forbidden=("tosca", "sources", "dataset_url", "cite_url", "date_creation", "keywords"),
)  # fmt: skip

_RULES: dict[Shape, Rule] = {"1": V1, "2": V2}
_ONLY_1 = V1.fields.keys() - V2.fields.keys()
_ONLY_2 = (
    V2.fields.keys() - V1.fields.keys() - {"metadata_version"}
)  # it is in version 1 files too, as their own version


def shape_of(value: Mapping[str, object]) -> Shape:
    """Tell the schema by the keys that only one of them has; what a file calls its version is not reliable."""
    first, second = len(_ONLY_1 & value.keys()), len(_ONLY_2 & value.keys())
    if first == second:
        return "2" if "metadata_version" in value else "1"
    return "2" if second > first else "1"


def check_schema(document: Document) -> Iterator[Finding]:
    """Yield every way in which a document breaks the schema of its shape."""
    if not isinstance(document.value, dict):
        yield Finding(level="error", line=1, message="metadata is a table of keys and values; this is not one")
        return
    yield from _check_table(document, document.value, _RULES[shape_of(document.value)], ())


def rule_of(value: Mapping[str, object]) -> Rule:
    """Return the schema of a value's shape."""
    return _RULES[shape_of(value)]


def _error(document: Document, path: Path, message: str) -> Finding:
    return Finding(level="error", line=document.line(path), key=".".join(map(str, path)), message=message)


def _check_table(document: Document, table: Mapping[str, object], rule: Rule, path: Path) -> Iterator[Finding]:
    for key in rule.required:
        if key not in table:
            yield _error(document, (*path, key), "is missing")
    for key in rule.forbidden:
        if key in table:
            yield _error(document, (*path, key), "belongs to version 1 of the schema and may not stand in version 2")
    for key, inner in rule.fields.items():
        if key in table:
            yield from _check(document, table[key], inner, (*path, key))


def _check(document: Document, value: object, rule: Rule, path: Path) -> Iterator[Finding]:
    if not _has_kind(value, rule.kind):
        yield _error(document, path, f"should be {_NAMES[rule.kind]}, not {_shown(value)}")
        return
    if isinstance(value, dict):
        yield from _check_table(document, value, rule, path)
    elif isinstance(value, list):
        yield from _check_items(document, value, rule, path)
    elif isinstance(value, str) and rule.pattern is not None and not rule.pattern.search(value):
        yield _error(document, path, f"{value!r} is not a version such as 2.0.0")


def _check_items(document: Document, items: list[object], rule: Rule, path: Path) -> Iterator[Finding]:
    seen: set[object] = set()
    for number, item in enumerate(items):
        where = (*path, number)
        if isinstance(item, dict):
            yield from _check_table(document, item, rule, where)
            continue
        if rule.choices and item not in rule.choices:
            yield _error(document, where, f"{item!r} is none of: {', '.join(rule.choices)}")
        if rule.unique and item in seen:
            yield _error(document, where, f"{item!r} is listed twice")
        seen.add(item)


def _has_kind(value: object, kind: Kind) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "texts":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "table":
            return isinstance(value, dict)
        case "tables":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)
        case "whole":
            return _is_number(value) and float(str(value)).is_integer()
        case "number":
            return _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
