"""The data sets of a run: where each comes from (DataSource), and where the job finds it (StagedData)."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deephpc.data.disk import unwritable
from deephpc.data.location import lasting_text, read_location, split_data_name
from deephpc.data.surroundings import Surroundings
from deephpc.errors import InputError
from deephpc.model import Model

#: A name that no engine and no shell takes for something else.
_NAME = re.compile(r"\w[\w.+@-]*")
_LONGEST_NAME = 100


class DataSource(Model):
    """A data set that a run asks for."""

    place: str
    """A path, a URL or REMOTE:PATH, without credentials; a path is absolute."""
    name: str
    """Its folder, or file, in `DEEPHPC_DATA_DIR`."""


class StagedData(Model):
    """A data set of a run, decided; part of `plan.json`."""

    name: str
    source: str
    path: Path | None = None
    """Where it lies, read-only by its modes when it was staged; None in a dry run, which stages nothing."""
    digest: str | None = None
    """Of its manifest; None for what is used where it lies."""
    files: int | None = None
    size_bytes: int | None = None


def read_data_sources(texts: Sequence[str], around: Surroundings) -> tuple[DataSource, ...]:
    """Read what `--data SRC[:NAME]` was given; no network.

    Raises
    ------
    InputError
        A text names no place, holds credentials, or has no name a job could see it under; or two have one name.
    """
    found: dict[str, DataSource] = {}
    for text in texts:
        place, name = split_data_name(text)
        lasting = lasting_text(place, around)
        source = read_location(lasting, around)
        name = name or source.name
        if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
            raise InputError(
                f"--data {source}: {name!r} cannot be its name in a job",
                "write SRC:NAME; letters, digits, '.', '_' and '-'",
            )
        if name in found:
            raise InputError(f"two data sets are named {name!r}: {found[name].place} and {lasting}", "write SRC:NAME")
        found[name] = DataSource(place=lasting, name=name)
    return tuple(found.values())


def read_destination(text: str, around: Surroundings) -> str:
    """Read where results go (`--collect URL`); no network.

    Raises
    ------
    InputError
        The text names no place, holds credentials, or the place takes no files.
    """
    lasting = lasting_text(text, around)
    target = read_location(lasting, around)
    if target.kind == "http":
        raise InputError(f"{target} takes no files: a plain web server", "write webdav(s)://… when it speaks WebDAV")
    return lasting


def modules_own(staged: Sequence[StagedData]) -> StagedData | None:
    """Return the data set whose content a module finds in its own `data` folder: the only one, or the one named so."""
    if len(staged) == 1:
        return staged[0]
    return next((each for each in staged if each.name == "data"), None)


def write_links(folder: Path, staged: Iterable[StagedData]) -> None:
    """Make the run's data folder: a link to each data set.

    Raises
    ------
    Unwritable
        The place cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for each in staged:
            draft = folder / f".{each.name}.{os.getpid()}"
            draft.symlink_to(each.path or "")
            draft.replace(folder / each.name)
    except OSError as error:
        raise unwritable(folder, error) from error
