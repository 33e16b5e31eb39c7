"""The story of `deephpc module init`: a new module out of the template, which trains and serves as it stands."""

import datetime
import json
import keyword
import re
from pathlib import Path

import jinja2

from deephpc.catalogue.reading import MetadataFile, judge_file
from deephpc.errors import InputError, SiteError
from deephpc.model import Model
from deephpc.places import shipped

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_MAX_LENGTH = 60
_SUFFIX = ".jinja"


class ModulePlan(Model):
    """The files of a new module, ready to write."""

    name: str
    package: str
    """Name of its Python package."""
    folder: Path
    files: dict[str, str]
    """Path in the folder → text."""


def plan_module(
    name: str, folder: Path, today: datetime.date, *, title: str = "", image: str = "", source_code: str = ""
) -> ModulePlan:
    """Fill in the template; writes nothing.

    Parameters
    ----------
    folder
        The folder to make; may not exist yet, or is empty.
    image, source_code
        Where the image and the code will be; guessed from the name when empty, for the author to mend.

    Raises
    ------
    InputError
        The name is none, or what was given makes bad metadata.
    """
    package = _package_name(name)
    words = {
        "name": name,
        "package": package,
        "title": _one_line(title) or name.replace("-", " ").replace("_", " ").capitalize(),
        "today": today.isoformat(),
        "image": image or f"myorganisation/{name}",
        "source_code": source_code or f"https://github.com/myorganisation/{name}",
    }
    words["title_quoted"] = json.dumps(words["title"], ensure_ascii=False)  # as JSON, a title is a YAML scalar too
    files = _render(shipped("configs") / "module-template", words)
    verdict = judge_file(MetadataFile(name="ai4-metadata.yml", text=files["ai4-metadata.yml"]))
    if verdict.errors:
        first = verdict.errors[0]
        raise InputError(f"{first.key}: {first.message}", "see `deephpc module init --help`")
    return ModulePlan(name=name, package=package, folder=folder, files=files)


def write_module(plan: ModulePlan) -> None:
    """Write the new module.

    Raises
    ------
    InputError
        The folder exists and is not empty.
    SiteError
        It cannot be written.
    """
    try:
        if plan.folder.exists() and (not plan.folder.is_dir() or any(plan.folder.iterdir())):
            raise InputError(f"{plan.folder} exists and is not empty", "choose another name, or --folder DIR")
        for path, text in plan.files.items():
            target = plan.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SiteError(
            f"cannot write {plan.folder}: {error.strerror or error}", "check its permissions and quota"
        ) from error


def _package_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
        raise InputError(
            f"{name!r} is no name for a module", "use lower-case words with dashes between them, such as leaf-counter"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in ("deepaas", "numpy", "tests", "data", "models"):
        raise InputError(f"{name!r} cannot be the name of its Python package", "choose another, such as my-" + name)
    return package


def _one_line(text: str) -> str:
    return " ".join("".join(c for c in text if c.isprintable()).split()).replace('"', "'").replace("\\", "/")


def _render(template: Path, words: dict[str, str]) -> dict[str, str]:
    """Return every file of the template, filled in, by its path in the module."""
    environment = jinja2.Environment(  # noqa: S701 - Python, YAML and Markdown, no HTML
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    files = {}
    for path in sorted(each for each in template.rglob("*") if each.is_file()):
        target = path.relative_to(template).as_posix().removesuffix(_SUFFIX)
        target = re.sub(r"^package/", f"{words['package']}/", target)
        target = ".gitignore" if target == "gitignore" else target
        text = path.read_text(encoding="utf-8")
        files[target] = environment.from_string(text).render(words) if path.suffix == _SUFFIX else text
    return files
