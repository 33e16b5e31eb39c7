"""What the user asked for, checked once and frozen: JobRequest, and how it is loaded from arguments and files."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from deephpc.containers.container import MODULE_PROGRAM, MODULE_SERVER, ImageOptions
from deephpc.containers.reference import LocalImage, ModuleImage, parse_target
from deephpc.data.data_source import DataSource
from deephpc.errors import InputError
from deephpc.jobs.spec import Array, JobKind, LauncherName, Mail, Resources
from deephpc.model import Model
from deephpc.serve.service import Service
from deephpc.workflows.conda import conda_variables, is_conda

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables that bash lets nobody set.
_SHELLS_OWN = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
_ENTRY_POINTS = ("train.py", "__main__.py", "main.py")


class JobOptions(Model):
    """Everything one run may be told on the command line beyond its program."""

    resources: Resources = Resources()
    array: Array | None = None
    dependency: str = ""
    """As written: `afterok:RUN[:RUN…][,afterany:RUN…]`."""
    max_requeues: int | None = None
    chain: bool = False
    """Whether it goes on in a successor of its job, where its program asks to be continued."""
    grace: timedelta | None = None
    mail: Mail | None = None
    raw_options: tuple[str, ...] = ()
    """The user's own scheduler options, checked, one word each."""
    variable_names: tuple[str, ...] = ()
    """Names of the variables given with --env; their values never enter a plan."""
    modules: tuple[str, ...] = ()
    loaded_modules: tuple[str, ...] = ()
    """The modules loaded in the submitting shell; loaded anew where neither the user nor the settings name any."""
    has_modules: bool = False
    """Whether that shell knew `module`."""
    venv: Path | None = None
    active_venv: Path | None = None
    """The environment active in the submitting shell; used where neither the user nor the settings name one."""
    name: str | None = None
    launcher: LauncherName | None = None
    """How the ranks are started; None for one process."""
    image: ImageOptions = ImageOptions()
    data: tuple[DataSource, ...] = ()
    """Data sets that the job finds in `DEEPHPC_DATA_DIR`."""
    collect: str | None = None
    """Where its results go when it ends: a path, a URL or REMOTE:PATH, without credentials."""


class JobRequest(Model):
    """One run, as asked for."""

    kind: JobKind
    target: str
    """What is run, as the user wrote it."""
    program: Literal["own", "module", "image"] = "own"
    """Whose program it is: the user's own files, the DEEPaaS module in an image, or what the image starts."""
    command: tuple[str, ...]
    """Its words; of an image's program what follows its entrypoint, in place of its own arguments."""
    workdir: Path
    """Where an own program runs, absolute; where the command was given."""
    options: JobOptions = JobOptions()
    batch: str = ""
    """Digest of the inputs of a batch of predictions: what makes the same command another request."""
    service: Service | None = None
    """What the program serves; None for one that is no server."""

    @property
    def slug(self) -> str:
        """The middle of the run's id: the user's name for it, or the target's."""
        if self.options.name:
            return self.options.name
        if self.program != "own":
            stem = self.target.partition("@")[0].rpartition("/")[2].partition(":")[0].removesuffix(".sif")
        else:
            path = Path(self.target)
            stem = path.parent.name if path.name in _ENTRY_POINTS and path.parent.name else path.stem
        return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:24].strip("-") or "job"

    def changed(self, asked: JobOptions) -> "JobRequest":
        """Return the request with the resources and requeues that were asked for anew; all else stays."""
        said = asked.resources.model_dump(exclude_none=True)
        if "gpus_per_node" in said:  # one option says number and type
            said.setdefault("gpu_type", None)
        update: dict[str, object] = {"resources": self.options.resources.model_copy(update=said)}
        if asked.max_requeues is not None:
            update["max_requeues"] = asked.max_requeues
        return self.model_copy(update={"options": self.options.model_copy(update=update)})

    def of_tasks(self, tasks: Sequence[int] | None) -> "JobRequest":
        """Return the request for some tasks of its array alone, under their own numbers (None: as it is)."""
        if tasks is None or self.options.array is None:
            return self
        array = self.options.array.model_copy(update={"tasks": tuple(sorted(tasks))})
        return self.model_copy(update={"options": self.options.model_copy(update={"array": array})})

    def fingerprint(self, site: str, work_dir: Path) -> str:
        """Return a hash that equal requests on one site share."""
        text = "\0".join((site, str(work_dir), self.model_dump_json()))
        return hashlib.sha256(text.encode()).hexdigest()


def load_train_request(target: str, arguments: Sequence[str], cwd: Path, options: JobOptions) -> JobRequest:
    """Find the program a training target names: a Python file, or a project folder with an entry point.

    Raises
    ------
    InputError
        There is no such file, or nothing in it to run.
    """
    if not target:
        raise InputError("the target is empty", "give a module, an image, a path to a .py file or to a folder")
    path = (_checked_workdir(cwd) / target).absolute()
    if not path.exists() and _may_be_image(target):
        return load_module_request("train", target, ("train", "--", *arguments), cwd, options)
    if path.is_file():
        if path.suffix == ".sif":
            return load_module_request("train", target, ("train", "--", *arguments), cwd, options)
        if path.suffix != ".py":
            raise InputError(f"{target!r} is not a Python file", "use `deephpc run -- CMD…` for any other program")
        program, workdir = path, cwd
    elif path.is_dir():
        program, workdir = _entry_point(path, target), path
    else:
        raise InputError(
            f"{target!r} is neither a Python file nor a project folder here",
            "check the path; an image in a registry is written docker://…",
        )
    _check_no_model(options)
    command = ("python3", str(program), *arguments)
    return JobRequest(kind="train", target=target, command=checked_words(command), workdir=workdir, options=options)


def load_module_request(kind: JobKind, target: str, words: Sequence[str], cwd: Path, options: JobOptions) -> JobRequest:
    """Take a module of the catalogue, or an image with one in it; `words` are for the program that drives modules.

    Raises
    ------
    InputError
        The target is no form of an image, or --image names a second one.
    """
    program = MODULE_SERVER if kind == "serve" else MODULE_PROGRAM
    verb, rest = (words[:1], words[1:]) if program == MODULE_PROGRAM else ((), words)
    command = checked_words(("python3", program, *verb, *selecting_words(target, options.image), *rest))
    return JobRequest(
        kind=kind,
        target=target,
        program="module",
        command=command,
        workdir=_checked_workdir(cwd),
        options=_with_image(options, target, cwd),
    )


def _check_no_model(options: JobOptions) -> None:
    """Refuse to choose a module where there is none.

    Raises
    ------
    InputError
        One was asked for.
    """
    if options.image.model is not None:
        raise InputError(f"--model {options.image.model} is for modules, not for a program of your own", "leave it out")


def selecting_words(target: str, image: ImageOptions) -> tuple[str, ...]:
    """Return the words that say which module of an image is meant: that asked for, or the catalogue's (pure)."""
    if image.model is not None:
        return ("--model", image.model)
    found = parse_target(target)
    return ("--expect", found.module) if isinstance(found, ModuleImage) else ()


def load_run_request(command: Sequence[str], cwd: Path, options: JobOptions, target: str | None = None) -> JobRequest:
    """Take any command; with a target what its image starts, which may need no command.

    Raises
    ------
    InputError
        There is none, or the target is no image.
    """
    _check_no_model(options)
    if target is not None:
        return JobRequest(
            kind="run",
            target=target,
            program="image",
            command=checked_words(command),
            workdir=_checked_workdir(cwd),
            options=_with_image(options, target, cwd),
        )
    if not command or not command[0]:
        raise InputError(
            "no command was given", "write it behind `--`: deephpc run --time 10 -- ./simulate --steps 100"
        )
    return JobRequest(
        kind="run", target=command[0], command=checked_words(command), workdir=_checked_workdir(cwd), options=options
    )


def checked_name(name: str | None) -> str | None:
    """Check the name of a run: it becomes a folder, a job name and a word people type.

    Raises
    ------
    InputError
        The name has other characters than letters, digits, dot, dash and underscore, or is too long.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a run",
            "use up to 40 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    return name


def checked_words(words: Sequence[str]) -> tuple[str, ...]:
    """Check that words survive being written down: valid UTF-8, no NUL.

    Raises
    ------
    InputError
        A word is not valid UTF-8 text.
    """
    for number, word in enumerate(words):
        if not _is_text(word):
            raise InputError(
                f"argument {number} ({word!r}) is not valid UTF-8", "rename the file, or pass the name another way"
            )
    return tuple(words)


def find_active_venv(environ: Mapping[str, str]) -> Path | None:
    """Return the virtual environment active in this shell, else the conda environment, if it still exists."""
    venv, conda = environ.get("VIRTUAL_ENV"), environ.get("CONDA_PREFIX")
    if venv and (Path(venv) / "bin" / "activate").is_file():
        return Path(venv)
    return Path(conda) if conda and is_conda(Path(conda)) else None


def environment_variables(venv: Path | None) -> dict[str, str]:
    """Return what a conda environment sets for a run beside its scripts; nothing for any other environment."""
    own = conda_variables(venv) if venv is not None and is_conda(venv) else {}
    return {name: value for name, value in own.items() if may_be_set(name) and _is_text(value)}


def load_variables(assignments: Sequence[str], env_file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Read `--env K=V` (or `K`, to take the value from here) and `--env-file`; the option wins over the file.

    Raises
    ------
    InputError
        A name is not a variable's, is not set here, or the file cannot be read.
    """
    variables: dict[str, str] = {}
    for line in _lines(env_file) if env_file else ():
        variables.update([_assignment(line, environ, f"{env_file}: ")])
    for text in assignments:
        variables.update([_assignment(text, environ, "--env ")])
    return variables


def _may_be_image(target: str) -> bool:
    """Whether a target that is no file here can only be an image or a module: a mistyped path stays a path."""
    is_path = target.endswith((".py", "/")) or target.startswith((".", "/", "~"))
    return ":" in target or target.endswith(".sif") or not (is_path or "/" in target)


def _with_image(options: JobOptions, target: str, cwd: Path) -> JobOptions:
    """Make the target the run's image; of a file its path from the root."""
    if options.image.reference is not None:
        raise InputError(
            f"{target!r} is an image, and --image {options.image.reference!r} names a second one", "leave one out"
        )
    image = parse_target(target)
    if isinstance(image, LocalImage):
        image = image.model_copy(update={"path": (cwd / image.path).absolute()})
    return options.model_copy(update={"image": options.image.model_copy(update={"reference": str(image)})})


def _is_text(word: str) -> bool:
    """Whether a word can be written down as UTF-8, and given to a program; Python carries other bytes as surrogates."""
    return not re.search("[\0\ud800-\udfff]", word)


def _checked_workdir(cwd: Path) -> Path:
    if not _is_text(str(cwd)):
        raise InputError(f"the name of this folder ({str(cwd)!r}) is not valid UTF-8", "work in another folder")
    return cwd


def may_be_set(name: str) -> bool:
    """Whether a user may give a run a variable of this name: it is one, and nobody else sets it."""
    is_others = name.startswith(("SLURM_", "SBATCH_", "DEEPHPC_")) or name in _SHELLS_OWN
    return _VARIABLE.fullmatch(name) is not None and not is_others


def _assignment(text: str, environ: Mapping[str, str], where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not _VARIABLE.fullmatch(name):
        raise InputError(f"{where}{text.partition('=')[0]!r} is not a variable's name", "write NAME=VALUE")
    if not may_be_set(name):
        raise InputError(f"{where}{name} is not yours to set: the job gets it from elsewhere", "choose another name")
    if not equals:
        if name not in environ:
            raise InputError(f"{where}{name} is not set here", f"write {name}=VALUE")
        value = environ[name]
    if not _is_text(value):
        raise InputError(f"{where}{name} holds bytes that are not UTF-8 text", "encode the value, as base64 for one")
    return name, value


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"--env-file {path}: {reason}", "give a text file of NAME=VALUE lines") from error
    return [line for line in (raw.strip() for raw in text.splitlines()) if line and not line.startswith("#")]


def _entry_point(folder: Path, target: str) -> Path:
    for name in _ENTRY_POINTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"the folder {target!r} has none of {', '.join(_ENTRY_POINTS)}", "name the file to run instead")
