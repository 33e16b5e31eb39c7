"""Looks at what is to be transferred, and at what is there already."""

import contextlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deephpc.data.crew import Crew
from deephpc.data.ledger import Seen
from deephpc.data.local import entry_of
from deephpc.data.location import Location, join
from deephpc.data.manifest import LeftOut, check_entries, sort_out
from deephpc.data.storage import Entry, Forbidden, Limits, Refused, Storage, look_if_allowed, missing
from deephpc.errors import DataError

#: What transfers of ours call a file on its way.
_ON_ITS_WAY = re.compile(r"(?:^|/)\.[0-9a-f]{24}\.part(?:\.state)?$")
_FEW = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """The files of a source."""

    top: str
    """The path that the entries are below."""
    entries: tuple[Entry, ...]
    is_file: bool
    """Whether the source is one file rather than a folder."""
    left_out: tuple[LeftOut, ...] = ()
    """What is listed there, and cannot lie in a folder here, or cannot be brought."""


def survey(storage: Storage, location: Location) -> Survey:
    """List the files of a location.

    Raises
    ------
    Missing
        There is nothing.
    DataError
        The one file there has a name that none here can have.
    """
    found = storage.look(location.path)
    if found is None:
        raise missing(str(location))
    if found.is_folder:
        files = (each for each in storage.walk(location.path) if not _ON_ITS_WAY.search(each.path))
        entries, left_out = sort_out(files)
        return Survey(location.path, entries, is_file=False, left_out=left_out)
    if location.wants_folder:
        raise DataError(f"{location} is a file, not a folder", "write it without the / at its end")
    top = location.path[: -len(location.name)].rstrip("/") or ("/" if location.path.startswith("/") else "")
    return Survey(top, check_entries([replace(found, path=location.name)], str(location)), is_file=True)


def complete(storage: Storage, found: Survey, seen: Mapping[str, Seen], limits: Limits) -> Survey:
    """Ask for the size and version of files that were seen before, where the list did not tell them."""
    entries = {each.path: each for each in found.entries}
    turn = threading.Lock()

    def ask(entry: Entry) -> None:
        told = look_if_allowed(storage, join(found.top, entry.path))
        if told is not None:
            with turn:
                entries[entry.path] = replace(told, path=entry.path)

    unknown = [each for each in found.entries if each.size_bytes is None and each.path in seen]
    Crew(min(limits.parallel, storage.parallel)).run([lambda each=each: ask(each) for each in unknown])  # type: ignore[misc]
    return replace(found, entries=tuple(entries.values()))


def present_here(entries: Iterable[Entry], place: Mapping[str, Path]) -> dict[str, Entry]:
    """Return what lies at the places that files are to have here."""
    found = {}
    for each in entries:
        try:
            stat = place[each.path].stat()
        except OSError:  # nothing that could be equal; writing there tells what is wrong
            continue
        found[each.path] = entry_of(stat, each.path, str(place[each.path]))
    return found


def present_there(storage: Storage, top: str, entries: tuple[Entry, ...]) -> dict[str, Entry]:
    """Return what a target has below a path: asked for one by one when it is about few, else listed."""
    if len(entries) > _FEW:
        with contextlib.suppress(Refused):  # among what lies there may be what we do not follow, and do not need
            if storage.look(top) is None:
                return {}
            return {each.path: each for each in storage.walk(top) if not each.left_out}
    found, forbidden = {}, 0
    for each in entries:
        try:
            there = storage.look(join(top, each.path))
        except Forbidden:  # not to be known, or not there: sending it tells
            forbidden += 1
            if forbidden > _FEW:
                break
            continue
        if there is not None:
            found[each.path] = replace(there, path=each.path)
    return found
