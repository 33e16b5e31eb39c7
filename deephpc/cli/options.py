"""The options `train` and `run` share, written once: a field is an option, its metadata the help.

`takes_job_options` gives a command all of them and hands it one `JobOptionWords` value.
"""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from deephpc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deephpc.containers.container import ImageOptions
    from deephpc.jobs.spec import Mail, Resources
    from deephpc.workflows.request import JobOptions

Text = str | None
Number = int | None
_Parsed = TypeVar("_Parsed")
_GPUS = re.compile(r"(?:([^:]+):)?([0-9]{1,6})")
_GRACE = re.compile(r"(?:B:)?(?:(?:SIG)?USR1@|10@)?([0-9]{1,6})", re.IGNORECASE)


#: Options that are not called as the field of Resources they fill.
_OPTIONS = {"memory_mib": "--mem", "gpu_type": "--gpus-per-node"}


def _option(*names: str, help: str, **more: Any) -> Any:  # noqa: ANN401 - as typer.Option
    return typer.Option(*names, help=help, show_default=False, **more)


@dataclass(frozen=True)
class JobOptionWords:
    """What was written on the command line, before it is checked."""

    nodes: Annotated[Number, _option(help="Nodes to allocate.")] = None
    gpus_per_node: Annotated[Text, _option(help="GPUs on each node, such as 4 or a100:4.", metavar="[TYPE:]N")] = None
    tasks_per_node: Annotated[Number, _option(help="Tasks on each node.")] = None
    cpus_per_task: Annotated[Number, _option(help="Cores for each task.")] = None
    mem: Annotated[Text, _option(help="Memory on each node, such as 16G; 0 is all of it.", metavar="SIZE")] = None
    time: Annotated[Text, _option("--time", "-t", help="Time limit: 30 (minutes), 2:00:00, 1-12 (days-hours).")] = None
    partition: Annotated[Text, _option("--partition", "-p", help="Partition to run in.")] = None
    account: Annotated[Text, _option("--account", "-A", help="Account (project) to charge.")] = None
    qos: Annotated[Text, _option(help="Quality of service.")] = None
    constraint: Annotated[Text, _option("--constraint", "-C", help="Node features the job needs.")] = None
    exclusive: Annotated[bool, _option("--exclusive", help="Share no node with other jobs.")] = False
    array: Annotated[Text, _option(help="Run once per number: 0-9, 1,3,7, 0-99%10 (ten at once).", metavar="TASKS")] = (
        None
    )
    dependency: Annotated[
        Text,
        _option(help="Wait for runs: afterok:RUN[:RUN…], afterany, afternotok, after, aftercorr.", metavar="KIND:RUN"),
    ] = None
    max_requeues: Annotated[
        Number,
        _option(
            help="How often to start again what a node or preemption ended, or exit code 75 too soon (3 if unset).",
            min=0,
            max=100,
        ),
    ] = None
    chain: Annotated[
        bool, _option("--chain", help="After exit code 75 go on in a new job, where the cluster queues none again.")
    ] = False
    grace: Annotated[
        Text,
        _option(
            "--grace",
            "--signal",
            help="Seconds before the limit at which the program gets SIGUSR1 (60 if the settings say nothing).",
            metavar="SECONDS",
        ),
    ] = None
    mail_user: Annotated[Text, _option(help="Address the scheduler writes to.")] = None
    mail_type: Annotated[Text, _option(help="Of what: BEGIN,END,FAIL,REQUEUE,TIME_LIMIT,ALL.", metavar="EVENTS")] = None
    sbatch: Annotated[
        list[str] | None,
        _option(help="Options passed to sbatch as they are, such as '--reservation=course'.", metavar="RAW"),
    ] = None
    env: Annotated[
        list[str] | None, _option(help="Variable for the job: NAME=VALUE, or NAME to take it from here.", metavar="K=V")
    ] = None
    env_file: Annotated[Path | None, _option(help="File of NAME=VALUE lines.")] = None
    venv: Annotated[Text, _option(help="Python virtual or conda environment to activate.", metavar="FOLDER")] = None
    module: Annotated[
        list[str] | None, _option(help="Environment module to load instead of the site's; repeatable.")
    ] = None
    launcher: Annotated[
        Text,
        _option(
            help="How ranks start, --tasks-per-node on each node: auto (by imports), none, srun, horovod, torchrun.",
            metavar="LAUNCHER",
        ),
    ] = None
    name: Annotated[Text, _option(help="Middle of the run's id; from the target otherwise.")] = None
    image: Annotated[
        Text,
        _option(help="Image or module to run the program in; with the current folder visible there.", metavar="REF"),
    ] = None
    model: Annotated[Text, _option(help="Which module of an image that has several.", metavar="NAME")] = None
    engine: Annotated[
        Text,
        _option(help="auto (what works on the nodes), native, apptainer, singularity, udocker or one of its modes."),
    ] = None
    bind: Annotated[
        list[str] | None, _option(help="Folder or file to show inside the image; repeatable.", metavar="SRC[:DST][:ro]")
    ] = None
    data: Annotated[
        list[str] | None,
        _option(help="Data set to stage for the job, seen as DEEPHPC_DATA_DIR/NAME; repeatable.", metavar="SRC[:NAME]"),
    ] = None
    collect: Annotated[
        Text, _option(help="Where results go when the job ends, however it ends: into URL/ID.", metavar="URL")
    ] = None
    stage_image: Annotated[bool, _option("--stage-image", help="Copy the image to the nodes' own disks first.")] = False
    convert_in_job: Annotated[
        bool, _option("--convert-in-job", help="Convert the image for its engine in the job, not on this machine.")
    ] = False
    locked: Annotated[bool, _option("--locked", help="Refuse an image other than ./deephpc.lock says.")] = False


def takes_job_options(command: Callable[..., None], only: Collection[str] = ()) -> Callable[..., None]:
    """Give a Typer command the options of JobOptionWords; its parameter `words` receives them as one value.

    Parameters
    ----------
    only
        Fields of the options wanted; empty for all.
    """
    wanted = [f for f in fields(JobOptionWords) if not only or f.name in only]
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "words"]
    hints = get_type_hints(JobOptionWords, include_extras=True)
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in wanted
    ]

    @functools.wraps(command)
    def wrapper(*args: Any, **values: Any) -> None:  # noqa: ANN401 - the command's own and ours
        words = JobOptionWords(**{f.name: values.pop(f.name) for f in wanted})
        command(*args, words=words, **values)

    keyword_own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    wrapper.__signature__ = inspect.Signature([*keyword_own, *shared])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*keyword_own, *shared)}
    del wrapper.__wrapped__
    return wrapper


def load_options(
    words: JobOptionWords, environ: "Mapping[str, str]", cwd: Path, pass_env: "Sequence[str]" = ()
) -> "tuple[JobOptions, dict[str, str]]":
    """Check the options and return them, and the values of --env beside them, which no plan may hold.

    Parameters
    ----------
    pass_env
        The setting: variables that are given as if by --env.

    Raises
    ------
    InputError
        A value is not what its option takes; the message names both.
    """
    from deephpc.data.data_source import read_data_sources, read_destination
    from deephpc.data.surroundings import Surroundings
    from deephpc.jobs.launcher import parse_launcher
    from deephpc.jobs.slurm_ids import parse_array
    from deephpc.jobs.slurm_options import check_raw_options
    from deephpc.workflows.passed_on import chosen_names, loaded_modules
    from deephpc.workflows.request import (
        JobOptions,
        checked_name,
        environment_variables,
        find_active_venv,
        load_variables,
    )

    around = Surroundings(environ, Path(environ["HOME"]), cwd)
    usual = load_variables(chosen_names(environ, pass_env), None, environ)
    venv, active_venv = _venv(words.venv, cwd), find_active_venv(environ)
    given = load_variables(words.env or (), words.env_file, environ)
    variables = {**environment_variables(venv or active_venv), **usual, **given}
    options = JobOptions(
        resources=_resources(words),
        array=_checked("--array", words.array, parse_array),
        dependency=words.dependency or "",
        max_requeues=words.max_requeues,
        chain=words.chain,
        grace=_checked("--grace", words.grace, _grace),
        mail=_mail(words),
        raw_options=check_raw_options(words.sbatch or ()),
        variable_names=tuple(sorted(variables)),
        modules=_modules(words.module or ()),
        loaded_modules=loaded_modules(environ),
        has_modules="MODULESHOME" in environ,
        venv=venv,
        active_venv=active_venv,
        name=checked_name(words.name),
        launcher=_checked("--launcher", words.launcher, parse_launcher),
        image=_image(words, cwd),
        data=read_data_sources(words.data or (), around),
        collect=None if words.collect is None else read_destination(words.collect, around),
    )
    return options, variables


def _resources(words: JobOptionWords) -> "Resources":
    from deephpc.jobs.slurm_units import parse_memory, parse_walltime

    gpu_type, gpus = _checked("--gpus-per-node", words.gpus_per_node, _gpus) or (None, None)
    limit = _checked("--time", words.time, parse_walltime)
    if words.time and limit is None:
        raise InputError(
            "--time UNLIMITED: every job needs a limit here", "give the longest you can wait for, such as 7-0"
        )
    return _parse_resources(
        {
            "nodes": words.nodes,
            "tasks_per_node": words.tasks_per_node,
            "cpus_per_task": words.cpus_per_task,
            "gpus_per_node": gpus,
            "gpu_type": gpu_type,
            "memory_mib": _checked("--mem", words.mem, parse_memory),
            "walltime": limit,
            "partition": words.partition,
            "account": words.account,
            "qos": words.qos,
            "constraint": words.constraint,
            "exclusive": words.exclusive or None,
        }
    )


def _parse_resources(values: dict[str, object]) -> "Resources":
    """Return the resources, or say which option has which bad value."""
    from pydantic import ValidationError

    from deephpc.jobs.spec import Resources

    try:
        return Resources.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{option} {first['input']!r}: {message}", "see `deephpc train --help`") from error


def _mail(words: JobOptionWords) -> "Mail | None":
    from pydantic import ValidationError

    from deephpc.jobs.spec import Mail

    if not words.mail_user:
        if words.mail_type:
            raise InputError("--mail-type says of what, but not whom to write to", "add --mail-user ADDRESS")
        return None
    events = tuple(word.strip().upper() for word in words.mail_type.split(",")) if words.mail_type else ("END", "FAIL")
    try:
        return Mail.model_validate({"address": words.mail_user, "events": events})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--mail-user" if first["loc"][0] == "address" else "--mail-type"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{option} {first['input']!r}: {message}", "see `deephpc train --help`") from error


def _image(words: JobOptionWords, cwd: Path) -> "ImageOptions":
    from deephpc.containers.container import ImageOptions, parse_bind
    from deephpc.workflows.node_engines import checked_engine

    return ImageOptions(
        reference=words.image,
        model=words.model,
        engine=checked_engine(words.engine or "auto"),
        binds=tuple(parse_bind(text, cwd) for text in words.bind or ()),
        stage_image=words.stage_image,
        convert_in_job=words.convert_in_job,
        locked=cwd / "deephpc.lock" if words.locked else None,
    )


def _modules(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"[!-~]+", name) or name.startswith("-"):
            raise InputError(
                f"--module {name!r} is not a module's name", "`module avail` lists them; give one each time"
            )
    return tuple(names)


def _venv(folder: str | None, cwd: Path) -> Path | None:
    if folder is None:
        return None
    path = cwd / Path(folder).expanduser()
    if not folder or not ((path / "bin" / "activate").is_file() or (path / "conda-meta").is_dir()):
        raise InputError(
            f"--venv {folder!r} is not a Python virtual environment, nor a conda one",
            "make one with `python3 -m venv FOLDER`",
        )
    return path


def _checked(option: str, text: str | None, parse: Callable[[str], _Parsed]) -> _Parsed | None:
    """Parse the text of an option; None stays None."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}", "see `deephpc train --help`") from error


def _grace(text: str) -> timedelta:
    from deephpc.jobs.slurm_options import MOST_SIGNAL_SECONDS

    match = _GRACE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number of seconds (or USR1@SECONDS)")
    if int(match[1]) > MOST_SIGNAL_SECONDS:
        raise ValueError(f"{text!r} is beyond {MOST_SIGNAL_SECONDS} seconds, the longest there is")
    return timedelta(seconds=int(match[1]))


def _gpus(text: str) -> tuple[str | None, int]:
    match = _GPUS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number of GPUs, such as 4 or a100:4")
    return match[1], int(match[2])
