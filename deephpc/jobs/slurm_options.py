"""The `#SBATCH` lines of a job: those deephpc writes, and those the user adds with `--sbatch`."""

import shlex
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Literal

from deephpc.errors import InputError
from deephpc.jobs.scheduler import job_name
from deephpc.jobs.slurm_controller import is_cluster_option
from deephpc.jobs.slurm_ids import parse_slurm_id, render_array
from deephpc.jobs.slurm_option_names import OURS, OURS_ALWAYS, SHORT, VALUE_NEEDED, nearest
from deephpc.jobs.slurm_units import render_memory, render_walltime
from deephpc.jobs.spec import Dependency, JobSpec
from deephpc.model import Model

_LONGEST_VALUE = 4096
#: The longest grace period (sbatch(1) of Slurm 24.11, --signal).
MOST_SIGNAL_SECONDS = 65535
_SIGNAL_IS_EARLY = timedelta(seconds=60)
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./_&|*()[]!-")


class Dialect(Model):
    """How a site wants resources asked for."""

    gpu_request: Literal["gpus-per-node", "gres", "none"] = "gpus-per-node"
    """Option that asks for GPUs; none where whole GPU nodes come with their partition."""
    memory_request: bool = True
    """Whether memory may be asked for."""


def render_directives(spec: JobSpec, dialect: Dialect) -> tuple[str, ...]:
    """Return the `#SBATCH` lines of a job: one per fact, always in the same order, the user's own last.

    stderr goes along with stdout, since no `--error` is given. Paths are relative: the job is submitted from inside its
    run folder. Slurm sends `--signal` up to a minute early, so a job whose time limit is no longer than the grace
    period and that minute gets none: it would be told to stop as it starts. Neither does one without a limit of its
    own, which may be as short. The job script tells these itself.
    """
    words = [*_identity(spec), *_resources(spec, dialect), *_life(spec)]
    raw = [word for word in spec.raw_options if not is_cluster_option(word)]  # sbatch is given those itself
    _join_gres(words, raw)
    return tuple(f"#SBATCH {quote_directive(word)}" for word in (*words, *raw))


def has_room_for(grace: timedelta, walltime: timedelta | None) -> bool:
    """Whether Slurm's signal can tell a job of its end: one of this time limit runs for a while before it."""
    return walltime is not None and walltime > grace + _SIGNAL_IS_EARLY


def check_raw_options(raw: Sequence[str]) -> tuple[str, ...]:
    """Check the user's `--sbatch 'RAW'` texts and return their options as words of the form `--name` or `--name=value`.

    Each text is split as a shell would. Options must be spelled out or in their short form; sbatch's own
    abbreviations are refused.

    Raises
    ------
    InputError
        A word is no sbatch option, sets what deephpc sets, lacks its value, or cannot stand in a directive.
    """
    words = [word for text in raw for word in _split(text)]
    checked: list[str] = []
    names: set[str] = set()
    while words:
        name, value = _take_option(words)
        if name in names:
            raise InputError(f"--sbatch gives --{name} twice", "give it once; sbatch would use the last one only")
        names.add(name)
        _refuse_ours(name, value)
        checked.append(f"--{name}" if value is None else f"--{name}={value}")
    return tuple(checked)


def quote_directive(word: str) -> str:
    r"""Quote one word for an `#SBATCH` line.

    In such a line double quotes hold words together, a backslash takes the next character as it is (except a space
    outside quotes, which it drops), and `#` outside quotes starts a comment.
    Source: `_get_argument` in Slurm's src/sbatch/opt.c, and sbatch 22.05 asked with `-vvv`.
    """
    if word and all(character in _SAFE for character in word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    name, equals, value = escaped.partition("=")
    if equals and all(character in _SAFE for character in name):
        return f'{name}="{value}"'
    return f'"{escaped}"'


def _identity(spec: JobSpec) -> list[str]:
    log = "job.log" if spec.array is None else "job-%a.log"
    return [
        f"--job-name={job_name(spec.run_id, spec.token)}",
        f"--comment=deephpc:{spec.run_id}:{spec.token}",
        f"--output={log}",
        "--open-mode=append",
    ]


def _resources(spec: JobSpec, dialect: Dialect) -> list[str]:
    ask = spec.resources
    nodes = ask.node_count if ask.tasks_per_node else ask.nodes
    memory = None if ask.memory_mib is None or not dialect.memory_request else render_memory(ask.memory_mib)
    facts = (
        ("nodes", nodes),
        ("ntasks-per-node", ask.tasks_per_node),
        ("cpus-per-task", ask.cpus_per_task),
        *_gpus(spec, dialect),
        ("mem", memory),
        ("time", render_walltime(ask.walltime) if ask.walltime else None),
        ("partition", ask.partition),
        ("account", ask.account),
        ("qos", ask.qos),
        ("constraint", ask.constraint),
    )
    words = [f"--{name}={value}" for name, value in facts if value is not None]
    return [*words, "--exclusive"] if ask.exclusive else words


def _gpus(spec: JobSpec, dialect: Dialect) -> list[tuple[str, str]]:
    ask = spec.resources
    if not ask.gpus_per_node or dialect.gpu_request == "none":
        return []
    count = f"{ask.gpu_type}:{ask.gpus_per_node}" if ask.gpu_type else str(ask.gpus_per_node)
    return [("gres", f"gpu:{count}")] if dialect.gpu_request == "gres" else [("gpus-per-node", count)]


def _life(spec: JobSpec) -> list[str]:
    words = []
    if spec.array is not None:
        words.append(f"--array={render_array(spec.array)}")
    if spec.dependencies:
        words.append(f"--dependency={','.join(_dependency(one) for one in spec.dependencies)}")
        words.append("--kill-on-invalid-dep=yes")
    words.append("--requeue" if spec.max_requeues else "--no-requeue")
    if spec.grace and has_room_for(spec.grace, spec.resources.walltime):
        words.append(f"--signal=B:USR1@{min(int(spec.grace.total_seconds()), MOST_SIGNAL_SECONDS)}")
    if spec.mail is not None:
        words += [f"--mail-user={spec.mail.address}", f"--mail-type={','.join(spec.mail.events)}"]
    return words


def _dependency(dependency: Dependency) -> str:
    """Return `afterok:1:2`; Slurm knows dependencies within one cluster, so its name is left off."""
    ids = [parse_slurm_id(job_id) for job_id in dependency.job_ids]
    return ":".join([dependency.kind, *(str(one.job) if one.task is None else f"{one.job}_{one.task}" for one in ids)])


def _join_gres(words: list[str], raw: list[str]) -> None:
    """Put the user's other generic resources into our `--gres` word: of two, sbatch would use the last one only."""
    ours = next((word for word in words if word.startswith("--gres=")), None)
    theirs = next((word for word in raw if word.startswith("--gres=")), None)
    if ours and theirs:
        words[words.index(ours)] = f"{ours},{theirs.removeprefix('--gres=')}"
        raw.remove(theirs)


def _split(text: str) -> list[str]:
    if any(not character.isprintable() for character in text):
        raise InputError(f"--sbatch {text!r} has a control character", "give one line of plain text")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--sbatch {text!r} cannot be read: {error}", "close the quotes") from error


def _take_option(words: list[str]) -> tuple[str, str | None]:
    """Take one option, and its value where it has one, off the front of the words."""
    word = words.pop(0)
    if len(word) > _LONGEST_VALUE:
        raise InputError(f"--sbatch {word[:40]!r}… is longer than {_LONGEST_VALUE} characters", "shorten it")
    if word.startswith("--"):
        name, equals, attached = word[2:].partition("=")
        value = attached if equals else None
    elif word.startswith("-") and word[1:2] in SHORT:
        name, value = SHORT[word[1]], word[2:].removeprefix("=") or None
    else:
        raise InputError(f"--sbatch: {word!r} is not an option of sbatch", "write it as --option=value")
    takes_value = VALUE_NEEDED.get(name)
    if takes_value is None:
        raise InputError(f"--sbatch: sbatch has no option --{name}", nearest(name))
    return name, _value(name, value, takes_value, words)


def _value(name: str, value: str | None, takes_value: Literal["yes", "no", "maybe"], words: list[str]) -> str | None:
    if takes_value == "no" and value is not None:
        raise InputError(f"--sbatch: --{name} takes no value, but {value!r} was given", f"write --{name}")
    if takes_value != "yes" or value is not None:
        return value
    if not words or words[0].startswith("-"):
        raise InputError(f"--sbatch: --{name} needs a value", f"write --{name}=VALUE")
    return words.pop(0)


def _refuse_ours(name: str, value: str | None) -> None:
    if name in OURS_ALWAYS:
        raise InputError(f"--sbatch: --{name} is set by deephpc", OURS_ALWAYS[name])
    condition: Callable[[str], bool] | None = OURS.get(name)
    if condition is not None and condition(value or ""):
        raise InputError(f"--sbatch: --{name}={value} asks for GPUs, which deephpc sets", "use --gpus-per-node")
