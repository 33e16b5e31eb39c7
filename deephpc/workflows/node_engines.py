"""Which engines work on the nodes of a partition: asked once of a node itself, kept, and chosen from."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from deephpc.config import Settings
from deephpc.containers.engine import AUTO, ENGINES, NATIVE, Engine, engines_called
from deephpc.errors import EngineError, InputError
from deephpc.jobs import slurm_probe as slurm
from deephpc.jobs.run_folder import write_atomically
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.model import Model
from deephpc.places import shipped
from deephpc.shell import CommandNotFound, Completed, run

#: How long what a node said is believed; its software changes with maintenance.
BELIEVED_FOR = timedelta(days=30)
_PROBE_S = 60.0
_WORDS = (
    AUTO,
    NATIVE,
    "apptainer",
    "singularity",
    "udocker",
    *(name for name in ENGINES if "-" in name),
)


class FoundEngine(Model):
    """One engine, tried on a node."""

    name: str
    works: bool
    command: str = ""
    """Its program's path there."""
    said: str = ""
    """Its version, or why it does not work."""


class NodeEngines(Model):
    """What one node said of its engines."""

    site: str
    partition: str | None
    """None for the default partition, or this machine."""
    asked_at: datetime
    where: str
    """The node, or why it was not a node of the partition that was asked."""
    engines: tuple[FoundEngine, ...]
    facts: Mapping[str, str] = {}
    """User name spaces, memory-lock limit and the like, as printed."""

    def find(self, name: str) -> FoundEngine | None:
        """Return what was found of one engine."""
        return next((found for found in self.engines if found.name == name), None)


@dataclass(frozen=True)
class Choice:
    """The engine of a run."""

    engine: Engine
    command: str
    reason: str


@dataclass(frozen=True)
class EngineQuestion:
    """Whose nodes are asked."""

    settings: Settings
    partition: str | None
    environ: Mapping[str, str]
    wait_s: int = 60
    """How long the probing job may wait in the queue."""


def checked_engine(word: str) -> str:
    """Check a word of `--engine`.

    Raises
    ------
    InputError
        There is no such engine.
    """
    if word not in _WORDS:
        raise InputError(f"--engine {word!r}: there is no such engine", f"there are {', '.join(_WORDS)}")
    return word


def choose_engine(word: str, known: NodeEngines | None, *, is_sif: bool) -> Choice:
    """Choose the best engine that a word stands for and that works there; pure.

    Parameters
    ----------
    known
        None where the user named one engine and nothing was asked: it is trusted.
    is_sif
        The image is a SIF file, which only Apptainer and Singularity take.

    Raises
    ------
    EngineError
        None works; with the way out.
    """
    candidates = engines_called(word)
    fitting = [engine for engine in candidates if engine.suffix == ".sif" or not is_sif]
    if not candidates:
        raise InputError(f"--engine {word} takes no image", "leave it out, or name another")
    if not fitting:
        raise EngineError(f"{word} cannot run a SIF file", "use --engine apptainer, or the image's docker:// name")
    if known is None:
        return Choice(fitting[0], fitting[0].program, f"asked for with --engine {word}; no node was asked")
    passed_over: list[str] = []
    for engine in fitting:
        found = known.find(engine.program if engine.on_request else engine.name)
        if found is not None and found.works:
            asked = f"asked for with --engine {word}; " if word != AUTO else ""
            before = f" ({'; '.join(passed_over)})" if passed_over else ""
            reason = f"{asked}{engine.name} {found.said} works on {known.where}{before}"
            return Choice(engine, found.command or engine.program, reason)
        passed_over.append(f"{engine.name}: {found.said if found else 'not tried'}")
    if word != AUTO:
        raise EngineError(
            f"{word} does not work on {known.where}: {'; '.join(passed_over)}",
            "leave --engine out to take what works there; `deephpc site probe --nodes` lists it",
        )
    raise EngineError(
        f"no engine for images works on {known.where}: {'; '.join(passed_over)}",
        "load its module under [environment] in config.toml, ask the site for Apptainer, or run without an image "
        "(--engine native); `deephpc site probe --nodes` looks again",
    )


def load_known(question: EngineQuestion, now: datetime) -> NodeEngines | None:
    """Return what was found before, unless it is too old."""
    try:
        known = NodeEngines.model_validate_json(_kept_at(question).read_bytes())
    except (OSError, ValueError):
        return None
    return known if now - known.asked_at < BELIEVED_FOR else None


def ask_node(question: EngineQuestion, now: datetime) -> NodeEngines:
    """Try the engines on a node of the partition by a job of seconds, and keep what it says (login node).

    Where no node comes free in time, or none answers, this machine answers in its place and nothing is kept.
    """
    where = "this machine"
    if question.settings.scheduler != "local":
        answer = _ask_by_job(question)
        if answer is not None:
            known = _parse(answer, question, now)
            if known is not None:
                _keep(known, _kept_at(question))
                return known
        where = f"this machine (no node answered within {question.wait_s} s)"
    answer = run(["/bin/bash", "-c", _script(question)], timeout_s=_PROBE_S, env=dict(question.environ))
    known = _parse(answer, question, now)
    if known is None:
        raise EngineError(f"the engines of {where} cannot be tried: {answer.last_words()}", "name one with --engine")
    return known.model_copy(update={"where": where})


def _ask_by_job(question: EngineQuestion) -> Completed | None:
    argv = slurm.compute_node_argv(
        f"exec /bin/bash -c {shlex.quote(_script(question))}",
        question.wait_s,
        question.partition or question.settings.defaults.partition,
        question.settings.defaults.account,
    )
    environ = environment_for_sbatch(slurm.probe_environment(question.environ))
    try:
        return run(argv, timeout_s=question.wait_s + _PROBE_S, env=environ)
    except CommandNotFound:
        return None


def _script(question: EngineQuestion) -> str:
    """Return the probe with the site's modules before it, as jobs load them."""
    texts = [(shipped("jobscripts") / name).read_text(encoding="utf-8") for name in ("udocker.sh", "probe_engines.sh")]
    environment = question.settings.environment
    lines = [f"module load {shlex.quote(name)} 2>/dev/null" for name in environment.modules]
    if lines:
        lines.insert(0, "type module >/dev/null 2>&1 || . /etc/profile >/dev/null 2>&1")
    return "\n".join((*lines, *environment.setup, f"set -- {shlex.quote(find_udocker())}", *texts))


def find_udocker() -> str:
    """Return the udocker that came with deephpc, which nodes see where they see deephpc; empty when there is none."""
    own = Path(sys.prefix) / "bin" / "udocker"
    return str(own) if own.is_file() else ""


def _parse(answer: Completed, question: EngineQuestion, now: datetime) -> NodeEngines | None:
    """Read the probe's lines; None when there are none, as of a job that never ran."""
    engines, facts = [], {}
    for line in answer.stdout.splitlines():
        name, *rest = line.split("\t")
        if name == "fact" and len(rest) == 2:
            facts[rest[0]] = rest[1]
        elif name in ENGINES and len(rest) == 3:
            engines.append(FoundEngine(name=name, works=rest[0] == "ok", command=rest[1], said=rest[2]))
    if not engines:
        return None
    where = facts.get("node", "a node")
    return NodeEngines(
        site=question.settings.site.name,
        partition=question.partition,
        asked_at=now,
        where=where,
        engines=tuple(engines),
        facts=facts,
    )


def _keep(known: NodeEngines, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, known.model_dump_json(indent=2) + "\n")


def _kept_at(question: EngineQuestion) -> Path:
    partition = question.partition or question.settings.defaults.partition or "default"
    name = f"{question.settings.site.name}.{partition.replace('/', '_').replace(',', '+')}.json"
    return question.settings.state_dir / "engines" / name
