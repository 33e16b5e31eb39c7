"""Modules and what was found out about them to tables and pages, or to JSON with a versioned shape."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from deephpc.catalogue.module import FileVerdict, Module, ModuleResources
from deephpc.render.answer import draw, to_json, visible
from deephpc.workflows.catalogue import SourceStatus, SourceUpdate

if TYPE_CHECKING:
    from deephpc.catalogue.publishing import Publication
    from deephpc.catalogue.search import Hits
    from deephpc.catalogue.source import Source
    from deephpc.workflows.module_init import ModulePlan

_PAGE_WIDTH = 100
_OLD = timedelta(days=30)
_LONGEST = 120


def render_hits(hits: "Hits", now: datetime, *, as_json: bool) -> str:
    """Return the modules that were found, one line each."""
    if as_json:
        return to_json("deephpc.catalogue/1", {"note": hits.note, "modules": [_facts(each) for each in hits.modules]})
    if not hits.modules:
        return f"no module found{f'; {hits.note}' if hits.note else ''}"
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("MODULE", "USES", "LIBRARIES", "CATALOGUE"):
        table.add_column(name, no_wrap=True)
    table.add_column("WHAT IT IS", overflow="fold")
    for module in hits.modules:
        what = _what_it_is(module) if module.is_valid else f"invalid: {module.problems[0]}"
        age = f" (copy of {module.as_of:%Y-%m-%d})" if module.trouble or now - module.as_of > _OLD else ""
        style = "" if module.is_valid else "yellow"
        cells = (module.name, _uses(module), ", ".join(module.libraries) or "-", module.source + age, what)
        table.add_row(*(Text(visible(cell), style=style) for cell in cells))
    return draw(table)


def _what_it_is(module: Module) -> str:
    """Return a module's title; where that only repeats its name, the summary on one line."""
    name, title = (re.sub("[^a-z0-9]", "", text.lower()) for text in (module.name, module.title))
    return shorten(module.summary, _LONGEST, placeholder=" …") if title in name and module.summary else module.title


def render_module(module: Module, usage: Sequence[str], now: datetime, *, as_json: bool) -> str:
    """Return everything about one module.

    Parameters
    ----------
    usage
        Commands that use it here.
    """
    if as_json:
        return to_json("deephpc.module/1", {"module": _facts(module), "usage": list(usage)})
    blocks = [f"{module.name}: {module.title}" if module.title else module.name]
    if module.problems:
        blocks.append("its metadata is invalid\n" + "\n".join(f"  {problem}" for problem in module.problems))
    if module.summary:
        blocks.append(_wrapped(module.summary))
    blocks.append(_rows(_properties(module, now)))
    if module.description and module.description != module.summary:
        blocks.append("\n".join(_wrapped(line) for line in module.description.splitlines()))
    if module.links:
        blocks.append("links\n" + _rows([(f"  {name.replace('_', ' ')}", link) for name, link in module.links.items()]))
    if module.notes:
        blocks.append("read with care\n" + "\n".join(f"  {note}" for note in module.notes))
    if usage:
        blocks.append("here\n" + "\n".join(f"  {line}" for line in usage))
    return "\n".join(visible(line) for line in "\n\n".join(blocks).splitlines())


def render_sources(sources: Sequence[SourceStatus], now: datetime, *, as_json: bool) -> str:
    """Return the catalogues with the age of their copies."""
    if as_json:
        return to_json("deephpc.catalogue-sources/1", {"sources": [each.model_dump(mode="json") for each in sources]})
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("CATALOGUE", "MODULES", "COPY", "WHOSE", "ADDRESS"):
        table.add_column(name, no_wrap=name != "ADDRESS", overflow="fold")
    for each in sources:
        age = describe_age(each.as_of, now) if each.as_of else "none: run `deephpc catalogue update`"
        cells = (each.source.name, str(each.modules), age, each.source.whose, each.source.url)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    lines = [f"{each.source.name} was not reached: {each.trouble}" for each in sources if each.trouble]
    return "\n".join([draw(table), *lines])


def render_updates(updates: Sequence[SourceUpdate], now: datetime, *, as_json: bool) -> str:
    """Return what an update did."""
    if as_json:
        return to_json("deephpc.catalogue-update/1", {"sources": [each.model_dump(mode="json") for each in updates]})
    return "\n".join(line for update in updates for line in _update_lines(update, now))


def render_verdict(path: Path, verdict: FileVerdict, *, as_json: bool) -> str:
    """Return what is wrong with a metadata file and what could be better, as `file:line`."""
    if as_json:
        facts = verdict.model_dump(mode="json", exclude={"file"})
        return to_json("deephpc.validate/1", {"file": str(path), "is_valid": verdict.is_valid, **facts})
    lines = [
        f"{path}:{each.line}: {each.level}: {each.key + ': ' if each.key else ''}{each.message}"
        for each in verdict.findings
    ]
    schema = f"version {verdict.schema_version} of the schema" if verdict.schema_version else "no schema"
    end = f"{path}: valid by {schema}" if verdict.is_valid else f"{path}: {len(verdict.errors)} errors by {schema}"
    return "\n".join([*lines, end])


def render_publication(plan: "Publication", *, written: bool, as_json: bool) -> str:
    """Return where a module was, or would be, published."""
    if as_json:
        facts = {"name": plan.name, "target": str(plan.target), "replaces": plan.replaces, "written": written}
        return to_json("deephpc.publication/1", facts)
    if plan.is_there:
        return f"{plan.target} is up to date"
    if not written:
        return f"would {'replace' if plan.replaces else 'write'} {plan.target}"
    return str(plan.target)


def render_source(source: "Source", *, as_json: bool) -> str:
    """Return the address of a catalogue that was added or removed."""
    return to_json("deephpc.catalogue-source/1", source.model_dump(mode="json")) if as_json else source.url


def render_new_module(plan: "ModulePlan", *, written: bool, as_json: bool) -> str:
    """Return the folder of a new module, or the files it would have."""
    if as_json:
        facts = {"name": plan.name, "package": plan.package, "folder": str(plan.folder), "files": list(plan.files)}
        return to_json("deephpc.new-module/1", {**facts, "written": written})
    return str(plan.folder) if written else "\n".join(str(plan.folder / path) for path in plan.files)


def describe_age(at: datetime, now: datetime) -> str:
    """Return how long ago something was, roughly."""
    seconds = max(0, int((now - at).total_seconds()))
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} old"
    return "new"


def _update_lines(update: SourceUpdate, now: datetime) -> list[str]:
    name = update.source.name
    if update.trouble:
        copy = f"its copy is {describe_age(update.as_of, now)}" if update.as_of else "there is no copy of it"
        return [f"{name}: not reached, {copy}: {update.trouble}"]
    return [
        f"{name}: {update.modules} modules"
        + (f", {len(update.unreachable)} not reached" if update.unreachable else ""),
        *(f"  {line}" for line in update.unreachable),
        *(f"  its index names no module by {line!r}" for line in update.bad_lines),
    ]


def _properties(module: Module, now: datetime) -> list[tuple[str, str]]:
    tags = f"{', '.join(module.image_tags)} (as its metadata says)" if module.image_tags else ""
    copied = f"{module.source}, copy of {module.as_of:%Y-%m-%d} ({describe_age(module.as_of, now)})"
    rows = [
        ("uses", _uses(module, full=True)),
        ("image", module.image or "none named"),
        ("tags of it", tags),
        ("libraries", ", ".join(module.libraries)),
        ("tasks", ", ".join(module.tasks)),
        ("data", ", ".join(module.data_types)),
        ("keywords", ", ".join(module.tags)),
        ("training", _needs(module.training)),
        ("inference", _needs(module.inference)),
        ("licence", module.licence or "not stated; see the source code"),
        ("DOI", module.doi),
        ("made", " · ".join(filter(None, (module.created, f"updated {module.updated}" if module.updated else "")))),
        ("catalogue", copied),
        ("not newer", module.trouble),
        ("metadata", f"{module.repository or '-'} ({module.file}, version {module.schema_version or '?'})"),
    ]
    return [(name, value) for name, value in rows if value]


def _needs(resources: ModuleResources | None) -> str:
    if resources is None:
        return ""
    words = {
        "cpus": "{} cores",
        "gpus": "{} GPUs",
        "memory_mb": "{} MB of memory",
        "gpu_memory_mb": "{} MB on the GPU",
        "gpu_compute_capability": "compute capability {}",
        "storage_mb": "{} MB of storage",
    }
    values = resources.model_dump(exclude_none=True)
    return ", ".join(words[name].format(f"{value:g}") for name, value in values.items())


def _uses(module: Module, *, full: bool = False) -> str:
    words = [
        word
        for word, is_so in (
            ("train", module.is_trainable),
            ("predict", module.has_inference),
            ("pre-trained", module.is_pre_trained and full),
            ("tool", "AI4 tools" in module.categories),
        )
        if is_so
    ]
    return ", ".join(words) or ("none declared" if full else "-")


def _facts(module: Module) -> dict[str, Any]:
    return {**module.model_dump(mode="json"), "is_valid": module.is_valid}


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _wrapped(line: str) -> str:
    """Wrap a line of prose; a list item's later lines keep its indentation."""
    match = re.match(r"\s*(?:[-*]|\d+[.)]|\[\d+\]:?)?\s*", line)
    indent = " " * len(match[0]) if match else ""
    return fill(line, _PAGE_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
