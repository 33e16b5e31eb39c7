"""Asks an image about the DEEPaaS module in it, once, and checks a training's arguments against what it declares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from deephpc.containers.container import MODULE_PROGRAM, Container, check_path
from deephpc.errors import DeephpcError, EngineError, InputError
from deephpc.jobs.run_folder import RunFolder
from deephpc.serve.module_arguments import check_arguments
from deephpc.serve.module_description import ModuleDescription, load_description, parse_description, write_description
from deephpc.serve.secret_arguments import fill_in, star_words
from deephpc.shell import CommandNotFound
from deephpc.workflows.conversion import private_place
from deephpc.workflows.in_image import Enclosed, ImageDesk
from deephpc.workflows.look_inside import can_look_inside, run_inside

_DESCRIBE_S = 180.0
#: Failures that are the image's own, on any machine.
_CERTAIN = ("no-deepaas", "no-module")
_UNCLEAR = ("several", "unknown-model")


def describe_module(
    enclosed: Enclosed, desk: ImageDesk, selecting: Sequence[str] = (), *, ask: bool = True
) -> ModuleDescription | None:
    """Return what the module in an image says of itself: from the cache, else by running it here (login node).

    None where neither can tell: this machine lacks the engine, or the module cannot be imported without what only the
    nodes have. The job says so then.

    Parameters
    ----------
    selecting
        The words that say which module is meant (`selecting_words`).

    Raises
    ------
    EngineError
        The image has no DEEPaaS, or no module in it.
    InputError
        It has several, or none of the name that was asked for.
    """
    container = enclosed.container
    if container is None:
        return None
    which = " ".join([*selecting, *_models(container.models)])
    kept = load_description(container.cache_dir, container.digest, which)
    if kept is not None or not ask or not can_look_inside(container, desk):
        return kept
    desk.tell(f"asking the module in {container.image} for its arguments (once)")
    try:
        found = _ask(container, desk, selecting)
    except (DeephpcError, OSError, ValueError) as error:
        desk.tell(f"note: it did not answer here ({error}); its arguments are checked in the job")
        return None
    if found.error is not None:
        if found.error.kind in _UNCLEAR and not container.binds:
            raise InputError(f"{container.image}: {found.error.message}", "choose one: --model NAME")
        if found.error.kind in _CERTAIN and not container.binds:  # what is bound may bring one
            raise EngineError(
                f"{container.image} has no DEEPaaS module: {found.error.message}",
                f"`deephpc run {container.image} -- COMMAND` runs anything else in it",
            )
        desk.tell(f"note: it cannot be used on this machine: {found.error.message}")
        return None
    write_description(container.cache_dir, container.digest, found, which)
    return found


def _models(folder: Path | None) -> list[str]:
    """Return what tells one folder of models from another: choices of arguments may depend on them."""
    if folder is None:
        return []
    found = [(each.name, each.lstat().st_mtime_ns) for each in folder.iterdir()]
    return [str(folder), *(f"{name}:{time}" for name, time in sorted(found))]


def checked_training(
    enclosed: Enclosed,
    description: ModuleDescription | None,
    cwd: Path,
    ours: Sequence[str] = (),
    kept: Mapping[str, JsonValue] | None = None,
) -> Enclosed:
    """Check what follows `--` against the module's own arguments (pure); return the words that start the training.

    Parameters
    ----------
    ours
        As `check_arguments` has it.
    kept
        What was secret of the arguments of the run that is repeated: stars stand for it.

    Raises
    ------
    InputError
        The module cannot be trained, or an argument is not one of its own, lacks, or has a bad value.
    """
    kept = kept or {}
    if description is None:
        return replace(enclosed, secrets=kept)
    if not description.train.exists:
        raise InputError(f"the module {description.served} cannot be trained", "`deephpc predict` applies it")
    at, declared = enclosed.words.index("--") + 1, description.train.arguments
    checked = check_arguments(fill_in(enclosed.words[at:], kept), declared, cwd=cwd, ours=ours)
    starred, secrets = star_words(checked, declared, kept)
    return replace(enclosed, words=(*enclosed.words[:at], *starred), secrets=secrets)


def with_folders(enclosed: Enclosed, description: ModuleDescription | None) -> Enclosed:
    """Return it with the folders of data and models that the module's own configuration names."""
    if description is None or enclosed.container is None:
        return enclosed
    found = description.folders
    folders = (*(f"data {folder}" for folder in found.data), *(f"models {folder}" for folder in found.models))
    return replace(enclosed, container=enclosed.container.model_copy(update={"module_folders": folders}))


def with_files(enclosed: Enclosed, description: ModuleDescription | None) -> Enclosed:
    """Return it with the files that the arguments of a training name, seen inside where they are here.

    Raises
    ------
    InputError
        One of them is not there, or has a path that cannot be bound.
    """
    if description is None or enclosed.container is None:
        return enclosed
    words = (word.removeprefix("--").partition("=") for word in enclosed.words if word.startswith("--"))
    named = {name: value for name, equals, value in words if equals}
    files = [named[each.name] for each in description.train.arguments if each.type == "file" and each.name in named]
    for file in files:
        check_path(file, "an argument's file")
        if not Path(file).is_file():
            raise InputError(f"there is no file {file}, which an argument names", "check the path")
    return replace(enclosed, container=enclosed.container.with_binds(f"{file}:{file}:ro" for file in files))


def _ask(container: Container, desk: ImageDesk, selecting: Sequence[str]) -> ModuleDescription:
    with private_place(desk.settings.cache_dir) as place:
        folder = RunFolder(place)
        answer = folder.path / "output" / "module.json"
        words = ["python3", MODULE_PROGRAM, "describe", *selecting, "--output", str(answer)]
        done = run_inside(container.model_copy(update={"binds": ()}), desk, folder, words, timeout_s=_DESCRIBE_S)
        if not answer.is_file():
            raise CommandNotFound(done.last_words() or f"exit code {done.returncode}")
        found = parse_description(answer.read_bytes())
    if found.served is None and found.error is None:
        raise ValueError("it named no module")
    return found
