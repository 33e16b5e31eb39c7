"""The story of `serve start` up to its submission: what is served, from which image, with which models and sample."""

import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from deephpc.containers.container import JUPYTER_SERVER, Container
from deephpc.errors import InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.spec import Environment
from deephpc.serve.endpoint import ServiceKind
from deephpc.serve.module_arguments import find_argument, parse_pairs
from deephpc.serve.module_description import Argument, ModuleDescription
from deephpc.serve.service import Service
from deephpc.workflows.in_image import ImageDesk
from deephpc.workflows.look_inside import has_program
from deephpc.workflows.request import (
    JobOptions,
    JobRequest,
    checked_words,
    load_module_request,
    load_run_request,
    selecting_words,
)
from deephpc.workflows.trained import (
    Answering,
    check_models,
    choose_answering,
    find_models,
    image_as_trained,
    load_trained_plan,
    models_of,
    options_as_trained,
    with_models,
)

_SOCKET_VARIABLE = "DEEPHPC_SOCKET"
_SAMPLES = "samples"
_TRAINED = "train-"


@dataclass(frozen=True, slots=True)
class ServeWords:
    """What was written on the command line."""

    target: str | None
    service: ServiceKind | None = None
    command: str | None = None
    """The user's own server, as one would write it in a shell."""
    port_variable: str | None = None
    models: str | None = None
    samples: tuple[str, ...] = ()
    predicts_first: bool = True
    ready_within_s: float | None = None
    idle_stop_s: float | None = None


@dataclass(frozen=True, slots=True)
class ServePlan:
    """A server, decided: its request, and the files that go with it."""

    request: JobRequest
    copies: dict[str, Path]
    """Path in the run folder → file of the user's."""
    answering: Answering
    """Which model answers."""


def load_serve_request(asked: ServeWords, cwd: Path, options: JobOptions, record: Record | None) -> JobRequest:
    """Take a module, an image with one in it, or a training run, whose image and models are served then.

    Of Jupyter and of the user's own command the target is the image; without one they run natively.

    Raises
    ------
    InputError
        The target is none of these, the run left nothing to serve, or options contradict each other.
    """
    kind = _checked_kind(asked)
    if kind == "command":
        request = _of_command(asked, cwd, options)
    elif kind == "jupyter":
        request = _of_jupyter(asked.target, cwd, options)
    else:
        request = _of_module(asked, cwd, options, record)
    said = {
        "ready_within_s": asked.ready_within_s,
        "idle_stop_s": asked.idle_stop_s,
        "port_variable": asked.port_variable,
    }
    given = {name: value for name, value in said.items() if value is not None}
    try:
        service = Service.model_validate({"kind": kind, "predicts_first": asked.predicts_first, **given})
    except ValidationError as error:
        raise InputError(f"--port-env {asked.port_variable!r} is not a variable's name", "write PORT") from error
    return request.model_copy(update={"service": service})


def check_jupyter(request: JobRequest, usual: Environment, search_path: str) -> str:
    """Look for the Jupyter of a server that runs natively and loads nothing; return what is to be noted.

    Parameters
    ----------
    usual
        What every job's shell sets up.
    search_path
        PATH, which jobs take over.

    Raises
    ------
    InputError
        Neither the virtual environment that was chosen nor the path has one.
    """
    options = request.options
    if request.service is None or request.service.kind != "jupyter" or options.image.reference is not None:
        return ""
    if options.modules or usual.modules or usual.setup:
        return ""
    venv = options.venv or usual.venv or options.active_venv
    if shutil.which("jupyter", path=f"{venv}/bin:{search_path}" if venv else search_path) is not None:
        return ""
    if venv is None:
        return "PATH has no Jupyter here; the job finds one only if its node has it"
    raise InputError(
        f"neither {venv} nor PATH has a Jupyter",
        "`pip install jupyterlab` there; or load modules with --module, or name an image that has one",
    )


def check_program_inside(request: JobRequest, container: Container, desk: ImageDesk, variables: Iterable[str]) -> str:
    """Look in its image, where this machine can, for what serves there and is no module; return what is to be noted.

    Raises
    ------
    InputError
        The image has none, and nothing else can bring it.
    """
    if request.service is None or request.service.kind == "deepaas":
        return ""
    program = "jupyter" if request.service.kind == "jupyter" else request.command[0]
    if has_program(container, desk, program) is not False:
        return ""
    missing = f"{container.image} has no {program}"
    if "PATH" in variables or request.options.image.binds:
        return f"{missing} on its PATH; the job finds one only if your --bind or --env brings it"
    raise InputError(missing, "name an image that has one; or bring it with --bind and --env PATH=…")


def plan_service(request: JobRequest, asked: ServeWords, description: ModuleDescription | None, cwd: Path) -> ServePlan:
    """Complete a server's request by what its module says of itself, and by the sample for its first prediction.

    Raises
    ------
    InputError
        The module does not predict, or the sample is not one for it.
    """
    if description is not None and not description.predict.exists:
        raise InputError(f"the module {description.served} cannot predict", "`deephpc train` may know more to do")
    declared = None if description is None else description.predict.arguments
    sample, copies = _plan_sample(asked.samples, declared, cwd)
    model = None if description is None else description.served
    service = (request.service or Service()).model_copy(update={"sample": sample, "model": model})
    answering = choose_answering(request.options.image.models, description)
    command = (*request.command, *answering.words)
    return ServePlan(request.model_copy(update={"service": service, "command": command}), copies, answering)


def kept_copies(job: Job) -> dict[str, Path]:
    """Return the files that go with a server when it is started again: those that lie in its run folder."""
    folder = job.folder / _SAMPLES
    return {str(path.relative_to(job.folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _checked_kind(asked: ServeWords) -> ServiceKind:
    """Return what is served; of options that belong to another kind, say so."""
    kind: ServiceKind = asked.service or ("deepaas" if asked.command is None else "command")
    if (kind == "command") is not (asked.command is not None):
        told = "needs --command" if kind == "command" else f"cannot be: --service {kind} has a command of its own"
        raise InputError(f"--service command {told}" if kind == "command" else f"--command {told}", "leave one out")
    for option, given in (("--sample", asked.samples), ("--models", asked.models)):
        if kind != "deepaas" and given:
            raise InputError(f"{option} is for modules, not for --service {kind}", "leave it out")
    if kind != "command" and asked.port_variable is not None:
        raise InputError(f"--port-env is for --command, not for --service {kind}", "leave it out")
    return kind


def _of_command(asked: ServeWords, cwd: Path, options: JobOptions) -> JobRequest:
    """Return the request of a user's own server, natively or in an image."""
    try:
        words = shlex.split(asked.command or "")
    except ValueError as error:
        raise InputError(f"--command {asked.command!r}: {error}", "quote it as in a shell") from error
    if not words:
        raise InputError("--command is empty", "write --command 'python app.py'")
    for name in (asked.port_variable, _SOCKET_VARIABLE):
        if name and any(word in (f"${name}", f"${{{name}}}") for word in words):
            raise InputError(
                f"--command: no shell puts the value of ${name} there", "write --command \"sh -c 'exec …'\""
            )
    return load_run_request(words, cwd, options, asked.target).model_copy(update={"kind": "serve"})


def _of_jupyter(target: str | None, cwd: Path, options: JobOptions) -> JobRequest:
    """Return the request of Jupyter in the current folder, natively or in an image that has it."""
    image = options.image.model_copy(update={"reference": target})
    request = load_run_request(["/bin/sh", JUPYTER_SERVER], cwd, options.model_copy(update={"image": image}))
    return request.model_copy(update={"kind": "serve", "target": target or "jupyter"})


def _of_module(asked: ServeWords, cwd: Path, options: JobOptions, record: Record | None) -> JobRequest:
    if asked.target is None:
        raise InputError("there is nothing to serve", "name a module, an image or a training run")
    job = _trained_run(asked.target, record)
    request = _of_target(asked.target, cwd, options) if job is None else _of_run(job, cwd, options)
    if asked.models is not None:
        request = with_models(request, find_models(asked.models, record, cwd))
    return request


def _trained_run(target: str, record: Record | None) -> Job | None:
    """Return the training run that a target names; None when it names a module or an image."""
    if record is None or not target.startswith(_TRAINED):
        return None
    return record.resolve(target)[0]


def _of_target(target: str, cwd: Path, options: JobOptions) -> JobRequest:
    return load_module_request("serve", target, (), cwd, options)


def _of_run(job: Job, cwd: Path, options: JobOptions) -> JobRequest:
    plan = load_trained_plan(job)
    models = models_of(job) if plan.container is not None else None  # natively the module knows where they lie
    if models is not None:
        check_models(models, job.run_id)
    name = options.name or plan.request.slug
    asked = options_as_trained(plan, options.model_copy(update={"name": name}), models)
    request = _of_target(image_as_trained(plan), cwd, asked)
    words = selecting_words(plan.request.target, asked.image)
    return request.model_copy(
        update={"target": plan.request.target, "command": (*request.command[:2], *checked_words(words))}
    )


def _plan_sample(
    samples: Sequence[str], declared: Sequence[Argument] | None, cwd: Path
) -> tuple[tuple[tuple[str, str], ...], dict[str, Path]]:
    """Return the sample as the gateway reads it, and the files to copy for that.

    Where the module's arguments are not known yet, a value that names a file is one.
    """
    copies: dict[str, Path] = {}
    pairs: list[tuple[str, str]] = []
    for text in samples:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--sample {text!r} is not NAME=VALUE", "write --sample image=cell.jpg")
        path = (cwd / Path(value).expanduser()).absolute()
        is_file = path.is_file() if declared is None else find_argument(name, declared, "--sample ").type == "file"
        if is_file:
            if not path.is_file():
                raise InputError(f"--sample {text!r}: there is no file {path}", "check the path")
            value = f"{_SAMPLES}/{len(pairs)}/{path.name}"
            copies[value] = path
        pairs.append((name, value))
    if declared is not None and pairs:
        parse_pairs(pairs, declared, "--sample ", cwd=cwd)
    return tuple(pairs), copies
