"""From what `deephpc predict` was asked to a batch: inputs found, arguments checked, an earlier run gone on with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from deephpc.errors import InputError
from deephpc.jobs.run_folder import RunFolder, read_text
from deephpc.serve.module_description import Argument, ModuleDescription
from deephpc.serve.secret_arguments import split_secrets
from deephpc.workflows.batch_inputs import BatchInput, file_arguments, load_inputs
from deephpc.workflows.batch_predict import Batch, BatchPlan, check_same, parse_shared, plan_batch
from deephpc.workflows.batch_results import load_batch, load_done
from deephpc.workflows.keep import load_secret_files, load_secrets


@dataclass(frozen=True, slots=True)
class BatchWords:
    """What was written on the command line."""

    target: str
    inputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    accept: str | None = None
    tasks: int | None = None
    at_once: int | None = None


def load_batch_plan(
    asked: BatchWords, description: ModuleDescription | None, cwd: Path, before: RunFolder | None = None
) -> BatchPlan:
    """Decide a batch; what is not said is as in the run it goes on with.

    Parameters
    ----------
    description
        What the module declares, where that is known.
    before
        The run to go on with: inputs that have a result there are not predicted again.

    Raises
    ------
    InputError
        The module predicts nothing, an input or argument is wrong, or the earlier run asked something else.
    """
    if description is not None and not description.predict.exists:
        raise InputError(f"the module {description.served} cannot predict", "`deephpc train` may know more to do")
    declared = None if description is None else description.predict.arguments
    earlier = load_batch(before) if before is not None else None
    if before is not None and earlier is not None and not asked.inputs:
        inputs, files = load_all_inputs(before), earlier.files
    else:
        inputs = load_inputs(asked.inputs, declared, cwd)
        files = file_arguments(asked.inputs, declared)
    batch = _batch(asked, declared, cwd, earlier, inputs, files)
    arguments, secrets = split_secrets(batch.arguments, declared)
    batch = batch.model_copy(update={"arguments": arguments})
    if before is None or earlier is None:
        return plan_batch(batch, inputs, tasks=asked.tasks, secrets=secrets)
    check_same(batch, earlier, before.path.name)
    batch = batch.model_copy(update={"resumes": before.path.name})
    secrets = secrets or load_secrets(before)
    return plan_batch(batch, inputs, tasks=asked.tasks, done=load_done(before), secrets=secrets)


def load_all_inputs(folder: RunFolder) -> tuple[BatchInput, ...]:
    """Read all inputs of a batch, in order.

    Raises
    ------
    InputError
        Its list of inputs is gone or was changed.
    """
    path = folder.path / "inputs" / "all.jsonl"
    lines = (read_text(path) or "").splitlines()
    try:
        inputs = tuple(BatchInput.model_validate_json(line) for line in lines)
    except ValidationError as error:
        raise InputError(f"{path} is not a list of inputs any more", "give the inputs again with --input") from error
    if not inputs:
        raise InputError(f"run {folder.path.name} has no list of inputs", "give the inputs again with --input")
    return inputs


def load_batch_files(folder: RunFolder) -> dict[str, str]:
    """Read what a batch's run folder holds of its inputs, to run the very same again: path in it → text.

    Raises
    ------
    InputError
        The run is no batch.
    """
    load_batch(folder)
    found = sorted((folder.path / "inputs").iterdir())
    files = {f"inputs/{path.name}": read_text(path) or "" for path in found if path.suffix in (".json", ".jsonl")}
    return {**files, **load_secret_files(folder)}


def predict_words(batch: Batch) -> tuple[str, ...]:
    """Return the words for the program that drives modules; it finds the task's inputs in the run folder (pure)."""
    return ("predict", *(("--accept", batch.accept) if batch.accept else ()))


def _batch(
    asked: BatchWords,
    declared: Sequence[Argument] | None,
    cwd: Path,
    earlier: Batch | None,
    inputs: Sequence[BatchInput],
    files: Sequence[str],
) -> Batch:
    if earlier is not None and not asked.arguments and asked.accept is None:
        arguments, accept = earlier.arguments, earlier.accept
    else:
        names = tuple(inputs[0].args)
        arguments, accept = parse_shared(asked.arguments, asked.accept, declared, cwd=cwd, inputs=names)
    shared = (each.name for each in declared or () if each.type == "file" and each.name in arguments)
    return Batch(
        target=asked.target,
        arguments=arguments,
        accept=accept,
        files=tuple(sorted({*files, *shared})),
        at_once=asked.at_once,
    )
