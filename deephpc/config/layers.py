"""The layers settings are made of, each a flat table from dotted key to value and origin; later layers win."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from deephpc.config.paths import UserPlaces, scratch_root
from deephpc.config.site import Bind, Defaults, SchedulerName, Site
from deephpc.config.toml_file import parse_model, read_toml
from deephpc.errors import InputError
from deephpc.jobs.slurm_environment import resources_from_sbatch_variables
from deephpc.jobs.spec import Environment, Resources
from deephpc.model import Model

Grace = Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(hours=24))]

#: One layer: dotted key → (value, origin).
Layer = dict[str, tuple[object, str]]

#: Tables whose keys are settings of their own.
_TABLES = ("defaults", "environment", "environment.variables")


class UserFile(Model):
    """What a user may write into config.toml; everything is optional."""

    site: str | None = None
    """The site, when neither --site nor DEEPHPC_SITE names one."""
    work_dir: str | None = None
    """Folder of runs; may hold `~`, `$VARIABLES` and `{account}`."""
    cache_dir: str | None = None
    """Folder of images, the catalogue and staged data."""
    state_dir: str | None = None
    """Folder of the record of jobs."""
    scheduler: SchedulerName | None = None
    """Who runs the jobs, where the site leaves a choice."""
    max_requeues: int | None = Field(None, ge=0, le=100)
    """How often a job may start again after its node failed or it was preempted."""
    grace: Grace | None = None
    """How long before its time limit a program is told (seconds)."""
    defaults: Defaults = Resources()
    """What a job asks for when nothing else is said."""
    environment: Environment = Environment()
    """What every job's shell sets up."""
    binds: tuple[Bind, ...] = ()
    """Folders that every container sees where a node has them, as SRC[:DST][:ro]."""
    pass_env: tuple[Annotated[str, Field(pattern=r"^!?[A-Za-z_*][A-Za-z0-9_*]*$")], ...] = ()
    """Variables of the submitting shell that every run is given, by name or with `*`; behind `!` those that are not."""
    far_program: str | None = Field(None, min_length=1)
    """Where deephpc lies on machines of --host, when a login shell there does not find it."""


def built_in_layer(places: UserPlaces, environ: Mapping[str, str], home: Path) -> Layer:
    """Return what holds when nobody says anything."""
    root, origin = scratch_root(environ, home)
    return {
        "work_dir": (str(root / "deephpc" / "runs"), origin),
        "cache_dir": (str(root / "deephpc" / "cache"), origin),
        "state_dir": (str(places.state_dir), "built-in"),
        "scheduler": ("slurm", "built-in"),
        "binds": ((), "built-in"),
        "pass_env": ((), "built-in"),
        "max_requeues": (3, "built-in"),
        "grace": (timedelta(seconds=60), "built-in"),
    }


def site_layer(site: Site, path: Path) -> Layer:
    """Return what a site profile settles; its `fabric` becomes variables of the job, its `account` a default."""
    said = site.model_dump(exclude_unset=True)
    values: dict[str, Any] = {key: said[key] for key in ("work_dir", "cache_dir", "binds") if said.get(key)}
    values["scheduler"] = site.scheduler
    values["defaults"] = {**({"account": site.account} if site.account else {}), **said.get("defaults", {})}
    values["environment"] = {key: said[key] for key in ("modules", "setup") if key in said}
    values["environment"]["variables"] = {**site.fabric, **site.variables}
    return _flat(values, f"site file {path}")


def user_layer(places: UserPlaces) -> Layer:
    """Return what config.toml says; nothing when there is none and nobody asked for it.

    Raises
    ------
    InputError
        The file was asked for and is missing, or is unreadable, or has unknown keys or bad values.
    """
    path = places.config_file
    if not places.config_is_asked_for and not path.exists():
        return {}
    values = parse_model(UserFile, read_toml(path), str(path)).model_dump(exclude_unset=True)
    return _flat(values, f"user file {path}")


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return what DEEPHPC_… and the user's SBATCH_… variables say.

    Raises
    ------
    InputError
        A value is bad; names the variable.
    """
    layer: Layer = {}
    for key in ("site", "work_dir", "cache_dir", "state_dir", "far_program"):
        variable = f"DEEPHPC_{key.upper()}"
        if environ.get(variable):
            layer[key] = (environ[variable], f"environment {variable}")
    for variable, said in resources_from_sbatch_variables(environ).items():
        origin = f"environment {variable}"
        layer.update(_flat({"defaults": _resources_said(said, origin)}, origin))
    return layer


def overlay(*layers: Layer) -> Layer:
    """Return one layer in which later ones win key by key."""
    merged: Layer = {}
    for layer in layers:
        merged.update(layer)
    return merged


def nested(layer: Layer) -> dict[str, Any]:
    """Return a layer's values as nested tables, as a model takes them."""
    tree: dict[str, Any] = {}
    for dotted, (value, _origin) in layer.items():
        table = next((name for name in reversed(_TABLES) if dotted.startswith(name + ".")), "")
        target = tree
        for part in table.split(".") if table else ():
            target = target.setdefault(part, {})
        target[dotted[len(table) + 1 :] if table else dotted] = value
    return tree


def _resources_said(said: Mapping[str, str | bool], origin: str) -> dict[str, Any]:
    try:
        return parse_model(Resources, dict(said), origin).model_dump(exclude_unset=True)
    except InputError as error:
        raise InputError(error.message, f"change or unset {origin.removeprefix('environment ')}") from error


def _flat(values: Mapping[str, Any], origin: str, prefix: str = "") -> Layer:
    layer: Layer = {}
    for key, value in values.items():
        dotted = prefix + key
        if dotted in _TABLES:
            layer.update(_flat(value, origin, dotted + "."))
        else:
            layer[dotted] = (value, origin)
    return layer
