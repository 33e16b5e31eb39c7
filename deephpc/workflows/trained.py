"""Finds what a training run left for others to use: its models, and the image and module they belong to."""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deephpc.containers.container import check_path
from deephpc.containers.engine import NATIVE
from deephpc.containers.reference import RegistryImage, parse_target
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder, TaskFolder, read_json, read_text
from deephpc.serve.module_description import ModuleDescription
from deephpc.workflows.keep import secret_variables
from deephpc.workflows.plan import JobPlan, load_plan
from deephpc.workflows.request import JobOptions, JobRequest

_SHOWN = 4
_MANGLED = re.compile("[?\ufffd]")
"""In names of which lines of text do not hold every byte (deepaas_opened.py)."""
_WATCH = ("--watch-models",)
"""For the program that drives a module: note which of the models are opened, in RUN/opened-models.txt."""


def find_models(models: str, record: Record | None, cwd: Path) -> Path:
    """Return the folder that `--models RUN|DIR` names.

    Raises
    ------
    InputError
        It is neither a folder nor a run, or there are no models in it.
    """
    folder = (cwd / models).absolute()
    if not folder.is_dir():
        if "/" in models:
            raise InputError(f"--models {models}: there is no such folder", "check the name")
        if record is None:
            raise InputError(f"--models {models}: there is no such folder, and no run is recorded", "check the name")
        folder = models_of(record.resolve(models)[0])
    check_models(folder, f"--models {models}")
    return folder


def models_of(job: Job) -> Path:
    """Return the folder in which a training of a module left its models."""
    return job.folder / "output" / "models"


@dataclass(frozen=True, slots=True)
class Answering:
    """Which of several models answers."""

    words: tuple[str, ...] = ()
    """For the program that drives the module."""
    note: str = ""
    """For the user; empty where there is one model alone."""


def choose_answering(models: Path | None, description: ModuleDescription | None) -> Answering:
    """Return how the model of a training answers, not those that the image had before; reads the models' folder.

    Where the module has an argument whose choices name the trained one, that becomes its default. Elsewhere the choice
    is the module's own, and that is told.
    """
    if models is None:
        return Answering()
    if not _is_of_a_run(models):
        return Answering(_WATCH)
    folder = RunFolder(models.parent.parent)
    files = folder.task(None)
    ended = (read_json(files.result) or {}).get("state")
    unfinished = (
        f"{folder.path.name} ended {ended}: its models may be unfinished" if ended not in (None, "COMPLETED") else ""
    )
    shipped = _shipped(files)
    trained = [each for each in models.iterdir() if each.name not in shipped and not each.name.startswith(".")]
    words, told = _choose(trained, shipped, description)
    if shipped and not trained:
        told = _tell_of_shipped(shipped, _unchanged(models, files))
    return Answering((*words, *_WATCH), "; ".join(filter(None, (unfinished, told))))


def tell_opened(folder: RunFolder) -> str:
    """Say which files of its models a server or batch has opened while it answered; reads the run's folder.

    Opened is what is proven: that the model of a training answers, as far as the module uses what it opens. Empty where
    the run has the models of its image alone, or nothing noted what was opened.
    """
    files = (folder.task(None).opened_models, *folder.path.glob("tasks/*/opened-models.txt"))
    noted = [text for file in files if (text := read_text(file)) is not None]
    plan = load_plan(folder) if noted else None
    models = plan.request.options.image.models if plan else None
    if models is None:
        return ""
    opened = sorted({line for text in noted for line in text.splitlines()})
    if not opened:
        return f"no file in {models} was opened for its answers: they may be those of another model"
    return f"opened for its answers: {_describe_opened(opened, models)}"


def _describe_opened(opened: Sequence[str], models: Path) -> str:
    """Return files that were opened as models, with whose they are."""
    if not models.is_dir():
        return f"{_listed(opened)}; {models} is not there any more"
    elsewhere = [name for name in opened if not (models / name).exists() and not _MANGLED.search(name)]
    if elsewhere:
        return f"{_listed(elsewhere)}, not in {models}: a bind of yours may lie over it"
    if not _is_of_a_run(models):
        return _listed(opened)
    training = RunFolder(models.parent.parent)
    shipped = _unchanged(models, training.task(None))
    others = [name for name in opened if name.split("/", 1)[0] in shipped]
    trained = [name for name in opened if name not in others]
    if not trained:
        return f"{_listed(others)} alone, which the image had before {training.path.name}"
    beside = f", beside {_listed(others)} of the image" if others else ""
    return f"{_listed(trained)} of {training.path.name}{beside}"


def _is_of_a_run(models: Path) -> bool:
    return models.parts[-2:] == ("output", "models")


def _unchanged(models: Path, files: TaskFolder) -> set[str]:
    """Return the models that the image had before a training and that are as they were, by the time it began."""
    shipped = _shipped(files)
    if not shipped:
        return set()
    began = files.shipped_models.stat().st_mtime
    return {name for name in shipped if all(each.stat().st_mtime <= began for each in _files(models / name))}


def _shipped(files: TaskFolder) -> list[str]:
    """Return the models that the image had before a training; `.gitignore` and its like are none."""
    return [name for name in (read_text(files.shipped_models) or "").splitlines() if not name.startswith(".")]


def _tell_of_shipped(shipped: Sequence[str], unchanged: Collection[str]) -> str:
    """Say whether a training that left no model of its own changed those of its image."""
    changed = [name for name in shipped if name not in unchanged]
    if changed:
        return f"{_listed(changed)} of the image, as the training changed it"
    return f"the training left no model of its own beside those of the image ({_listed(shipped)}), and changed none"


def _files(path: Path) -> Iterator[Path]:
    """Return a file, or the files of a folder."""
    found = path.rglob("*") if path.is_dir() else (path,)
    return (each for each in found if each.is_file())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _choose(
    trained: Sequence[Path], shipped: Sequence[str], description: ModuleDescription | None
) -> tuple[tuple[str, ...], str]:
    if not shipped or not trained:
        return (), ""
    newest = [each.name for each in sorted(trained, key=lambda each: each.stat().st_mtime, reverse=True)]
    others = _listed(shipped)
    for argument in description.predict.arguments if description is not None else ():
        for name in newest:
            meant = next((choice for choice in argument.choices if choice in (name, json.dumps(name))), None)
            if meant is not None:
                words = ("--default", f"{argument.name}={json.dumps(meant)}")
                return words, f"{name} of the training answers ({argument.name}={name}), not {others}"
    told = f"the image has models of its own beside {newest[0]} of the training ({others})"
    return (), f"{told}; which of them answers is the module's own choice"


def check_models(folder: Path, where: str) -> None:
    """Check that there are models which a container can be shown.

    Raises
    ------
    InputError
        There are none, or the path is one that engines do not take.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InputError(f"{where}: there are no models in {folder}", "`deephpc jobs` shows how that run ended")
    check_path(str(folder), where)


def with_models(request: JobRequest, folder: Path) -> JobRequest:
    """Return the request with other models than its image's own (pure).

    Raises
    ------
    InputError
        The module runs natively and finds its models itself.
    """
    if request.options.image.engine == NATIVE:
        raise InputError("--models is for modules in an image", "natively the module itself says where its models lie")
    image = request.options.image.model_copy(update={"models": folder})
    return request.model_copy(update={"options": request.options.model_copy(update={"image": image})})


def surroundings_as_trained(
    request: JobRequest, variables: Mapping[str, str]
) -> tuple[JobRequest, dict[str, str], tuple[str, ...]]:
    """Complete `--env` and `--bind` by those of the training whose models a request takes: by them these are found.

    Returns
    -------
    tuple
        The request, its variables, and what came so: names of variables, and binds.
    """
    models = request.options.image.models
    if models is None:
        return request, dict(variables), ()
    training = RunFolder(models.parent.parent)  # what others wrote is nobody's environment
    then = secret_variables(training) if _is_private(training.secret_env) else {}
    plan = load_plan(training) if _is_private(training.plan) else None
    own = request.options.image.binds
    binds = [bind for bind in (plan.request.options.image.binds if plan else ()) if bind not in own]
    if not then and not binds:
        return request, dict(variables), ()
    completed = {**then, **variables}
    image = request.options.image.model_copy(update={"binds": (*binds, *own)})
    options = request.options.model_copy(update={"variable_names": tuple(sorted(completed)), "image": image})
    added = (*sorted(then.keys() - variables.keys()), *(f"--bind {bind}" for bind in binds))
    return request.model_copy(update={"options": options}), completed, added


def _is_private(file: Path) -> bool:
    try:
        facts = file.lstat()
    except OSError:
        return False
    return facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) & 0o077 == 0


def load_trained_plan(job: Job) -> JobPlan:
    """Return the plan of a run that trained a module.

    Raises
    ------
    InputError
        It has not ended, trained something else, or left no readable plan.
    """
    if job.kind != "train":
        raise InputError(f"run {job.run_id} trained nothing", "name a training run, a module or an image")
    if not job.state.is_final:
        hint = f"wait for it (`deephpc jobs wait {job.run_id}`)"
        raise InputError(f"run {job.run_id} is {job.state.value}: its models are not finished", hint)
    plan = load_plan(job.files)
    if plan is None:
        raise InputError(f"run {job.run_id} has no readable plan in {job.folder}", "name its module or image instead")
    if plan.request.program != "module":
        hint = "a program of your own is served with --command"
        raise InputError(f"run {job.run_id} trained your own program, which says nothing of how it is served", hint)
    return plan


def options_as_trained(plan: JobPlan, asked: JobOptions, models: Path | None) -> JobOptions:
    """Return what was asked, with image, engine and surroundings of a training where nothing else was said (pure)."""
    then = plan.request.options
    engine = plan.engine if asked.image.engine == "auto" else asked.image.engine
    binds = tuple(dict.fromkeys((*then.image.binds, *asked.image.binds)))
    chosen = {"engine": engine, "binds": binds, "models": models, "model": asked.image.model or then.image.model}
    image = asked.image.model_copy(update=chosen)
    surroundings = {
        "modules": asked.modules or then.modules,
        "venv": asked.venv or then.venv,
        "active_venv": then.active_venv,
    }
    return asked.model_copy(update={"image": image, **surroundings})


def image_as_trained(plan: JobPlan) -> str:
    """Return the reference of the very image of a training, whatever its tag or its module names today (pure)."""
    written = plan.request.options.image.reference or plan.request.target
    if plan.container is None:
        return written
    image = parse_target(plan.container.image)
    return str(image.at(plan.container.digest)) if isinstance(image, RegistryImage) else written
