"""Checks of Slurm from a login node: commands, releases, controller, accounting, clocks, partitions."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from deephpc.account import account_groups
from deephpc.config import Settings
from deephpc.jobs import slurm_probe as slurm
from deephpc.shell import CommandNotFound, Completed, run
from deephpc.workflows.checks import Check

_NEEDED = ("sbatch", "squeue", "scancel")
_USEFUL = ("scontrol", "sinfo", "sacct", "srun")
_TIMEOUT_S = 10.0
_SLOW_S = 2.0
_SKEW = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a command said, and when (aware)."""

    completed: Completed
    started: datetime
    ended: datetime

    @property
    def ok(self) -> bool:
        """Whether it answered."""
        return self.completed.ok

    @property
    def text(self) -> str:
        """What it printed; nothing where it failed."""
        return self.completed.stdout if self.ok else ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.started).total_seconds()

    @property
    def trouble(self) -> str:
        """What went wrong, in one line."""
        if self.completed.timed_out:
            return f"{self.completed.argv[0]} gave no answer within {_TIMEOUT_S:g} s"
        return self.completed.last_words() or f"{self.completed.argv[0]} ended with {self.completed.returncode}"


def check_slurm(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    """Ask each of Slurm's parts one question; a dead part costs its own deadline and no more."""
    clean = slurm.probe_environment(environ)
    commands = _commands(clean)
    if commands.outcome == "fail":
        return [commands]
    config_answer = _ask(slurm.config_argv(), clean)
    config = slurm.parse_config(config_answer.text)
    return [
        commands,
        _release(_ask(slurm.version_argv(), clean), config),
        _controller(config_answer, clean),
        *_controller_clock(config_answer),
        _accounting(config, clean),
        *(_partitions(_ask(slurm.sinfo_argv(), clean), settings) if config_answer.ok else []),
    ]


def _ask(argv: Sequence[str], environ: Mapping[str, str]) -> _Answer:
    """Run a command; one that does not exist answers like one that fails."""
    started = datetime.now(timezone.utc)
    try:
        completed = run(argv, timeout_s=_TIMEOUT_S, env=environ)
    except CommandNotFound as error:
        completed = Completed(tuple(argv), 127, "", error.message)
    return _Answer(completed, started, datetime.now(timezone.utc))


def _commands(environ: Mapping[str, str]) -> Check:
    missing = [name for name in (*_NEEDED, *_USEFUL) if shutil.which(name, path=environ.get("PATH")) is None]
    if not missing:
        return Check(name="Slurm commands", outcome="ok", found=", ".join((*_NEEDED, *_USEFUL)))
    found = f"not on PATH: {', '.join(missing)}"
    if set(missing) & set(_NEEDED):
        remedy = 'run on a login node, or load the site\'s slurm module; without Slurm set `site = "local"`'
        return Check(name="Slurm commands", outcome="fail", found=found, remedy=remedy)
    return Check(
        name="Slurm commands", outcome="warn", found=found, remedy="deephpc works without them, but knows less"
    )


def _release(answer: _Answer, config: Mapping[str, str]) -> Check:
    here, there = slurm.parse_slurm_version(answer.completed.stdout), config.get("SLURM_VERSION")
    if here is None:
        return Check(
            name="Slurm release", outcome="warn", found=answer.trouble, remedy="see what `sbatch --version` says"
        )
    found = f"commands {here}, controller {there or 'not known'}"
    if there is not None and there.split(".")[:2] != here.split(".")[:2]:
        remedy = "the two differ; Slurm supports older commands with a newer controller only"
        return Check(name="Slurm release", outcome="warn", found=found, remedy=remedy)
    return Check(name="Slurm release", outcome="ok", found=found)


def _controller(answer: _Answer, environ: Mapping[str, str]) -> Check:
    if not answer.ok:
        remedy = "nothing can be submitted until it answers; try again in a moment, then tell the administrators"
        return Check(name="controller", outcome="fail", found=answer.trouble, remedy=remedy)
    up = [name for name, is_up in slurm.parse_ping(_ask(slurm.ping_argv(), environ).completed.stdout).items() if is_up]
    found = f"{', '.join(up) or 'slurmctld'} answered in {answer.seconds:.2f} s"
    if answer.seconds > _SLOW_S:
        return Check(name="controller", outcome="warn", found=found, remedy="it is busy: submissions may take long")
    return Check(name="controller", outcome="ok", found=found)


def _controller_clock(answer: _Answer) -> list[Check]:
    skew = slurm.controller_clock_skew(answer.text, answer.started, answer.ended)
    if skew is None:
        return []
    found = f"{skew.total_seconds():+.0f} s from this machine"
    if abs(skew) > _SKEW:
        remedy = "munge refuses credentials when clocks differ by minutes; tell the administrators"
        return [Check(name="controller clock", outcome="warn", found=found, remedy=remedy)]
    return [Check(name="controller clock", outcome="ok", found=found)]


def _accounting(config: Mapping[str, str], environ: Mapping[str, str]) -> Check:
    if slurm.has_accounting(config) is False:
        found = "this cluster keeps none; deephpc lives from squeue and its own results"
        return Check(name="accounting", outcome="ok", found=found)
    answer = _ask(slurm.accounting_argv(), environ)
    if not answer.ok:
        remedy = "deephpc goes on without it; ended jobs are told from their own results"
        return Check(name="accounting", outcome="warn", found=answer.trouble, remedy=remedy)
    return Check(name="accounting", outcome="ok", found=f"slurmdbd answered in {answer.seconds:.2f} s")


def _partitions(answer: _Answer, settings: Settings) -> list[Check]:
    partitions = slurm.parse_partitions(answer.text, account_groups())
    if not answer.ok and "denied" in answer.trouble:
        remedy = "name partitions as the site's documentation does, by --partition or `partition` under [defaults]"
        return [Check(name="partitions", outcome="warn", found="this site shows them to nobody", remedy=remedy)]
    if not partitions:
        found = answer.trouble if not answer.ok else "sinfo lists none that you may use"
        remedy = "ask the administrators for access to a partition" if answer.ok else "try again in a moment"
        return [Check(name="partitions", outcome="fail", found=found, remedy=remedy)]
    words = [_partition_words(each) for each in partitions]
    gpus = sorted({each.gpu_type or "gpu" for each in partitions if each.gpus_per_node})
    checks = [
        Check(name="partitions", outcome="ok", found="; ".join(words)),
        Check(name="GPUs", outcome="ok", found=", ".join(gpus) if gpus else "none in any partition"),
    ]
    return [*checks, *_default_partition(partitions, settings)]


def _partition_words(each: slurm.PartitionFacts) -> str:
    gpus = f", {each.gpus_per_node} {each.gpu_type or 'GPUs'}" if each.gpus_per_node else ""
    state = "" if each.up else ", not up"
    return (
        f"{each.name}{'*' if each.default else ''} ({each.node_count} nodes, {each.cpus_per_node} cores{gpus}{state})"
    )


def _default_partition(partitions: Sequence[slurm.PartitionFacts], settings: Settings) -> list[Check]:
    wanted = settings.defaults.partition
    names = [each.name for each in partitions]
    if wanted is not None and not set(wanted.split(",")) <= set(names):
        origin = settings.origins.get("defaults.partition", "settings")
        found = f"defaults.partition = {wanted!r} ({origin}) is not one of yours"
        return [Check(name="default partition", outcome="fail", found=found, remedy=f"use one of {', '.join(names)}")]
    if wanted is None and slurm.default_partition(partitions) is None:
        remedy = "set `partition` under [defaults] in config.toml"
        found = "Slurm has none, and neither do the settings"
        return [Check(name="default partition", outcome="warn", found=found, remedy=remedy)]
    return []
