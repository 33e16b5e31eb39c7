"""Batch prediction, decided before anything is touched (pure): which inputs are left, and how an array shares them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, JsonValue

from deephpc.errors import InputError
from deephpc.jobs.spec import Array
from deephpc.model import Model
from deephpc.serve.argument_values import parse_value
from deephpc.serve.module_arguments import parse_pairs
from deephpc.serve.module_description import ACCEPT, Argument
from deephpc.serve.secret_arguments import render_secrets
from deephpc.workflows.batch_inputs import BatchInput, check_text

_T = TypeVar("_T")

#: A model is loaded once for each task, and inputs of one task wait for one another.
_INPUTS_PER_TASK = 8
_MOST_TASKS = 10
#: Folders that hold more than inputs: a container has its own.
_NOT_WHOLE = frozenset({"/", "/tmp", "/var/tmp", "/dev/shm", "/etc", "/opt", "/srv", "/usr"})  # noqa: S108
#: First folders of what an image has itself.
_IMAGES_OWN = frozenset({"bin", "boot", "etc", "lib", "lib64", "opt", "sbin", "srv", "usr"})
#: More are slow to bind, and engines have limits.
_MOST_BINDS = 20


class Batch(Model):
    """What all inputs of one batch have in common; kept as `inputs/batch.json`."""

    schema_name: Literal["deephpc.batch/1"] = Field(
        "deephpc.batch/1", serialization_alias="schema", validation_alias="schema"
    )
    target: str
    """The module or image, as the user wrote it."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """What --arg says, for every input; without what is secret."""
    accept: str | None = None
    """The form of the answers, such as application/json."""
    files: tuple[str, ...] = ()
    """The arguments whose values are files here."""
    tasks: int = 0
    """Tasks of the array."""
    at_once: int | None = None
    """How many tasks may run at the same time."""
    count: int = 0
    """All inputs, those whose results were taken over too."""
    resumes: str | None = None
    """The run it goes on with."""


class BatchPlan(Model):
    """One batch, decided: what goes into its run folder."""

    batch: Batch
    inputs: tuple[BatchInput, ...]
    """All of them, in the order of the table."""
    done: Mapping[str, str] = Field(default_factory=dict)
    """Key → line of the table of the run it goes on with."""
    secrets: Mapping[str, JsonValue] = Field(default_factory=dict)
    """What --arg says for every input that is secret, as passwords."""

    @property
    def todo(self) -> tuple[BatchInput, ...]:
        """The inputs this run predicts."""
        return tuple(each for each in self.inputs if each.key not in self.done)

    @property
    def array(self) -> Array:
        """The tasks, numbered from 0."""
        return Array(tasks=tuple(range(self.batch.tasks)), at_once=self.batch.at_once)

    def binds(self, *homes: Path) -> tuple[Path, ...]:
        """Return folders of the files it reads, or files; a container must show them where they are.

        Parameters
        ----------
        homes
            The user's home, by all its names: what it lies in is not shown for the sake of fewer folders.
        """
        shared = (self.batch.arguments.get(name) for name in self.batch.files)
        values = (*shared, *(each.args.get(name) for each in self.todo for name in self.batch.files))
        files = {Path(value) for value in values if isinstance(value, str) and value.startswith("/")}
        found = {file if str(file.parent) in _NOT_WHOLE else file.parent for file in files}
        return tuple(sorted(fewer_folders(found, frozenset(above for home in homes for above in home.parents))))

    def render_files(self) -> dict[str, str]:
        """Return the texts by their paths in the run folder. ASCII: no name can break a line or an encoding."""
        files = {
            "inputs/batch.json": json.dumps(self.batch.model_dump(mode="json", by_alias=True), indent=1) + "\n",
            "inputs/all.jsonl": "".join(_line(each, each.args) for each in self.inputs),
        }
        for task, part in enumerate(split(self.todo, self.batch.tasks)):
            files[f"inputs/{task}.jsonl"] = "".join(_line(each, {**self.batch.arguments, **each.args}) for each in part)
        files |= render_secrets(self.secrets)
        if self.done:
            files["inputs/done.jsonl"] = "".join(f"{line}\n" for line in self.done.values())
        return files

    @property
    def digest(self) -> str:
        """What tells this batch from any other of the same command."""
        return hashlib.sha256(json.dumps(self.render_files(), sort_keys=True).encode()).hexdigest()


def fewer_folders(found: set[Path], hidden: frozenset[Path]) -> set[Path]:
    """Return folders that hold all of these: the deepest give way to their parents while there are too many (pure).

    Parameters
    ----------
    hidden
        Folders that no other may give way to.
    """
    while True:
        found = {path for path in found if found.isdisjoint(path.parents)}
        able = [path for path in found if _may_show(path.parent, hidden)]
        if len(found) <= _MOST_BINDS or not able:
            return found
        deepest = max(len(path.parts) for path in able)
        low = {path for path in able if len(path.parts) == deepest}
        found = (found - low) | {path.parent for path in low}


def _may_show(folder: Path, hidden: frozenset[Path]) -> bool:
    is_deep = len(folder.parts) > 2 and folder.parts[1] not in _IMAGES_OWN
    return is_deep and str(folder) not in _NOT_WHOLE and folder not in hidden


def plan_batch(
    batch: Batch,
    inputs: Sequence[BatchInput],
    *,
    tasks: int | None = None,
    done: Mapping[str, str] | None = None,
    secrets: Mapping[str, JsonValue] | None = None,
) -> BatchPlan:
    """Decide which inputs are predicted, and in how many tasks.

    Parameters
    ----------
    tasks
        As asked for; otherwise one for every eight inputs, ten at most. Never more than there are inputs.
    done
        Key → line of the table, of inputs that have a result.
    """
    known = done or {}
    kept = {each.key: known[each.key] for each in inputs if each.key in known}
    count = choose_tasks(len(inputs) - len(kept), tasks)
    decided = batch.model_copy(update={"tasks": count, "count": len(inputs)})
    return BatchPlan(batch=decided, inputs=tuple(inputs), done=kept, secrets=secrets or {})


def choose_tasks(inputs: int, asked: int | None = None) -> int:
    """Return how many tasks share so many inputs."""
    return min(inputs, asked or min(_MOST_TASKS, -(-inputs // _INPUTS_PER_TASK)))


def split(items: Sequence[_T], parts: int) -> list[tuple[_T, ...]]:
    """Cut a sequence into parts whose lengths differ by one at most; the longer ones come first."""
    if parts == 0:
        return []
    size, longer = divmod(len(items), parts)
    ends = [(number + 1) * size + min(number + 1, longer) for number in range(parts)]
    return [tuple(items[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def parse_shared(
    words: Sequence[str],
    accept: str | None,
    declared: Sequence[Argument] | None,
    *,
    cwd: Path,
    inputs: Sequence[str],
    in_doubt: list[InputError] | None = None,
) -> tuple[dict[str, JsonValue], str | None]:
    """Return what `--arg K=V` and `--accept` say for every input.

    Parameters
    ----------
    inputs
        The names that --input gives.
    in_doubt
        As `parse_pairs` has it.

    Raises
    ------
    InputError
        A name is not the module's, a value not of its type, one is missing, or one is an input too.
    """
    pairs = [_pair(word) for word in words]
    if declared is None:
        values: dict[str, JsonValue] = dict(pairs)
    else:
        values = parse_pairs(pairs, declared, "--arg ", cwd=cwd, given=inputs, in_doubt=in_doubt)
    both = sorted(values.keys() & set(inputs))
    if both:
        raise InputError(f"{both[0]} is given by --arg and by --input", "leave one of them out")
    form = values.pop(ACCEPT, None)
    if accept is None or form is None:
        return values, _checked_accept(accept or (str(form) if form is not None else None), declared)
    raise InputError(f"--accept {accept} and --arg accept={form} say the same thing twice", "leave one of them out")


def check_same(batch: Batch, before: Batch, run_id: str) -> None:
    """Check that a batch may go on with another: results of different questions do not belong into one table.

    Raises
    ------
    InputError
        The target, an argument or the form of the answers is another.
    """
    for what, now, then in (
        ("the target", batch.target, before.target),
        ("--accept", batch.accept, before.accept),
        ("--arg", batch.arguments, before.arguments),
    ):
        if now != then:
            raise InputError(
                f"{what} is {_shown(now)}, and was {_shown(then)} in run {run_id}",
                "leave --resume out to predict everything anew, or ask as that run did",
            )


def _checked_accept(accept: str | None, declared: Sequence[Argument] | None) -> str | None:
    field = next((each for each in declared or () if each.name == ACCEPT), None)
    if accept is not None and field is not None:
        parse_value(field, [accept], "--accept")
    return accept


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise InputError(f"--arg {word!r} is not NAME=VALUE", "write --arg top=5")
    check_text(word, f"--arg {word!r}")
    return name, value


def _line(one: BatchInput, args: Mapping[str, JsonValue]) -> str:
    return json.dumps({"key": one.key, "args": dict(args)}) + "\n"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
