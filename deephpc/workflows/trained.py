"""Finds what a training run left for others to use: its models, and the image and module they belong to."""

from pathlib import Path

from deephpc.containers.container import check_path
from deephpc.containers.engine import NATIVE
from deephpc.containers.reference import RegistryImage, parse_target
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.workflows.plan import JobPlan, load_plan
from deephpc.workflows.request import JobOptions, JobRequest


def find_models(models: str, record: Record | None, cwd: Path) -> Path:
    """Return the folder that `--models RUN|DIR` names.

    Raises
    ------
    InputError
        It is neither a folder nor a run, or there are no models in it.
    """
    folder = (cwd / models).absolute()
    if not folder.is_dir():
        if record is None:
            raise InputError(f"--models {models}: there is no such folder, and no run is recorded", "check the name")
        folder = models_of(record.resolve(models)[0])
    check_models(folder, f"--models {models}")
    return folder


def models_of(job: Job) -> Path:
    """Return the folder in which a training of a module left its models."""
    return job.folder / "output" / "models"


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
