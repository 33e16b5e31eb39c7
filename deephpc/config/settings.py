"""The resolved settings, and where each value came from."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from deephpc.config.layers import Layer, built_in_layer, environment_layer, nested, overlay, site_layer, user_layer
from deephpc.config.paths import UserPlaces, expand_folder, locate_user_places
from deephpc.config.site import SchedulerName, Site
from deephpc.config.site_files import find_site, list_site_files, load_site
from deephpc.config.toml_file import parse_model
from deephpc.jobs.spec import Environment, Resources
from deephpc.model import Model

#: Settings that are folders, in which `~` and $VARIABLES are filled in.
_FOLDERS = frozenset({"work_dir", "cache_dir", "state_dir", "environment.venv"})


class Settings(Model):
    """Everything that was written, checked and resolved; the only thing other layers see of it."""

    site: Site
    """The cluster."""
    work_dir: Path
    """Folder of runs, absolute; need not exist yet."""
    cache_dir: Path
    """Folder of images and staged data, absolute; need not exist yet."""
    state_dir: Path
    """Folder of the record of jobs, absolute; need not exist yet."""
    scheduler: SchedulerName
    """Who runs the jobs."""
    defaults: Resources = Resources()
    """What a job asks for when nothing else is said."""
    max_requeues: int = 3
    """How often a job may start again after its node failed or it was preempted."""
    grace: timedelta = timedelta(seconds=60)
    """How long before its time limit a program is told."""
    environment: Environment = Environment()
    """What every job's shell sets up."""
    binds: tuple[str, ...] = ()
    """Folders that every container sees where a node has them, as SRC[:DST][:ro]."""
    pass_env: tuple[str, ...] = ()
    """Variables of the submitting shell that every run is given, by name or with `*`; behind `!` those that are not."""
    far_program: str | None = None
    """Where deephpc lies on machines of --host, when a login shell there does not find it."""
    own_sites: tuple[str, ...] = ()
    """Names of the user's own profiles."""
    origins: Mapping[str, str]
    """Dotted key → who said it: `built-in`, `site file …`, `user file …`, `environment …`, `option …`."""

    def resources(self, asked: Resources) -> Resources:
        """Return what was asked for, completed by the defaults."""
        return self.defaults.model_copy(update=asked.model_dump(exclude_none=True))


def load_settings(
    *,
    site: str | None = None,
    config: Path | None = None,
    environ: Mapping[str, str],
    home: Path,
    has_slurm: bool,
) -> Settings:
    """Read and resolve the settings: built-in < site < user file < environment < option.

    Parameters
    ----------
    site, config
        The options --site and --config.
    has_slurm
        Whether Slurm's commands are on PATH; decides between the sites `generic` and `local` when nobody names one.

    Raises
    ------
    InputError
        A file, key, value or variable is at fault; named in the message.
    """
    places = locate_user_places(config, environ, home)
    said = overlay(user_layer(places), environment_layer(environ))
    choice = _choice(site, said, places, has_slurm=has_slurm)
    name, chosen_by = choice["site"]
    file = find_site(str(name), places.sites_dir, chosen_by)
    profile = load_site(file)
    layer = overlay(built_in_layer(places, environ, home), site_layer(profile, file.path), said, choice)
    settings = _resolved(layer, profile, environ, home)
    return settings.model_copy(update={"own_sites": _own_sites(places)})


def choose_site(
    *, site: str | None = None, config: Path | None = None, environ: Mapping[str, str], home: Path, has_slurm: bool
) -> str:
    """Return the name of the site `load_settings` would take, also where its folders cannot be filled in."""
    places = locate_user_places(config, environ, home)
    said = overlay(user_layer(places), environment_layer(environ))
    return str(_choice(site, said, places, has_slurm=has_slurm)["site"][0])


def _choice(site: str | None, said: Layer, places: UserPlaces, *, has_slurm: bool) -> Layer:
    """Return the layer with nothing but the site."""
    if site is not None:
        return {"site": (site, "option --site")}
    return {"site": said["site"]} if "site" in said else _built_in_site(places, has_slurm=has_slurm)


def _built_in_site(places: UserPlaces, *, has_slurm: bool) -> Layer:
    """Choose a site without asking anything of the cluster, so that every command starts fast."""
    if not has_slurm:
        return {"site": ("local", "built-in: no Slurm commands on PATH")}
    own = _own_sites(places)
    if len(own) == 1:
        return {"site": (own[0], f"built-in: the only profile in {places.sites_dir}")}
    reason = "no site is named" if not own else f"no site is named, and {places.sites_dir} has {', '.join(own)}"
    return {"site": ("generic", f"built-in: {reason}")}


def _own_sites(places: UserPlaces) -> tuple[str, ...]:
    return tuple(file.name for file in list_site_files(places.sites_dir) if file.whose == "user")


def _resolved(layer: Layer, site: Site, environ: Mapping[str, str], home: Path) -> Settings:
    account, _ = layer.get("defaults.account", (None, ""))
    folders: Layer = {}
    for key in _FOLDERS & layer.keys():
        text, origin = layer[key]
        folder = expand_folder(
            str(text), key, origin, environ=environ, home=home, account=None if account is None else str(account)
        )
        folders[key] = (folder, origin)
    origins = {key: origin for key, (_value, origin) in sorted(layer.items())}
    return parse_model(Settings, {**nested(overlay(layer, folders)), "site": site, "origins": origins}, "settings")
