"""Puts a module's metadata into a catalogue folder, for colleagues to find: checked, whole or not at all."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from deephpc.catalogue.document import MAX_BYTES, UnreadableError, decode
from deephpc.catalogue.index_file import is_module_name
from deephpc.catalogue.module import FileVerdict
from deephpc.catalogue.reading import MetadataFile, judge_file
from deephpc.errors import InputError, SiteError
from deephpc.model import Model

_METADATA_NAMES = ("ai4-metadata.yml", "ai4-metadata.yaml", "ai4-metadata.json", "metadata.json")


class Publication(Model):
    """What is put where."""

    name: str
    file: Path
    """The metadata file of the module."""
    target: Path
    """Where it goes."""
    text: str
    verdict: FileVerdict
    replaces: bool
    """Whether another text stands there now."""
    is_there: bool
    """Whether the very same text stands there already."""


def load_metadata(path: Path) -> MetadataFile:
    """Read a metadata file of one's own.

    Raises
    ------
    InputError
        It is missing, unreadable, too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes", "metadata is a small YAML or JSON file")
        return MetadataFile(name=path.name, text=decode(raw))
    except UnreadableError as error:
        raise InputError(f"{path}:{error.line}: {error.reason}", "save the file as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "check the path and its permissions") from error


def plan_publication(folder: Path, catalogue: Path, name: str | None = None, organisation: str = "") -> Publication:
    """Decide what to put into a catalogue folder; writes nothing.

    Parameters
    ----------
    folder
        The module's own folder, with its metadata in it.
    name
        Name for the module; that of its folder otherwise.

    Raises
    ------
    InputError
        There is no metadata, it has errors, or the name is not one.
    """
    file = _find_metadata(folder)
    chosen = name or folder.resolve().name
    if not is_module_name(chosen) or "__" in chosen:
        raise InputError(f"{chosen!r} is no name for a module", "use letters, digits, dots and dashes: --name NAME")
    metadata = load_metadata(file)
    verdict = judge_file(metadata, organisation)
    if not verdict.is_valid:
        first = verdict.errors[0]
        raise InputError(
            f"{file}:{first.line}: {first.key + ': ' if first.key else ''}{first.message}",
            f"mend it; `deephpc catalogue validate {file}` lists everything",
        )
    target = catalogue / chosen / file.name
    before = _present_text(target)
    return Publication(
        name=chosen,
        file=file,
        target=target,
        text=metadata.text,
        verdict=verdict,
        replaces=before is not None and before != metadata.text,
        is_there=before == metadata.text,
    )


def publish(plan: Publication, *, force: bool) -> None:
    """Put the metadata in place in one step; readers see the old text, or the new one, or none.

    Raises
    ------
    InputError
        Another text stands there and `force` is not given, or someone put one there meanwhile.
    SiteError
        The catalogue folder cannot be written.
    """
    if plan.is_there:
        return
    if plan.replaces and not force:
        raise _taken(plan)
    catalogue = plan.target.parent.parent
    try:
        mode = catalogue.stat().st_mode
        shared = mode & stat.S_IWGRP
        if not plan.target.parent.is_dir():
            with contextlib.suppress(FileExistsError):
                plan.target.parent.mkdir()
            plan.target.parent.chmod((0o775 if shared else 0o755) | (mode & stat.S_ISGID))
        _put(plan, 0o664 if shared else 0o644, replace=force)
    except OSError as error:
        raise SiteError(
            f"cannot write {plan.target}: {error.strerror or error}",
            "ask the catalogue's owner for write permission, or publish into a folder of yours",
        ) from error


def _put(plan: Publication, mode: int, *, replace: bool) -> None:
    temporary = plan.target.with_name(
        f".{plan.target.name}.{secrets.token_hex(6)}.part"
    )  # not the pid: other nodes write here too
    try:
        with temporary.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(plan.text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(plan.target)
        else:
            os.link(temporary, plan.target)  # unlike rename, fails where someone was faster
    except FileExistsError as error:
        raise _taken(plan) from error
    finally:
        temporary.unlink(missing_ok=True)


def _taken(plan: Publication) -> InputError:
    return InputError(
        f"{plan.target} is already published, with another text", "replace it with --force, or choose --name"
    )


def _find_metadata(folder: Path) -> Path:
    for name in _METADATA_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} has no {' or '.join((_METADATA_NAMES[0], _METADATA_NAMES[-1]))}",
        "`deephpc module init NAME` makes a module with everything in it",
    )


def _present_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SiteError(f"cannot read {path}: {error.strerror or error}", "check its permissions") from error
