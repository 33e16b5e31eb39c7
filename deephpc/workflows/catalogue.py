"""The story of `deephpc catalogue`: bring the copies up to date, and find modules in them without any network."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.catalogue.copies import ModuleCopy, SourceCopy, load_copy, load_snapshot, write_copy
from deephpc.catalogue.database import build_index, file_state, fingerprint, open_index
from deephpc.catalogue.module import FileVerdict, Module
from deephpc.catalogue.publishing import Publication, load_metadata, plan_publication, publish
from deephpc.catalogue.reading import MetadataFile, Origin, judge_file, read_module
from deephpc.catalogue.search import Filters, Hits, find_module, list_modules, search_modules
from deephpc.catalogue.source import Source
from deephpc.config import UserPlaces
from deephpc.errors import DataError, InputError
from deephpc.model import Model
from deephpc.workflows.catalogue_sources import load_sources, shipped_folder, user_file

if TYPE_CHECKING:
    from deephpc.catalogue.fetch import Step
    from deephpc.catalogue.web import Web

DEADLINE_S = 10.0
"""How long one file of a catalogue may take."""


class SourceStatus(Model):
    """How fresh the copy of one source is."""

    source: Source
    modules: int
    as_of: datetime | None
    """When the copy was last known to be current; None when there is none."""
    trouble: str = ""
    """Why the last update did not reach it."""


class SourceUpdate(Model):
    """What an update did to one source."""

    source: Source
    modules: int
    unreachable: tuple[str, ...] = ()
    """`NAME: reason` of each module that kept an older copy, or has none."""
    bad_lines: tuple[str, ...] = ()
    """What its index lists that is no module."""
    trouble: str = ""
    """Why the source itself was not reached; its last good copy stays."""
    as_of: datetime | None = None
    """Age of the copy in use now."""


@dataclass(frozen=True)
class Catalogue:
    """Where the catalogues are defined and their copies kept."""

    places: UserPlaces
    cache: Path
    """The folder of copies."""

    def sources(self) -> tuple[Source, ...]:
        """Return the sources in use."""
        return load_sources(self.places)


def open_catalogue(places: UserPlaces, cache_dir: Path) -> Catalogue:
    """Return the catalogues of a user on a site."""
    return Catalogue(places, cache_dir / "catalogue")


def list_catalogue(catalogue: Catalogue, filters: Filters) -> Hits:
    """Return the modules that pass the filters."""
    with _index(catalogue) as index:
        return list_modules(index, filters)


def search_catalogue(catalogue: Catalogue, text: str, filters: Filters) -> Hits:
    """Return the modules with these words, best first."""
    with _index(catalogue) as index:
        return search_modules(index, text, filters)


def show_module(catalogue: Catalogue, name: str) -> tuple[Module, ...]:
    """Return the modules of a name, the one that is meant first.

    Raises
    ------
    InputError
        There is none.
    """
    with _index(catalogue) as index:
        return find_module(index, name)


def status_of_sources(catalogue: Catalogue) -> tuple[SourceStatus, ...]:
    """Return each source with the age of its copy."""
    return tuple(
        SourceStatus(
            source=source,
            modules=len(copy.modules) if copy else 0,
            as_of=copy.as_of if copy else None,
            trouble=copy.trouble if copy else "",
        )
        for source, copy in _copies(catalogue)
    )


def update_catalogue(
    catalogue: Catalogue, now: datetime, names: tuple[str, ...] = (), deadline_s: float = DEADLINE_S
) -> "Iterator[Step | SourceUpdate]":
    """Bring copies up to date; yields a step for each module and an account of each source.

    Parameters
    ----------
    names
        Sources to update; all of them when empty.

    Raises
    ------
    InputError
        A name is none of the sources.
    """
    from deephpc.catalogue.fetch import CONNECTIONS  # loads the HTTP client, which searching never needs
    from deephpc.catalogue.web import Web, open_web

    pairs = _copies(catalogue)
    unknown = set(names) - {source.name for source, _ in pairs}
    if unknown:
        raise InputError(f"no catalogue {min(unknown)!r}", "see `deephpc catalogue sources`")
    with open_web(deadline_s, CONNECTIONS) as client:
        for source, last in pairs:
            if not names or source.name in names:
                yield from _update_source(catalogue, source, last, Web(client, deadline_s), now)


def check_outcome(updates: tuple[SourceUpdate, ...]) -> None:
    """Fail an update in which a source was not reached.

    Raises
    ------
    DataError
        Names the sources; what they had stays in use.
    """
    failed = [update for update in updates if update.trouble]
    if failed:
        raise DataError(
            f"not reached: {', '.join(update.source.name for update in failed)}; their last copies stay in use",
            "try again where there is internet; `deephpc catalogue sources` shows how old each copy is",
        )


def validate_file(path: Path, organisation: str = "") -> FileVerdict:
    """Check a metadata file of one's own."""
    return judge_file(load_metadata(path), organisation)


def plan_publish(catalogue: Catalogue, folder: Path, to: str | None, name: str | None) -> Publication:
    """Decide where a module of one's own goes: a catalogue by name, a folder, or the user's only folder catalogue.

    Raises
    ------
    InputError
        The metadata has errors, or there is no single folder to publish to.
    """
    target = _publish_folder(catalogue, to)
    return plan_publication(folder, target, name)


def carry_out_publish(plan: Publication, *, force: bool) -> None:
    """Put a module where its plan says.

    Raises
    ------
    InputError
        Another text stands there and `force` is not given.
    SiteError
        The catalogue folder cannot be written.
    """
    publish(plan, force=force)


def _publish_folder(catalogue: Catalogue, to: str | None) -> Path:
    folders = [source for source in catalogue.sources() if source.whose == "user" and Path(source.url).is_dir()]
    named = next((source for source in folders if source.name == to), None)
    if named is not None:
        return Path(named.url)
    if to is not None:
        if Path(to).expanduser().is_dir():
            return Path(to).expanduser().absolute()
        raise InputError(
            f"--to {to!r} is neither a folder nor a catalogue kept in one", "see `deephpc catalogue sources`"
        )
    if len(folders) == 1:
        return Path(folders[0].url)
    reason = "none of your catalogues is a folder" if not folders else "several of your catalogues are folders"
    raise InputError(
        f"{reason}: say which to publish to",
        "`--to FOLDER`, or `deephpc catalogue add NAME FOLDER` once for your group",
    )


@contextlib.contextmanager
def _index(catalogue: Catalogue) -> Iterator[sqlite3.Connection]:
    """Open the index of all modules, made anew when a copy or a source changed."""
    made_of = _fingerprint(catalogue)
    path = catalogue.cache / "index.db"
    index = open_index(path, made_of)
    if index is None:
        index = build_index(path, made_of, _read_modules(catalogue))
    with contextlib.closing(index):
        yield index


def _fingerprint(catalogue: Catalogue) -> str:
    sources = catalogue.sources()
    files = [shipped_folder() / "snapshot.json.gz", shipped_folder() / "sources.toml", user_file(catalogue.places)]
    copies = [catalogue.cache / f"{source.name}.json" for source in sources]
    return fingerprint(f"{path} {file_state(path)}" for path in (*files, *copies))


def _copies(catalogue: Catalogue) -> list[tuple[Source, SourceCopy | None]]:
    """Return each source with its last good copy: the fetched one or the one that ships, whichever is newer."""
    shipped = {copy.name: copy for copy in load_snapshot(shipped_folder() / "snapshot.json.gz")}
    pairs = []
    for source in catalogue.sources():
        copies = [load_copy(catalogue.cache, source.name, source.url)]
        if source.whose == "shipped":
            copies.append(shipped.get(source.name))
        pairs.append((source, max(filter(None, copies), key=lambda copy: copy.as_of, default=None)))
    return pairs


def _read_modules(catalogue: Catalogue) -> tuple[Module, ...]:
    """Read every module; of one that several sources list from one repository, the first valid reading is kept."""
    chosen: dict[tuple[str, str], Module] = {}
    for source, copy in _copies(catalogue):
        for module in (_read(source, each) for each in (copy.modules if copy else ())):
            key = (module.name, module.repository or source.name)
            if key not in chosen or (module.is_valid and not chosen[key].is_valid):
                chosen[key] = module
    return tuple(chosen.values())


def _read(source: Source, copy: ModuleCopy) -> Module:
    origin = Origin(
        name=copy.name,
        source=source.name,
        repository=copy.repository,
        organisation=source.organisation,
        licence=copy.licence,
        as_of=copy.as_of,
        trouble=copy.trouble,
    )
    return read_module(origin, [MetadataFile(name=file.name, text=file.text) for file in copy.files])


def _update_source(
    catalogue: Catalogue, source: Source, last: SourceCopy | None, web: "Web", now: datetime
) -> "Iterator[Step | SourceUpdate]":
    """Update one source; one that is not reached keeps its copy, with the reason written into it."""
    from deephpc.catalogue.fetch import fetch_source
    from deephpc.catalogue.web import UnreachableError

    try:
        fetched = yield from fetch_source(source, last, web, now)
    except UnreachableError as error:
        if last is not None:
            write_copy(catalogue.cache, last.model_copy(update={"trouble": error.message}))
        yield SourceUpdate(
            source=source,
            modules=len(last.modules) if last else 0,
            trouble=error.message,
            as_of=last.as_of if last else None,
        )
        return
    write_copy(catalogue.cache, fetched.copy)
    yield SourceUpdate(
        source=source,
        modules=len(fetched.copy.modules),
        unreachable=tuple(f"{copy.name}: {copy.trouble}" for copy in fetched.copy.modules if copy.trouble),
        bad_lines=fetched.bad_lines,
        as_of=fetched.copy.as_of,
    )
