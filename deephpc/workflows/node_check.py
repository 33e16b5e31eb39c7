"""The check made on a compute node, by a job of seconds: Python, clock, and whether the run folder is seen there."""

import json
import shlex
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deephpc.config import Settings
from deephpc.jobs import slurm_probe as slurm
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.shell import CommandNotFound, Completed, run
from deephpc.workflows.checks import Check

_NAME = "compute node"
_RUN_S = 60.0
_SKEW_S = 30.0
#: Marks the line that is ours among banners that a node's shell may print.
_MARK = "deephpc-node-check"
_PROGRAM = (
    "import json,os,platform,sys,time;"
    f"print({_MARK!r}+json.dumps([platform.python_version(),time.time(),os.path.exists(sys.argv[1]),platform.node()]))"
)


@dataclass(frozen=True)
class NodeQuestion:
    """Whose settings a node is looked at for, and how long that may wait."""

    settings: Settings
    environ: Mapping[str, str]
    wait_s: int


def check_node(question: NodeQuestion, *, asked_for: bool) -> Check:
    """Run a short job on one node of the default partition, where it was asked for; it leaves nothing behind."""
    if question.settings.scheduler == "local":
        return Check(name=_NAME, outcome="skip", found="jobs run on this machine")
    if not asked_for:
        remedy = "`deephpc doctor --nodes` runs a job of seconds to look at Python, clock and folders there"
        return Check(name=_NAME, outcome="skip", found="not looked at", remedy=remedy)
    try:
        question.settings.work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=question.settings.work_dir, prefix=".deephpc-doctor-") as witness:
            started = time.time()
            completed = _run(question, Path(witness.name))
            ended = time.time()
    except OSError as error:
        return Check(name=_NAME, outcome="skip", found=f"work_dir cannot be written: {error.strerror}")
    except CommandNotFound as error:
        return Check(name=_NAME, outcome="skip", found=error.message, remedy="srun is needed for this check alone")
    return _judge(completed, question, (started, ended))


def _run(question: NodeQuestion, witness: Path) -> Completed:
    defaults = question.settings.defaults
    script = f"exec python3 -c {shlex.quote(_PROGRAM)} {shlex.quote(str(witness))}"
    environ = environment_for_sbatch(slurm.probe_environment(question.environ))
    argv = slurm.compute_node_argv(script, question.wait_s, defaults.partition, defaults.account)
    return run(argv, timeout_s=question.wait_s + _RUN_S, env=environ)


def _judge(completed: Completed, question: NodeQuestion, times: tuple[float, float]) -> Check:
    answer = _parse(completed.stdout)
    if answer is None:
        return _no_answer(completed, question)
    version, clock, seen, node = answer
    # the job ran somewhere between the two times: only what lies outside is skew
    skew = clock - times[1] if clock > times[1] else min(0.0, clock - times[0])
    found = (
        f"{node}: Python {version}, clock {skew:+.0f} s from this machine, work_dir {'seen' if seen else 'not seen'}"
    )
    if not seen:
        remedy = "choose a work_dir that compute nodes share with this one"
        return Check(name=_NAME, outcome="fail", found=found, remedy=remedy)
    if tuple(int(part) for part in version.split(".")[:2]) < (3, 6):
        remedy = "jobs need Python 3.6 or later there: name a module under [environment] in config.toml"
        return Check(name=_NAME, outcome="fail", found=found, remedy=remedy)
    if abs(skew) > _SKEW_S:
        remedy = "times in records will disagree; tell the administrators that clocks drift"
        return Check(name=_NAME, outcome="warn", found=found, remedy=remedy)
    return Check(name=_NAME, outcome="ok", found=found)


def _no_answer(completed: Completed, question: NodeQuestion) -> Check:
    if completed.returncode == 127:
        found = completed.last_words() or "python3: command not found"
        remedy = "jobs need python3 on the nodes: name a module under [environment] in config.toml"
        return Check(name=_NAME, outcome="fail", found=found, remedy=remedy)
    words = completed.last_words().removeprefix("srun: error: ")
    found = words or f"no node came free within {question.wait_s} s"
    return Check(
        name=_NAME, outcome="warn", found=found, remedy="try again when the queue is shorter, or another partition"
    )


def _parse(stdout: str) -> tuple[str, float, bool, str] | None:
    for line in stdout.splitlines():
        if line.startswith(_MARK):
            try:
                words: list[Any] = json.loads(line.removeprefix(_MARK))
                return str(words[0]), float(words[1]), bool(words[2]), str(words[3])
            except (ValueError, IndexError, TypeError):
                return None
    return None
