"""What real use needs of a metadata file beyond its schema: an image that can be pulled, links that lead somewhere."""

import difflib
import re
from collections.abc import Iterator, Mapping

from deephpc.catalogue.document import Document, Path
from deephpc.catalogue.finding import Finding
from deephpc.catalogue.image_name import parse_image_name
from deephpc.catalogue.schema import rule_of, shape_of

_KNOWN_VERSIONS = ("2.0.0", "2.1.0", "2.2.0", "2.3.0")
_PLACEHOLDER = re.compile(r"//add-some-|//example\.(?:org|com)\b", re.IGNORECASE)
_ISO_DATE = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
#: The largest compute capability NVIDIA has given a GPU is far below this.
_MAX_CAPABILITY = 20
#: Keys outside the schemas that tools write or wrote, so that they are no mistakes.
_TOLERATED = {
    "": ("continuous_integration", "training_files_url", "docker_tags", "provenance"),
    "sources": ("ai4_template",),
    "links": ("ai4_template", "training_data", "dataset_url", "training_files_url", "cite_url"),
}


def is_placeholder(link: str) -> bool:
    """Whether a link is one a template left for the author to fill in."""
    return _PLACEHOLDER.search(link) is not None


def advise(document: Document, organisation: str = "") -> Iterator[Finding]:
    """Yield what would make a document more useful; an image name that no registry can have is an error.

    Parameters
    ----------
    organisation
        Who publishes the images of this catalogue.
    """
    value = document.value
    if not isinstance(value, dict):
        return
    for path in document.repeated:
        yield _advice(document, path, "is written twice; the later one counts")
    yield from _unknown_keys(document, value)
    yield from _empty_texts(document, value)
    yield from _image(document, value, organisation)
    yield from _dates(document, value)
    if shape_of(value) == "1":
        yield _advice(document, (), "version 1 of the schema; new modules use version 2 (ai4-metadata.yml)")
        yield from _links(document, value, ("cite_url", "dataset_url", "training_files_url"), ())
        yield from _links(document, _table(value, "sources"), ("dockerfile_repo", "code"), ("sources",))
    else:
        names = [str(name) for name in _table(value, "links") if name not in ("docker_image", "ai4_template")]
        yield from _links(document, _table(value, "links"), names, ("links",))
        yield from _version_2(document, value)


def _advice(document: Document, path: Path, message: str) -> Finding:
    return Finding(level="advice", line=document.line(path), key=".".join(map(str, path)), message=message)


def _table(value: Mapping[str, object], key: str) -> dict[str, object]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _unknown_keys(document: Document, value: Mapping[str, object]) -> Iterator[Finding]:
    rule = rule_of(value)
    for place, known in (("", rule), *((name, inner) for name, inner in rule.fields.items() if inner.fields)):
        table = _table(value, place) if place else value
        valid = [*known.fields, *_TOLERATED.get(place, ()), *known.forbidden]
        for key in table:
            if key in valid or known.kind == "tables":
                continue
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.7)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield _advice(document, (place, key) if place else (key,), f"is not in the schema{meant}")


def _empty_texts(document: Document, value: Mapping[str, object]) -> Iterator[Finding]:
    for key in ("title", "summary", "description"):
        if value.get(key) in ("", []):
            yield _advice(document, (key,), "is empty: search finds the module by it")


def _image(document: Document, value: Mapping[str, object], organisation: str) -> Iterator[Finding]:
    place, key = ("sources", "docker_registry_repo") if shape_of(value) == "1" else ("links", "docker_image")
    written = _table(value, place).get(key)
    if not isinstance(written, str):
        if key not in _table(value, place):
            yield _advice(document, (place,), f"has no {key}: the module cannot be pulled by its name")
        return
    image = parse_image_name(written, organisation)
    if image.error:
        yield Finding(level="error", line=document.line((place, key)), key=f"{place}.{key}", message=image.error)
    for change in image.changes:
        yield _advice(document, (place, key), f"{written!r} {change}")


def _dates(document: Document, value: Mapping[str, object]) -> Iterator[Finding]:
    for path, date in (
        (("date_creation",), value.get("date_creation")),
        *((("dates", name), _table(value, "dates").get(name)) for name in ("created", "updated")),
    ):
        if isinstance(date, str) and not _ISO_DATE.fullmatch(date):
            yield _advice(document, path, f"{date!r} is not a date such as 2026-01-31")


def _links(
    document: Document, table: Mapping[str, object], names: "list[str] | tuple[str, ...]", place: Path
) -> Iterator[Finding]:
    for name in names:
        link = table.get(name)
        if not isinstance(link, str):
            continue
        if is_placeholder(link):
            yield _advice(document, (*place, name), f"{link!r} was left by a template; fill it in or take it out")
        elif not link.strip().startswith(("http://", "https://")):
            yield _advice(document, (*place, name), f"{link!r} is not a web address")


def _version_2(document: Document, value: Mapping[str, object]) -> Iterator[Finding]:
    version = value.get("metadata_version")
    if isinstance(version, str) and version not in _KNOWN_VERSIONS:
        yield _advice(
            document, ("metadata_version",), f"{version!r} is no version of the schema ({', '.join(_KNOWN_VERSIONS)})"
        )
    categories = value.get("categories")
    if categories == []:
        yield _advice(document, ("categories",), "is empty: --trainable, --inference and --pre-trained never find it")
    needs = _table(value, "resources")
    if isinstance(categories, list) and "AI4 trainable" in categories and "training" not in needs:
        yield _advice(
            document, ("resources",), "says nothing about training: users have to guess --gpus-per-node and --mem"
        )
    for use in needs:
        capability = _table(needs, use).get("gpu_compute_capability")
        if isinstance(capability, int | float) and capability > _MAX_CAPABILITY:
            yield _advice(
                document,
                ("resources", use, "gpu_compute_capability"),
                f"{capability} is more than any GPU has, such as 8.0",
            )
