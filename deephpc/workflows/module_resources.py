"""What a module's authors say it needs: defaults for its jobs, checked against the partition (pure)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from deephpc.catalogue.module import Module, ModuleResources
from deephpc.config import Settings
from deephpc.jobs.spec import Resources
from deephpc.workflows.partition_limits import check_limits

Use = Literal["training", "inference"]

#: Whoever says these is the cluster, not the user; what the module needs comes before.
_CLUSTERS = ("site file ", "built-in")
_MIB = 2**20
_MOST_CPUS, _MOST_GPUS, _MOST_CAPABILITY = 10_000, 64, 20.0
#: Compute capability by words in a GPU model's name. Source: https://developer.nvidia.com/cuda-gpus.
_CAPABILITIES: Mapping[str, float] = {
    "k80": 3.7,
    "p100": 6.0,
    "v100": 7.0,
    "v100s": 7.0,
    "t4": 7.5,
    "a100": 8.0,
    "a30": 8.0,
    "a10": 8.6,
    "a40": 8.6,
    "l4": 8.9,
    "l40": 8.9,
    "l40s": 8.9,
    "h100": 9.0,
    "h200": 9.0,
    "gh200": 9.0,
}


@dataclass(frozen=True, slots=True)
class ModuleFit:
    """What a module's job asks for, and what to tell the user of it."""

    asked: Resources
    """What the user asked for, completed by what the module needs; the settings complete the rest."""
    notes: tuple[str, ...] = ()
    """One line each, for stderr."""


def fit_module(module: Module, use: Use, asked: Resources, settings: Settings) -> ModuleFit:
    """Complete what the user asked for by what the module needs, and check that the partition has it.

    The command line wins over the user's own settings, these over the catalogue, and that over the site's defaults.

    Raises
    ------
    InputError
        The partition has less than the job asks for; names module, value, partition and the partitions that fit.
    """
    need = module.training if use == "training" else module.inference
    filled = _fill(need, asked, settings) if need is not None else {}
    completed = asked.model_copy(update=filled)
    notes = []
    if filled:
        said = Resources.model_validate(filled).describe()
        notes.append(f"{use} of {module.name} needs {said}, says its catalogue entry")
    check_limits(settings.resources(completed), settings.site, f"{use} of {module.name}")
    if need is not None:
        notes += _capability_notes(need, settings.resources(completed), settings, f"{use} of {module.name}")
    return ModuleFit(completed, tuple(notes))


def _fill(need: ModuleResources, asked: Resources, settings: Settings) -> dict[str, object]:
    """Return the fields that neither the command line nor the user's settings say, with what the module needs.

    Numbers no job could ask for are passed over: metadata is not always right.
    """
    tasks = settings.resources(asked).tasks_per_node or 1
    needs = {
        "cpus_per_task": -(-need.cpus // tasks) if need.cpus and need.cpus <= _MOST_CPUS else None,
        "memory_mib": -(-need.memory_mb * 10**6 // _MIB) if need.memory_mb else None,
        "gpus_per_node": need.gpus if need.gpus and need.gpus <= _MOST_GPUS else None,
    }
    if settings.site.gpu_request == "none":  # the partition alone decides
        del needs["gpus_per_node"]
    return {
        name: value
        for name, value in needs.items()
        if value is not None and getattr(asked, name) is None and not _user_says(name, settings)
    }


def _user_says(name: str, settings: Settings) -> bool:
    if getattr(settings.defaults, name) is None:
        return False
    return not settings.origins.get(f"defaults.{name}", "built-in").startswith(_CLUSTERS)


def _capability_notes(need: ModuleResources, wanted: Resources, settings: Settings, what: str) -> Iterator[str]:
    """Say so when the partition's GPUs are known to be older than the module needs; no reason to refuse."""
    name = wanted.partition or settings.site.default_partition or ""
    partition = settings.site.partitions.get(name)
    kind = wanted.gpu_type or (partition.gpu_type if partition is not None else None)
    if not wanted.gpus_per_node or need.gpu_compute_capability is None or kind is None:
        return
    has = next((_CAPABILITIES[word] for word in re.split(r"[^a-z0-9]+", kind.lower()) if word in _CAPABILITIES), None)
    if has is not None and has < need.gpu_compute_capability <= _MOST_CAPABILITY:
        yield (
            f"{what} needs GPUs of compute capability {need.gpu_compute_capability:g}, "
            f"says its catalogue entry; {kind} has {has:g}"
        )
