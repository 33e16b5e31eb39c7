"""Brings the copy of one source up to date: its index, then each module's metadata, many at once.

What cannot be reached keeps its last good copy with the reason beside it.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from deephpc.catalogue.copies import FileCopy, ModuleCopy, SourceCopy
from deephpc.catalogue.document import UnreadableError
from deephpc.catalogue.index_file import parse_index
from deephpc.catalogue.reading import MetadataFile, judge_file
from deephpc.catalogue.source import IndexEntry, Source, file_address, is_web
from deephpc.catalogue.storage import Storage, is_folder, scan_folder
from deephpc.catalogue.web import Answer, UnreachableError, Web

#: Newest schema first; the older file is asked for only when the newer is missing or invalid.
METADATA_FILES = ("ai4-metadata.yml", "metadata.json")
CONNECTIONS = 16


class Fetcher(Protocol):
    """Gets a file unless it is still the one with these validators; raises UnreachableError."""

    def fetch(self, url: str, etag: str = "", last_modified: str = "") -> Answer:
        """Return what the place says about the file."""
        ...


@dataclass(frozen=True)
class Index:
    """What an index says now."""

    file: FileCopy
    entries: tuple[IndexEntry, ...]
    bad_lines: tuple[str, ...]
    """Addresses that name no module."""


@dataclass(frozen=True)
class Step:
    """One module of a source has arrived."""

    source: str
    done: int
    total: int | None
    """None where the number is not known beforehand."""


@dataclass(frozen=True)
class Fetched:
    """The new copy of a source."""

    copy: SourceCopy
    bad_lines: tuple[str, ...] = ()
    """What its index lists that is no module."""


@dataclass(frozen=True)
class Anywhere:
    """Fetches over HTTP and from storage, but never lets a catalogue on the web name files of this machine."""

    source: Source
    web: Web
    storage: Storage

    def fetch(self, url: str, etag: str = "", last_modified: str = "") -> Answer:
        """Get a file from where its address says."""
        if is_web(url):
            return self.web.fetch(url, etag, last_modified)
        if self.source.is_web:
            raise UnreachableError(f"{url}: a catalogue on the web may name web addresses only", "tell its owner")
        return self.storage.fetch(url, etag, last_modified)


def fetch_source(source: Source, last: SourceCopy | None, web: Web, now: datetime) -> Generator[Step, None, Fetched]:
    """Fetch everything of a source; yields a step for each module and returns the new copy.

    Raises
    ------
    UnreachableError
        The source itself cannot be had; single modules never raise.
    """
    if not source.is_web and is_folder(source):
        copies: list[ModuleCopy] = []
        for copy in scan_folder(source, last, now):
            copies.append(copy)
            yield Step(source.name, len(copies), None)
        return Fetched(SourceCopy(name=source.name, url=source.url, modules=tuple(copies), as_of=now))
    fetcher = Anywhere(source, web, Storage())
    index = fetch_index(source, last, fetcher)
    found: dict[str, ModuleCopy] = {}
    yield Step(source.name, 0, len(index.entries))
    for copy in fetch_modules(source, index, last, fetcher, now):
        found[copy.repository] = copy
        yield Step(source.name, len(found), len(index.entries))
    modules = tuple(found[entry.repository] for entry in index.entries)
    fresh = SourceCopy(name=source.name, url=source.url, index=index.file, modules=modules, as_of=now)
    return Fetched(fresh, index.bad_lines)


def fetch_index(source: Source, last: SourceCopy | None, fetcher: Fetcher) -> Index:
    """Get the index of a source.

    Raises
    ------
    UnreachableError
        It cannot be had, or is no index.
    """
    before = last.index if last else None
    answer = fetcher.fetch(source.url, before.etag if before else "", before.last_modified if before else "")
    if answer.is_missing:
        raise UnreachableError(
            f"{source.url}: there is no such file", "check the address with `deephpc catalogue sources`"
        )
    file = before if answer.text is None else None
    if file is None:
        file = FileCopy(
            name=source.url.rpartition("/")[2],
            text=answer.text or "",
            etag=answer.etag,
            last_modified=answer.last_modified,
        )
    try:
        entries, bad = parse_index(file.text, source.url)
    except UnreadableError as error:
        raise UnreachableError(
            f"{source.url}: line {error.line}: {error.reason}", "a web source is a MODULES.yml or .gitmodules file"
        ) from error
    return Index(file, entries, bad)


def fetch_modules(
    source: Source, index: Index, last: SourceCopy | None, fetcher: Fetcher, now: datetime
) -> Iterator[ModuleCopy]:
    """Yield the copy of each module as it arrives, in no order; a module never fails the others."""
    known = {copy.repository: copy for copy in last.modules} if last else {}
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="catalogue")
    try:
        waiting = [
            pool.submit(_fetch_module, source, entry, known.get(entry.repository), fetcher, now)
            for entry in index.entries
        ]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fetch_module(
    source: Source, entry: IndexEntry, last: ModuleCopy | None, fetcher: Fetcher, now: datetime
) -> ModuleCopy:
    before = {file.name: file for file in last.files} if last else {}
    files: list[FileCopy] = []
    try:
        for name in METADATA_FILES:
            file = _fetch_file(file_address(source, entry, name), name, before.get(name), fetcher)
            if file is None:
                continue
            files.append(file)
            if judge_file(MetadataFile(name=name, text=file.text)).is_valid:
                break
    except UnreachableError as error:
        return _kept(entry, last, error.message, now)
    if not files:
        return _kept(entry, last, f"{entry.repository} has no {' or '.join(METADATA_FILES)}", now)
    licence = last.licence if last else ""
    return ModuleCopy(name=entry.name, repository=entry.repository, files=tuple(files), licence=licence, as_of=now)


def _fetch_file(address: str, name: str, before: FileCopy | None, fetcher: Fetcher) -> FileCopy | None:
    answer = fetcher.fetch(address, before.etag if before else "", before.last_modified if before else "")
    if answer.is_missing:
        return None
    if answer.text is None:
        return before
    return FileCopy(name=name, text=answer.text, etag=answer.etag, last_modified=answer.last_modified)


def _kept(entry: IndexEntry, last: ModuleCopy | None, trouble: str, now: datetime) -> ModuleCopy:
    """Return the last good copy with the reason why there is no newer one."""
    if last is None:
        return ModuleCopy(name=entry.name, repository=entry.repository, as_of=now, trouble=trouble)
    return last.model_copy(update={"trouble": trouble})
