"""Which catalogues there are: those that ship and the user's own in catalogue.toml, beside config.toml."""

import difflib
from pathlib import Path
from typing import Any

import tomli_w

from deephpc.catalogue.copies import copy_path, write_file
from deephpc.catalogue.source import Source, checked_url, is_web
from deephpc.config import UserPlaces
from deephpc.config.toml_file import parse_model, read_toml
from deephpc.errors import InputError
from deephpc.model import Model
from deephpc.places import shipped


class _Entry(Model):
    """One source as it is written; everything may be left out to switch a shipped one off."""

    url: str = ""
    files: str = ""
    organisation: str = ""
    enabled: bool = True


class _SourcesFile(Model):
    """The whole file."""

    sources: dict[str, _Entry] = {}  # noqa: RUF012 - pydantic copies it


def user_file(places: UserPlaces) -> Path:
    """Return where the user's own sources are written."""
    return places.sites_dir.parent / "catalogue.toml"


def shipped_folder() -> Path:
    """Return the folder with the shipped sources and their snapshot."""
    return shipped("configs") / "catalogue"


def load_sources(places: UserPlaces) -> tuple[Source, ...]:
    """Return every source that is in use: the user's own first, so that a name of theirs wins.

    Raises
    ------
    InputError
        The user's file has an unknown key or a bad value.
    """
    own, ours = _load(user_file(places)), _load(shipped_folder() / "sources.toml")
    mine = [
        _source(name, entry, str(user_file(places)), shipped=False)
        for name, entry in own.items()
        if entry.enabled and entry.url
    ]
    theirs = [_source(name, entry, "shipped", shipped=True) for name, entry in ours.items() if name not in own]
    return (*mine, *theirs)


def plan_source(name: str, url: str, files: str, organisation: str, cwd: Path) -> Source:
    """Check a source of the user's; a folder of this machine becomes absolute.

    Raises
    ------
    InputError
        The name, the address or the template of addresses is not one.
    """
    address = checked_url(url)
    if not is_web(address) and "://" not in address:
        address = str((cwd / Path(address).expanduser()).absolute())
    values: dict[str, Any] = {"name": name, "url": address, "files": files, "organisation": organisation}
    return parse_model(Source, values, f"catalogue {name!r}")


def add_source(source: Source, places: UserPlaces) -> bool:
    """Write a source into the user's file; returns False where the very same is there already.

    Raises
    ------
    InputError
        Another source has that name.
    """
    taken = next((each for each in load_sources(places) if each.name == source.name), None)
    if taken is not None and taken.model_copy(update={"whose": "user"}) == source:
        return False
    if taken is not None:
        raise InputError(
            f"there is a catalogue {source.name!r} already, at {taken.url}",
            f"choose another name, or `deephpc catalogue remove {source.name}` first",
        )
    entries = _load(user_file(places))
    entries[source.name] = _Entry(url=source.url, files=source.files, organisation=source.organisation)
    _write(places, entries)
    return True


def remove_source(name: str, places: UserPlaces, cache: Path) -> Source:
    """Take a source out of use and forget its copy; a shipped one is switched off in the user's file.

    Raises
    ------
    InputError
        There is no such source.
    """
    sources = load_sources(places)
    found = next((source for source in sources if source.name == name), None)
    if found is None:
        names = [source.name for source in sources]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise InputError(f"no catalogue {name!r}", hint)
    entries = _load(user_file(places))
    entries.pop(name, None)
    if name in _load(shipped_folder() / "sources.toml"):
        entries[name] = _Entry(enabled=False)
    _write(places, entries)
    copy_path(cache, name).unlink(missing_ok=True)
    return found


def enable_source(name: str, places: UserPlaces) -> bool:
    """Switch a shipped source on again; returns False where it was not off."""
    entries = _load(user_file(places))
    if name not in _load(shipped_folder() / "sources.toml") or name not in entries or entries[name].enabled:
        return False
    del entries[name]
    _write(places, entries)
    return True


def _load(path: Path) -> dict[str, _Entry]:
    if not path.is_file():
        return {}
    return dict(parse_model(_SourcesFile, read_toml(path), str(path)).sources)


def _source(name: str, entry: _Entry, where: str, *, shipped: bool) -> Source:
    values = {**entry.model_dump(exclude={"enabled"}), "name": name, "whose": "shipped" if shipped else "user"}
    return parse_model(Source, values, f"{where}: [sources.{name}]")


def _write(places: UserPlaces, entries: dict[str, _Entry]) -> None:
    values = {"sources": {name: entry.model_dump(exclude_defaults=True) for name, entry in entries.items()}}
    write_file(user_file(places), tomli_w.dumps(values).encode(), 0o600)
