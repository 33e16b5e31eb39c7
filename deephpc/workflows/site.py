"""The story of `deephpc site`: derive a profile from the cluster we stand on, write it, list and load profiles."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from deephpc.account import account_groups
from deephpc.config import Partition, Site, SiteFile, UserPlaces, list_site_files, load_site
from deephpc.config.site import SITE_NAME, GpuRequest
from deephpc.config.site_files import find_site
from deephpc.config.site_writer import render_site
from deephpc.errors import DeephpcError, InputError, SiteError
from deephpc.jobs import slurm_probe as slurm
from deephpc.jobs.run_folder import write_atomically
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.model import Model
from deephpc.shell import CommandNotFound, run

_TIMEOUT_S = 10.0
#: Variables in which sites keep a user's fast shared storage.
_SCRATCH_VARIABLES = ("SCRATCH", "CINECA_SCRATCH", "PSCRATCH", "WORK")


class Probe(Model):
    """What the cluster told about itself."""

    site: Site
    learned: tuple[str, ...]
    """What was found and how, one line each."""
    unknown: tuple[str, ...]
    """What could not be found and why, one line each."""


class SiteEntry(Model):
    """One line of `site list`."""

    name: str
    whose: str
    path: Path
    description: str = ""
    problem: str = ""
    """Why the profile does not load; empty when it does."""


@dataclass(frozen=True)
class Surroundings:
    """Who asks, from where, and when."""

    environ: Mapping[str, str]
    user: str
    now: datetime


@dataclass
class _Inquiry:
    """Asks Slurm, and keeps what was learned and what was not."""

    environ: Mapping[str, str]
    learned: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    is_silent: bool = False
    """Whether a command's deadline passed: the next would wait as long."""

    def ask(self, argv: Sequence[str], about: str) -> str:
        """Return what a command printed, or nothing, with a line why."""
        try:
            completed = run(argv, timeout_s=_TIMEOUT_S, env=self.environ)
        except CommandNotFound as error:
            self.unknown.append(f"{about}: {error.message}")
            return ""
        if completed.timed_out:
            self.is_silent = True
            self.unknown.append(f"{about}: {argv[0]} gave no answer within {_TIMEOUT_S:g} s")
        elif not completed.ok:
            self.unknown.append(f"{about}: {completed.last_words() or f'{argv[0]} ended with {completed.returncode}'}")
        else:
            return completed.stdout
        return ""

    def try_job(self, *options: str, partition: str | None = None) -> slurm.TrialAnswer:
        """Ask whether a job with these options would be taken."""
        try:
            argv = slurm.test_only_argv(*options, partition=partition)
            return slurm.parse_test_only(run(argv, timeout_s=_TIMEOUT_S, env=environment_for_sbatch(self.environ)))
        except CommandNotFound as error:
            return slurm.TrialAnswer(None, error.message)


def probe_site(name: str | None, around: Surroundings) -> Probe:
    """Derive a profile from Slurm's own answers, on a login node; queues nothing.

    Parameters
    ----------
    name
        The profile's name; None takes the cluster's own.

    Raises
    ------
    InputError
        The name cannot be a profile's.
    SiteError
        Slurm's commands are here but nothing answered.
    """
    if name is not None and not SITE_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a profile",
            "use up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    inquiry = _Inquiry(slurm.probe_environment(around.environ))
    config = slurm.parse_config(inquiry.ask(slurm.config_argv(), "the configuration"))
    sinfo = "" if inquiry.is_silent else inquiry.ask(slurm.sinfo_argv(), "the partitions")
    partitions = slurm.parse_partitions(sinfo, account_groups())
    if not config and not partitions:
        raise SiteError(
            f"this cluster told nothing about itself: {inquiry.unknown[0]}",
            "try again in a moment; `deephpc doctor` says what is missing",
            transient=True,
        )
    inquiry.learned.append(f"{len(partitions)} partitions from sinfo")
    gpu_request = _probe_gpu_request(inquiry, partitions)
    memory_request = _probe_memory_request(inquiry)
    _probe_accounts(inquiry, around.user, slurm.has_accounting(config))
    scratch = _scratch_folder(inquiry, around)
    site = Site(
        name=name or _profile_name(config.get("ClusterName", "cluster")),
        description=f"the cluster {config.get('ClusterName', 'here')}, as probed",
        source=f"probed by {around.user} on {os.uname().nodename}, {around.now:%Y-%m-%d}",
        slurm_version=config.get("SLURM_VERSION"),
        gpu_request=gpu_request,
        gpu_types=tuple(sorted({each.gpu_type for each in partitions if each.gpu_type})),
        memory_request=memory_request,
        partitions={each.name: _partition(each) for each in partitions},
        work_dir=None if scratch is None else f"{scratch}/deephpc/runs",
        cache_dir=None if scratch is None else f"{scratch}/deephpc/cache",
        node_scratch=slurm.node_local_scratch(config),
        mpi=None if config.get("MpiDefault", "none") == "none" else config["MpiDefault"],
    )
    return Probe(site=site, learned=tuple(inquiry.learned), unknown=tuple(inquiry.unknown))


def plan_site_file(probe: Probe, places: UserPlaces) -> tuple[Path, str]:
    """Return where a probed profile goes and its text; touches nothing."""
    site = probe.site
    comments = [
        f"{site.source}. Edit it freely: `deephpc site init {site.name} --force` writes it anew.",
        *(f"found: {line}" for line in probe.learned),
        *(f"not found: {line}" for line in probe.unknown),
    ]
    return places.sites_dir / f"{site.name}.toml", render_site(site, comments)


def write_site_file(path: Path, text: str, *, force: bool) -> None:
    """Write a profile in one step; other commands see the old one or the new one.

    Raises
    ------
    InputError
        There is one already and `force` is not set.
    SiteError
        The folder cannot be written.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists", "--force overwrites it, or give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SiteError(f"cannot make {path.parent}: {error.strerror}", "check its permissions and quota") from error
    write_atomically(path, text)


def describe_use(new: str, before: str, after: str, config_file: Path) -> str:
    """Say which profile is used once a new one is written, and what to do for another (pure).

    Parameters
    ----------
    before, after
        The profile in use before and after the new one was written.
    """
    if after == new:
        return f"{new} is used from now on"
    if after == before:
        return f'{after} stays in use; use {new} with `--site {new}`, or put `site = "{new}"` in {config_file}'
    return (
        f"warning: there are several profiles and none is named, so {after} is used from now on, no longer {before}; "
        f'put `site = "{new}"` or `site = "{before}"` in {config_file}'
    )


def list_sites(places: UserPlaces) -> tuple[SiteEntry, ...]:
    """Read every profile; one that does not load is listed with the reason."""
    return tuple(_entry(file) for file in list_site_files(places.sites_dir))


def show_site(name: str, places: UserPlaces) -> tuple[Site, SiteFile]:
    """Read one profile.

    Raises
    ------
    InputError
        There is none of that name, or it does not load.
    """
    file = find_site(name, places.sites_dir, "asked for")
    return load_site(file), file


def _probe_gpu_request(inquiry: _Inquiry, partitions: Sequence[slurm.PartitionFacts]) -> GpuRequest:
    """Find the one form in which this cluster takes a request for GPUs; a refusal counts where a plain job is taken."""
    where = next((each.name for each in partitions if each.gpus_per_node and each.up), None)
    if where is None:
        inquiry.unknown.append("how GPUs are asked for: no partition that is up shows any")
        return "gpus-per-node"
    forms: tuple[tuple[GpuRequest, str], ...] = (("gpus-per-node", "--gpus-per-node=1"), ("gres", "--gres=gpu:1"))
    refusals: list[tuple[str, str]] = []
    for form, option in forms:
        answer = inquiry.try_job(option, partition=where)
        if answer.accepted:
            inquiry.learned += [f"GPUs: `{option}` is refused ({words})" for option, words in refusals]
            inquiry.learned.append(f"GPUs: `{option}` is accepted in partition {where}")
            return form
        refusals.append((option, answer.words))
    plain = inquiry.try_job(partition=where)
    which = "a job with GPUs" if plain.accepted else "even a plain job"
    words = refusals[-1][1] if plain.accepted else plain.words
    inquiry.unknown.append(f"how GPUs are asked for: partition {where} refuses {which} ({words})")
    return "gpus-per-node"


def _probe_memory_request(inquiry: _Inquiry) -> bool:
    """Find out whether --mem may be given; a refusal counts where a plain job is taken."""
    with_memory = inquiry.try_job("--mem=100M")
    if with_memory.accepted:
        inquiry.learned.append("memory: `--mem` is accepted")
        return True
    if with_memory.accepted is False and inquiry.try_job().accepted:
        inquiry.learned.append(f"memory: `--mem` is refused ({with_memory.words}), so jobs ask for none")
        return False
    inquiry.unknown.append(f"whether `--mem` is accepted: {with_memory.words}")
    return True


def _probe_accounts(inquiry: _Inquiry, user: str, has_accounting: bool | None) -> None:
    if has_accounting is False:
        inquiry.learned.append("accounting: this cluster keeps none")
        return
    found = slurm.parse_associations(inquiry.ask(slurm.associations_argv(user), "your accounts"))
    if found:
        names = ", ".join(f"{each.account} (default)" if each.is_default else each.account for each in found)
        inquiry.learned.append(f"accounts you may charge: {names}")


def _scratch_folder(inquiry: _Inquiry, around: Surroundings) -> str | None:
    """Find the user's shared scratch, as text for the profile, so that it fits other users too."""
    for name in _SCRATCH_VARIABLES:
        value = around.environ.get(name, "")
        if value.startswith("/") and os.access(value, os.W_OK):
            inquiry.learned.append(f"scratch: ${name} is {value}")
            return f"${name}"
    for text in ("/scratch/$USER", "/scratch/users/$USER"):
        value = text.replace("$USER", around.user)
        if os.access(value, os.W_OK):
            inquiry.learned.append(f"scratch: {value} is yours to write")
            return text
    inquiry.unknown.append("scratch: none of $" + ", $".join(_SCRATCH_VARIABLES) + " is set to a writable folder")
    return None


def _partition(facts: slurm.PartitionFacts) -> Partition:
    return Partition(
        description=f"{facts.node_count} nodes" + ("" if facts.up else ", not up when probed"),
        default=facts.default,
        max_walltime=facts.max_walltime,
        default_walltime=facts.default_walltime,
        max_nodes=facts.max_nodes,
        cpus_per_node=facts.cpus_per_node or None,
        memory_mib=facts.memory_mib or None,
        gpus_per_node=facts.gpus_per_node,
        gpu_type=facts.gpu_type,
    )


def _profile_name(cluster: str) -> str:
    """Make a file's name of a cluster's name."""
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in cluster).strip("-")[:64]
    return name or "cluster"


def _entry(file: SiteFile) -> SiteEntry:
    try:
        site = load_site(file)
    except DeephpcError as error:
        return SiteEntry(name=file.name, whose=file.whose, path=file.path, problem=error.message)
    return SiteEntry(name=file.name, whose=file.whose, path=file.path, description=site.description)
