"""Settings, sites and checks to tables and sentences, or to JSON with a versioned shape."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.config import Partition, Settings, Site, SiteFile, UserPlaces
from deephpc.jobs.slurm_units import render_memory, render_walltime
from deephpc.render.answer import draw, to_json
from deephpc.workflows.checks import Check

if TYPE_CHECKING:
    from deephpc.workflows.node_engines import NodeEngines
    from deephpc.workflows.site import Probe, SiteEntry

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
_GPU_WORDS = {
    "gpus-per-node": "GPUs are asked for with --gpus-per-node",
    "gres": "GPUs are asked for with --gres=gpu:N",
    "none": "GPUs come with their nodes and are not asked for",
}


def render_settings(settings: Settings, *, as_json: bool) -> str:
    """Return every setting with its value and who set it."""
    rows = [(key, _setting(settings, key), origin) for key, origin in sorted(settings.origins.items())]
    if as_json:
        listed = [{"key": key, "value": _jsonable(value), "origin": origin} for key, value, origin in rows]
        return to_json("deephpc.config/1", {"settings": listed})
    return _table(("KEY", "VALUE", "ORIGIN"), ((key, _words(value), origin) for key, value, origin in rows))


def render_places(places: UserPlaces, *, as_json: bool) -> str:
    """Return where settings and sites are read from."""
    if as_json:
        facts = {
            "config_file": str(places.config_file),
            "config_origin": places.config_origin,
            "config_exists": places.config_file.is_file(),
            "sites_dir": str(places.sites_dir),
        }
        return to_json("deephpc.config-path/1", facts)
    return str(places.config_file)


def render_site(site: Site, file: SiteFile, *, as_json: bool) -> str:
    """Return a profile in sentences and a table of its partitions."""
    if as_json:
        facts = {"path": str(file.path), "whose": file.whose, "site": site.model_dump(mode="json")}
        return to_json("deephpc.site/1", facts)
    return "\n".join([f"{site.name}: {site.description or 'no description'}", *_site_words(site, file.path)])


def render_engines(found: "NodeEngines", *, as_json: bool) -> str:
    """Return which engines work on a node, best first, and why the others do not."""
    if as_json:
        return to_json("deephpc.engines/1", found.model_dump(mode="json"))
    rows = [(each.name, "works" if each.works else "no", each.said) for each in found.engines]
    facts = ", ".join(f"{name} {value}" for name, value in found.facts.items())
    partition = f" of {found.partition}" if found.partition else ""
    table = _table(("ENGINE", "WORKS", "VERSION, OR WHY NOT"), rows)
    return f"{found.where}{partition}: {facts}\n{table}"


def render_sites(entries: Sequence["SiteEntry"], current: str, *, as_json: bool) -> str:
    """Return the list of profiles; a star marks the one in use."""
    if as_json:
        listed = [{**entry.model_dump(mode="json"), "current": entry.name == current} for entry in entries]
        return to_json("deephpc.sites/1", {"sites": listed})
    return _table(
        ("", "SITE", "FROM", "DESCRIPTION"),
        (
            ("*" if each.name == current else "", each.name, each.whose, each.problem or each.description)
            for each in entries
        ),
    )


def render_probe(probe: "Probe", *, as_json: bool) -> str:
    """Return what a cluster told about itself."""
    if as_json:
        return to_json("deephpc.site-probe/1", probe.model_dump(mode="json"))
    lines = [f"{probe.site.name}: {probe.site.description}", *_site_words(probe.site, None)]
    lines += ["found", *(f"  {line}" for line in probe.learned)]
    if probe.unknown:
        lines += ["not found", *(f"  {line}" for line in probe.unknown)]
    return "\n".join([*lines, "`deephpc site init` writes this as a profile"])


def render_site_file(path: Path, text: str, *, written: bool, as_json: bool) -> str:
    """Return a profile's path when it was written, its text when it was only planned."""
    if as_json:
        return to_json("deephpc.site-file/1", {"path": str(path), "written": written, "text": text})
    return str(path) if written else f"# would be written to {path}\n{text}".rstrip("\n")


def render_checks(checks: Sequence[Check], *, as_json: bool) -> str:
    """Return the checks, each with its outcome and, where something is amiss, the next step."""
    if as_json:
        listed = [check.model_dump(mode="json") for check in checks]
        return to_json(
            "deephpc.doctor/1", {"healthy": all(check.outcome != "fail" for check in checks), "checks": listed}
        )
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(Text(check.outcome, style=_COLOURS[check.outcome]), Text(check.name), Text(check.found))
        if check.remedy:
            table.add_row("", "", Text(f"→ {check.remedy}"))
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in _COLOURS}
    return f"{draw(table)}\n" + ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)


def _site_words(site: Site, path: Path | None) -> list[str]:
    """Say a profile in words."""
    facts = [
        f"profile {path}" if path is not None else "",
        f"facts from {site.source}" if site.source else "",
        f"jobs are run by {site.scheduler}" + (f" {site.slurm_version}" if site.slurm_version else ""),
        _GPU_WORDS[site.gpu_request] if site.scheduler != "local" else "",
        f"GPU types: {', '.join(site.gpu_types)}" if site.gpu_types else "",
        "" if site.memory_request else "memory must not be asked for",
        f"jobs are charged to {site.account}" if site.account else "",
        "every job must name an account" if site.account_required else "",
        f"runs lie in {site.work_dir}" if site.work_dir else "",
        f"images and data lie in {site.cache_dir}" if site.cache_dir else "",
        f"node-local scratch is {site.node_scratch}" if site.node_scratch else "",
        f"jobs load the modules {', '.join(site.modules)}" if site.modules else "",
        f"MPI starts by srun --mpi={site.mpi}" if site.mpi else "",
        f"nodes talk over {site.network_interface}" if site.network_interface else "",
        _internet_words(site),
        *(f"jobs get {name}={value}" for name, value in {**site.fabric, **site.variables}.items()),
    ]
    lines = [f"  {fact}" for fact in facts if fact]
    return [*lines, *([_partition_table(site.partitions.items())] if site.partitions else [])]


def _internet_words(site: Site) -> str:
    if site.nodes_have_internet is None:
        return ""
    return "compute nodes reach the internet" if site.nodes_have_internet else "compute nodes have no internet"


def _partition_table(partitions: Iterable[tuple[str, Partition]]) -> str:
    rows = (
        (
            name + ("*" if each.default else ""),
            render_walltime(each.max_walltime) if each.max_walltime else "-",
            str(each.max_nodes or "-"),
            str(each.cpus_per_node or "-"),
            render_memory(each.memory_mib) if each.memory_mib else "-",
            f"{each.gpus_per_node} {each.gpu_type or each.gpu_vendor or ''}".strip() if each.gpus_per_node else "-",
            each.description,
        )
        for name, each in partitions
    )
    return _table(("PARTITION", "LONGEST", "MOST NODES", "CORES", "MEMORY", "GPUS", ""), rows)


def _setting(settings: Settings, key: str) -> object:
    """Return the value a dotted key has in the resolved settings."""
    if key == "site":
        return settings.site.name
    value: object = settings
    for part in key.split(".", 2):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def _words(value: object) -> str:
    if isinstance(value, timedelta):
        return render_walltime(value)
    if isinstance(value, tuple):
        return ", ".join(str(each) for each in value)
    return "-" if value is None else str(value)


def _jsonable(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return draw(table)
