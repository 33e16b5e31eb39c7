"""Metadata files → one `Module`, whichever schema they keep to; a bad file becomes a reason, never an exception."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from deephpc.catalogue.advice import advise, is_placeholder
from deephpc.catalogue.document import Document, UnreadableError, parse_document
from deephpc.catalogue.image_name import parse_image_name
from deephpc.catalogue.module import INFERENCE, PRE_TRAINED, TRAINABLE, FileVerdict, Module, ModuleResources
from deephpc.catalogue.schema import DATA_TYPES, LIBRARIES, TASKS, check_schema, shape_of
from deephpc.model import Model

#: Keywords of version 1 → words of version 2, by their spelling in lower case.
_CATEGORY_WORDS = {
    "trainable": TRAINABLE,
    "inference": INFERENCE,
    "pre-trained": PRE_TRAINED,
    "pretrained": PRE_TRAINED,
    "pre trained": PRE_TRAINED,
}
_TASK_WORDS = {
    "image classification": ("Computer Vision", "Classification"),
    "imagine classification": ("Computer Vision", "Classification"),  # a typing error that has spread
    "object detection": ("Computer Vision",),
    "semantic segmentation": ("Computer Vision",),
    "instance segmentation": ("Computer Vision",),
    "segmentation": ("Computer Vision",),
    "audio classification": ("Classification",),
    "nlp": ("Natural Language Processing",),
    **{task.lower(): (task,) for task in TASKS},
}
_DATA_WORDS = {"image classification": "Image", "imagine classification": "Image", "audio classification": "Audio"} | {
    kind.lower(): kind for kind in DATA_TYPES
}
_LIBRARY_WORDS = {library.lower(): library for library in LIBRARIES} | {
    "tensorflow-v1": "TensorFlow",
    "tensorflow-v2": "TensorFlow",
}
_V1_LINKS = {
    "cite_url": "citation",
    "dataset_url": "dataset",
    "training_files_url": "weights",
    "pre_trained_weights": "weights",
    "dockerfile_repo": "container_definition",
    "code": "source_code",
}
_V2_LINK_NAMES = {"training_data": "dataset", "dataset_url": "dataset", "cite_url": "citation"}
_IMAGE_TAG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_MAX_INT = 2**53


class MetadataFile(Model):
    """One file as it was fetched."""

    name: str
    text: str


class Origin(Model):
    """What is known of a module before its metadata is read."""

    name: str
    source: str
    repository: str = ""
    organisation: str = ""
    """Who publishes the catalogue's images."""
    licence: str = ""
    """As recorded beside the metadata, where it was."""
    as_of: datetime
    trouble: str = ""


def judge_file(file: MetadataFile, organisation: str = "") -> FileVerdict:
    """Check one file against the schema of its shape and against what real use needs."""
    return _judge(file, organisation)[1]


def read_module(origin: Origin, files: Sequence[MetadataFile]) -> Module:
    """Read a module from its metadata: version 2 before version 1, a valid file before an invalid one."""
    judged = [(*_judge(file, origin.organisation), file.name) for file in sorted(files, key=_preference)]
    if not judged:
        problem = origin.trouble or "it has no metadata file"
        return _bare(origin, (problem,))
    document, verdict, name = next((each for each in judged if each[1].is_valid), judged[0])
    problems = () if verdict.is_valid else tuple(f"{name}, {finding.describe()}" for finding in verdict.errors)
    passed_over = tuple(
        f"{other.file} was passed over: {other.errors[0].describe()}"
        for _, other, _ in judged
        if other.errors and other is not verdict
    )
    if document is None or not isinstance(document.value, dict):
        return _bare(origin, problems, file=name)
    facts = _facts(document.value)
    image = parse_image_name(_written_image(document.value), origin.organisation)
    licence = facts.pop("licence") or next(filter(None, (_licence(each[0]) for each in judged)), "") or origin.licence
    return Module.model_validate(
        {
            **_identity(origin),
            **facts,
            "image": image.name,
            "file": name,
            "licence": licence,
            "problems": problems,
            "notes": (*passed_over, *(f"its image name {change}" for change in image.changes)),
        }
    )


def _preference(file: MetadataFile) -> tuple[bool, bool, str]:
    """Put `ai4-metadata.yml` first and `metadata.json` before older copies of it."""
    return (not file.name.startswith("ai4-metadata"), file.name != "metadata.json", file.name)


def _judge(file: MetadataFile, organisation: str) -> tuple[Document | None, FileVerdict]:
    try:
        document = parse_document(file.text, file.name)
    except UnreadableError as error:
        return None, FileVerdict(file=file.name, findings=(error.finding(),))
    findings = (*check_schema(document), *advise(document, organisation))
    shape = shape_of(document.value) if isinstance(document.value, dict) else ""
    ordered = tuple(sorted(findings, key=lambda finding: (finding.level == "advice", finding.line)))
    return document, FileVerdict(file=file.name, schema_version=shape, findings=ordered)


def _identity(origin: Origin) -> dict[str, object]:
    return origin.model_dump(exclude={"organisation", "licence"})


def _bare(origin: Origin, problems: tuple[str, ...], file: str = "") -> Module:
    """Return a module of which nothing could be read."""
    return Module.model_validate({**_identity(origin), "file": file, "licence": origin.licence, "problems": problems})


def _facts(value: Mapping[str, object]) -> dict[str, object]:
    """Return a module's fields from a table of either shape; what is of the wrong kind is left out."""
    shape = shape_of(value)
    specific = _version_1(value) if shape == "1" else _version_2(value)
    return {
        "schema_version": shape,
        "title": _line(value.get("title")),
        "summary": _line(value.get("summary")),
        "description": _description(value.get("description")),
        "image_tags": _texts(value.get("docker_tags")),
        "licence": _line(value.get("license")),
        **specific,
    }


def _written_image(value: Mapping[str, object]) -> str:
    place, key = ("sources", "docker_registry_repo") if shape_of(value) == "1" else ("links", "docker_image")
    written = _table(value, place).get(key)
    return written if isinstance(written, str) else ""


def _version_1(value: Mapping[str, object]) -> dict[str, object]:
    """Say in version 2's words what only version 1 says."""
    keywords = _texts(value.get("keywords"))
    moved = _CATEGORY_WORDS.keys() | _LIBRARY_WORDS.keys()
    sources = _table(value, "sources")
    return {
        "categories": _unique(_CATEGORY_WORDS[word.lower()] for word in keywords if word.lower() in _CATEGORY_WORDS),
        "libraries": _unique(_LIBRARY_WORDS[word.lower()] for word in keywords if word.lower() in _LIBRARY_WORDS),
        "tasks": _unique(task for word in keywords for task in _TASK_WORDS.get(word.lower(), ())),
        "data_types": _unique(_DATA_WORDS[word.lower()] for word in keywords if word.lower() in _DATA_WORDS),
        "tags": _unique(word for word in keywords if word.lower() not in moved),
        "links": _links({**sources, **{key: value.get(key) for key in _V1_LINKS if key in value}}, _V1_LINKS),
        "created": _line(value.get("date_creation")),
    }


def _version_2(value: Mapping[str, object]) -> dict[str, object]:
    links = {key: link for key, link in _table(value, "links").items() if key not in ("docker_image", "ai4_template")}
    dates, needs = _table(value, "dates"), _table(value, "resources")
    return {
        "categories": _unique(_texts(value.get("categories"))),
        "libraries": _unique(_texts(value.get("libraries"))),
        "tasks": _unique(_texts(value.get("tasks"))),
        "data_types": _unique(_texts(value.get("data-type"))),
        "tags": _unique(_texts(value.get("tags"))),
        "links": _links(links, {key: _V2_LINK_NAMES.get(key, key) for key in links}),
        "doi": _line(value.get("doi")),
        "created": _line(dates.get("created")),
        "updated": _line(dates.get("updated")),
        "training": _resources(_table(needs, "training")),
        "inference": _resources(_table(needs, "inference")),
    }


def _links(table: Mapping[str, object], names: Mapping[str, str]) -> dict[str, str]:
    """Return the links that lead somewhere, under version 2's names."""
    found: dict[str, str] = {}
    for key, name in names.items():
        link = _line(table.get(key))
        if link.startswith(("http://", "https://")) and not is_placeholder(link):
            found.setdefault(name, link)
    return found


def _resources(table: Mapping[str, object]) -> ModuleResources | None:
    needs = ModuleResources(
        cpus=_whole(table.get("cpu")),
        gpus=_whole(table.get("gpu")),
        memory_mb=_whole(table.get("memory_MB")),
        gpu_memory_mb=_whole(table.get("gpu_memory_MB")),
        gpu_compute_capability=_number(table.get("gpu_compute_capability")),
        storage_mb=_whole(table.get("storage_MB")),
    )
    return needs if needs != ModuleResources() else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MAX_INT else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _licence(document: Document | None) -> str:
    return _line(document.value.get("license")) if document and isinstance(document.value, dict) else ""


def _table(value: Mapping[str, object], key: str) -> dict[str, object]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    return tuple(_line(item) for item in items if isinstance(item, str) and item.strip())


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _line(value: object) -> str:
    return " ".join(_printable(word) for word in value.split()) if isinstance(value, str) else ""


def _description(value: object) -> str:
    """Return it as one text; version 1 keeps a list of its pieces. Pictures are for web pages and left out."""
    if isinstance(value, list):
        value = "\n".join(item.rstrip("\n") for item in value if isinstance(item, str))
    if not isinstance(value, str):
        return ""
    text = _IMAGE_TAG.sub("", _printable(value.replace("\r\n", "\n").replace("\t", "    ")))
    return re.sub(r"\n[ \n]*\n", "\n\n", text).strip()


def _printable(text: str) -> str:
    """Drop what could steer a terminal or cannot be encoded: control characters, lone surrogates, direction marks."""
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
