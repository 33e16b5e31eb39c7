"""Brings a run's image to where its job finds it: pull, choose the engine, make it ready, and say what was decided."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import JsonValue

from deephpc.config import Settings
from deephpc.containers.container import Container, check_path
from deephpc.containers.engine import AUTO, NATIVE
from deephpc.containers.layout import is_compressed, open_local
from deephpc.containers.manifest import local_platform
from deephpc.containers.reference import KeptImage, LocalImage, RegistryImage, Target, parse_target
from deephpc.containers.store import Store
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.tags import choose_tag
from deephpc.containers.transfer import Progress
from deephpc.containers.upkeep import find_image
from deephpc.errors import EngineError, InputError
from deephpc.jobs.spec import Resources
from deephpc.workflows.conversion import Workshop, convert
from deephpc.workflows.image import (
    ImagePlaces,
    PullPlan,
    PullRequest,
    PullResult,
    carry_out_pull,
    plan_pull,
    tags_here,
)
from deephpc.workflows.node_engines import (
    Choice,
    EngineQuestion,
    NodeEngines,
    ask_node,
    choose_engine,
    find_udocker,
    load_known,
)
from deephpc.workflows.request import JobRequest

_MODES = ("udocker",)  # words of --engine that leave a choice to what the nodes can


@dataclass(frozen=True, slots=True)
class Enclosed:
    """The image of a run, with the words that start inside."""

    container: Container | None
    """None in a dry run, where too little is known to decide it."""
    words: tuple[str, ...]
    secrets: Mapping[str, JsonValue] = field(default_factory=dict)
    """What stars stand for in the words; it goes to `secrets/arguments.json` alone."""


@dataclass(frozen=True)
class ImageDesk:
    """Where images come from and go to, for one command."""

    settings: Settings
    places: ImagePlaces
    module_image: Callable[[Target], str | None]
    """Asks the catalogue for a module's image."""
    clock: Callable[[], datetime]
    tell: Callable[[str], None]
    progress: Progress | None = None

    @property
    def workshop(self) -> Workshop:
        """Where it makes images ready."""
        return Workshop(self.settings.cache_dir, self.places.environ, self.tell)


def runs_in_image(request: JobRequest) -> bool:
    """Whether a run needs an image (pure).

    Raises
    ------
    InputError
        It is asked to run natively, and has nothing that runs without its image.
    """
    image = request.options.image
    if image.engine != NATIVE:
        if image.reference is None and image.engine != AUTO:
            raise InputError(f"--engine {image.engine} needs an image", "name one with --image, or as the target")
        return image.reference is not None
    if request.program == "image" or (request.program == "own" and image.reference is not None):
        raise InputError("--engine native runs without an image", "leave the image out, or the engine")
    return False


def make_ready(request: JobRequest, desk: ImageDesk) -> Enclosed:
    """Pull the image, choose the engine and convert the image, all on the login node; nothing is done twice.

    Raises
    ------
    EngineError
        The image cannot be had or converted, or no engine works on the nodes.
    InputError
        The reference is wrong, or a path cannot be bound.
    """
    options = request.options.image
    resources = desk.settings.resources(request.options.resources)
    pulled = _pull(request, resources, desk)
    stored = None if pulled.kind == "sif" else find_image(desk.places.store, pulled.digest)
    words = program_words(request, stored)
    choice = _choose(options.engine, resources, desk, is_sif=stored is None)
    desk.tell(f"engine {choice.engine.name}: {choice.reason}")
    if choice.engine.warning:
        desk.tell(f"note: {choice.engine.name}: {choice.engine.warning}")
    container = _decide(request, resources, desk, choice, pulled, stored)
    if not container.prepared.exists() and not options.convert_in_job:
        convert(container, desk.workshop)
    return Enclosed(container, words)


def make_ready_for(word: str, partition: str | None, pulled: PullResult, desk: ImageDesk) -> Container:
    """Make a pulled image ready for an engine before any run asks for it (login node).

    Raises
    ------
    EngineError
        It cannot be converted, or no engine works on the nodes.
    """
    stored = None if pulled.kind == "sif" else find_image(desk.places.store, pulled.digest)
    choice = _choose(word, desk.settings.resources(Resources(partition=partition)), desk, is_sif=stored is None)
    container = _bare(choice, pulled, stored, desk)
    if not container.prepared.exists():
        convert(container, desk.workshop)
    return container


def foresee(request: JobRequest, desk: ImageDesk) -> Enclosed:
    """Return what `make_ready` would decide, from what is known here, for a dry run."""
    options = request.options.image
    resources = desk.settings.resources(request.options.resources)
    target = parse_target(options.reference or "")
    try:
        plan = plan_pull(_pull_request(request, resources), desk.module_image(target))
        if isinstance(plan.image, LocalImage) and plan.image.kind == "sif":
            pulled, stored = carry_out_pull(plan, desk.places, desk.clock()), None
        else:
            stored, image = _find_stored(plan, desk)
            pulled = PullResult(
                name=str(image),
                digest=stored.digest,
                source_digest=stored.source_digest,
                size_bytes=stored.size_bytes,
                fetched_bytes=0,
                path=stored.layout_dir,
            )
        known = load_known(_question(resources, desk), desk.clock())
        if known is None and options.engine in (AUTO, *_MODES):
            return Enclosed(None, program_words(request, stored))
        choice = choose_engine(options.engine, known, is_sif=stored is None)
    except EngineError:
        return Enclosed(None, request.command)
    return Enclosed(_decide(request, resources, desk, choice, pulled, stored), program_words(request, stored))


def program_words(request: JobRequest, stored: StoredImage | None) -> tuple[str, ...]:
    """Return the words that start inside: the request's own, or as docker has it entrypoint and arguments (pure).

    Raises
    ------
    InputError
        Neither the user nor the image says what to start.
    """
    if request.program != "image":
        return request.command
    if stored is None:
        if not request.command:
            raise InputError(f"what {request.target} starts is not known of a SIF", "give a command behind `--`")
        return request.command
    process = stored.config.process
    words = (*process.entrypoint, *(request.command or process.cmd))
    if not words:
        raise InputError(f"{request.target} does not say what it starts", "give a command behind `--`")
    return words


def _find_stored(plan: PullPlan, desk: ImageDesk) -> tuple[StoredImage, RegistryImage | LocalImage | KeptImage]:
    """Return the image of a plan that is here; where a run would choose the tag, of the tags that are here."""
    image = plan.image
    if isinstance(image, RegistryImage) and plan.chooses_tag:
        here = tags_here(desk.places.store, image)
        repository = f"{image.registry}/{image.repository}"
        choice = choose_tag(sorted(here), for_gpus=plan.request.for_gpus, repository=repository, here=here)
        if plan.request.for_gpus and choice.tag == "cpu":
            raise EngineError(f"which tags {repository} has is not known here", "pull the image first")
        desk.tell(f"{plan.why}; {choice.why}")
        return here[choice.tag], image.model_copy(update={"tag": choice.tag})
    if isinstance(image, LocalImage):
        return _find_brought(image, desk.places.store), image
    named = image.digest if isinstance(image, RegistryImage) and image.digest else str(image)
    return find_image(desk.places.store, named), image


def _find_brought(image: LocalImage, store: Store) -> StoredImage:
    """Return what was brought from a file or folder: by where that lies, or by what it holds, as it may have a name."""
    try:
        return find_image(store, str(image))
    except EngineError:
        if image.path.is_file() and (not os.access(image.path, os.R_OK) or is_compressed(image.path)):
            raise  # what is compressed would have to be written somewhere
        with open_local(image, store.root) as source:
            return find_image(store, source.resolve().digest)


def _pull_request(request: JobRequest, resources: Resources) -> PullRequest:
    options = request.options.image
    return PullRequest(
        target=parse_target(options.reference or ""),
        platform=local_platform(),
        for_gpus=bool(resources.gpus_per_node),
        locked=options.locked,
    )


def _pull(request: JobRequest, resources: Resources, desk: ImageDesk) -> PullResult:
    asked = _pull_request(request, resources)
    plan = plan_pull(asked, desk.module_image(asked.target))
    pulled = carry_out_pull(plan, desk.places, desk.clock(), desk.progress)
    if pulled.why:
        desk.tell(pulled.why)
    return pulled


def _question(resources: Resources, desk: ImageDesk) -> EngineQuestion:
    return EngineQuestion(desk.settings, resources.partition, desk.places.environ)


def _choose(word: str, resources: Resources, desk: ImageDesk, *, is_sif: bool) -> Choice:
    known = load_known(_question(resources, desk), desk.clock())
    if known is None:
        leaves_choice = word in (AUTO, *_MODES)
        return _with_udocker(choose_engine(word, _ask(resources, desk) if leaves_choice else None, is_sif=is_sif))
    try:
        return _with_udocker(choose_engine(word, known, is_sif=is_sif))
    except EngineError:  # what was kept may be old: the site may have mended it since
        return _with_udocker(choose_engine(word, _ask(resources, desk), is_sif=is_sif))


def _ask(resources: Resources, desk: ImageDesk) -> NodeEngines:
    question = _question(resources, desk)
    partition = resources.partition or "the default partition"
    if desk.settings.scheduler != "local":
        desk.tell(f"asking a node of {partition} which engines work there (kept; at most {question.wait_s} s)")
    return ask_node(question, desk.clock())


def _with_udocker(choice: Choice) -> Choice:
    """Name udocker by its path, where nobody else has: jobs do not have deephpc's own programs on PATH."""
    is_bare = choice.engine.program == choice.command == "udocker"
    return replace(choice, command=find_udocker() or choice.command) if is_bare else choice


def _decide(
    request: JobRequest,
    resources: Resources,
    desk: ImageDesk,
    choice: Choice,
    pulled: PullResult,
    stored: StoredImage | None,
) -> Container:
    """Put together what was decided (pure)."""
    options, settings = request.options.image, desk.settings
    is_own = request.program == "own"
    binds = (*options.binds, *((f"{request.workdir}:{request.workdir}",) if is_own else ()))
    for path in (settings.work_dir, *((request.workdir,) if is_own else ())):
        check_path(str(path), "the path of the run" if path == settings.work_dir else "the current folder")
    partition = settings.site.partitions.get(resources.partition or settings.site.default_partition or "")
    return _bare(choice, pulled, stored, desk).model_copy(
        update={
            "binds": binds,
            "usual_binds": settings.binds,
            "is_module": request.program == "module",
            "keeps_folders": request.kind == "train",
            "models": options.models,
            "stages_image": options.stage_image,
            "gpus": resources.gpus_per_node or 0,
            "gpu_vendor": (partition.gpu_vendor if partition else None) or "",
            **({"workdir": str(request.workdir)} if is_own else {}),
        }
    )


def _bare(choice: Choice, pulled: PullResult, stored: StoredImage | None, desk: ImageDesk) -> Container:
    """Return what an image and an engine make, whatever runs there (pure)."""
    cache_dir = desk.settings.cache_dir
    process = stored.config.process if stored else None
    return Container(
        engine=choice.engine.name,
        engine_command=choice.command,
        reason=choice.reason,
        image=pulled.name,
        digest=pulled.digest,
        prepared=choice.engine.prepared_path(cache_dir, pulled.digest) if stored else pulled.path,
        layout_dir=stored.layout_dir if stored else None,
        cache_dir=cache_dir,
        environment=process.env if process else (),
        workdir=(process.working_dir if process else "") or "/",
    )
