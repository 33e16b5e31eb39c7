"""The story of `deephpc doctor`: look at everything a job will need, and say what is missing and how to mend it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deephpc.config import Settings
from deephpc.jobs.slurm_environment import contradicting_sbatch_variables
from deephpc.workflows.checks import Check
from deephpc.workflows.node_check import NodeQuestion, check_node
from deephpc.workflows.slurm_check import check_slurm
from deephpc.workflows.storage import FolderState, inspect_folder, quota_report

_SKEW_S = 30.0
_LITTLE_SPACE = 5 * 1024**3
_FEW_INODES = 10_000


@dataclass(frozen=True)
class Examination:
    """What to look at, and how far to go."""

    settings: Settings
    environ: Mapping[str, str]
    on_nodes: bool = False
    """Whether to run a one-minute job on a compute node."""
    node_wait_s: int = 60
    """How long that job may wait in the queue, in seconds."""


def examine(examination: Examination) -> tuple[Check, ...]:
    """Make every check, each with its own deadline; nothing is left behind."""
    settings = examination.settings
    checks = [_site(settings), *_variables(examination.environ)]
    if settings.scheduler == "local":
        checks.append(Check(name="Slurm", outcome="skip", found="this site runs jobs on this machine, without Slurm"))
    else:
        checks += check_slurm(settings, examination.environ)
    checks += _folders(examination)
    question = NodeQuestion(settings, examination.environ, examination.node_wait_s)
    checks.append(check_node(question, asked_for=examination.on_nodes))
    return tuple(checks)


def _site(settings: Settings) -> Check:
    found = f"{settings.site.name} ({settings.origins.get('site', 'built-in')})"
    if settings.site.name == "generic":
        remedy = "`deephpc site init` writes a profile of this cluster"
        if settings.own_sites:
            lines = " or ".join(f'`site = "{name}"`' for name in settings.own_sites)
            remedy = f"put {lines} in config.toml (`deephpc config path` tells where it lies)"
        return Check(name="site", outcome="warn", found=found, remedy=remedy)
    return Check(name="site", outcome="ok", found=found)


def _variables(environ: Mapping[str, str]) -> list[Check]:
    """Tell the user about variables that deephpc has to leave out."""
    names = contradicting_sbatch_variables(environ)
    if not names:
        return []
    found = f"{', '.join(names)} would undo what deephpc sets; jobs are submitted without"
    return [Check(name="variables", outcome="warn", found=found, remedy=f"unset {' '.join(names)} to silence this")]


def _folders(examination: Examination) -> list[Check]:
    settings, environ = examination.settings, examination.environ
    checks = []
    for key, path in (
        ("work_dir", settings.work_dir),
        ("cache_dir", settings.cache_dir),
        ("state_dir", settings.state_dir),
    ):
        state = inspect_folder(path)
        checks.append(_folder(key, state))
        checks += _quota(key, path, environ) if key == "work_dir" else []
        checks += _server_clock(state) if key == "work_dir" else []
    return checks


def _folder(key: str, state: FolderState) -> Check:
    if state.problem is not None:
        remedy = f"choose another with `{key}` in config.toml or DEEPHPC_{key.upper()}"
        return Check(name=key, outcome="fail", found=f"cannot be written: {state.problem}", remedy=remedy)
    space = "" if state.free_bytes is None else f", {state.free_bytes / 1024**3:.1f} GiB free"
    inodes = "" if state.free_inodes is None else f", {state.free_inodes} inodes free"
    found = f"{state.path} on {state.file_system or 'an unknown file system'}{space}{inodes}"
    if state.free_bytes is not None and state.free_bytes < _LITTLE_SPACE:
        return Check(name=key, outcome="warn", found=found, remedy="little space: delete old runs or move the folder")
    if state.free_inodes is not None and state.free_inodes < _FEW_INODES:
        return Check(name=key, outcome="warn", found=found, remedy="few files may still be made: delete old ones")
    if key == "state_dir" and state.on_network:
        found += "; the record keeps a rollback journal there, no write-ahead log"
    return Check(name=key, outcome="ok", found=found)


def _quota(key: str, path: Path, environ: Mapping[str, str]) -> list[Check]:
    report = quota_report(path, environ)
    if report is None:
        return [Check(name=f"{key} quota", outcome="skip", found="neither quota nor lfs quota tells of one here")]
    over = "*" in report  # quota(1) and lfs-quota(1) mark what is over its limit with a star
    remedy = "over quota: delete files, or ask for more" if over else ""
    return [Check(name=f"{key} quota", outcome="warn" if over else "ok", found=report, remedy=remedy)]


def _server_clock(state: FolderState) -> list[Check]:
    if state.skew_s is None:
        return []
    found = f"the file server of {state.path} is {state.skew_s:+.0f} s from this machine"
    if abs(state.skew_s) > _SKEW_S:
        remedy = "times in records will disagree; tell the administrators that clocks drift"
        return [Check(name="file server clock", outcome="warn", found=found, remedy=remedy)]
    return [Check(name="file server clock", outcome="ok", found=found)]
