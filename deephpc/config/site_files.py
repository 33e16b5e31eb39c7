"""Finds and loads site profiles: the user's own first, then those shipped in `configs/sites/`."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deephpc.config.site import Site
from deephpc.config.toml_file import parse_model, read_toml
from deephpc.errors import InputError
from deephpc.places import shipped


@dataclass(frozen=True, slots=True)
class SiteFile:
    """A profile that exists, unread."""

    name: str
    path: Path
    whose: Literal["user", "shipped"]


def list_site_files(sites_dir: Path) -> tuple[SiteFile, ...]:
    """List every profile by name; a user's profile hides the shipped one of the same name."""
    found: dict[str, SiteFile] = {}
    places: tuple[tuple[Path, Literal["user", "shipped"]], ...] = (
        (shipped("configs") / "sites", "shipped"),
        (sites_dir, "user"),
    )
    for folder, whose in places:
        for path in sorted(folder.glob("*.toml")):
            found[path.stem] = SiteFile(path.stem, path, whose)
    return tuple(found[name] for name in sorted(found))


def find_site(name: str, sites_dir: Path, asked_by: str) -> SiteFile:
    """Return the profile of that name.

    Raises
    ------
    InputError
        There is none; the hint lists the nearest names.
    """
    files = {each.name: each for each in list_site_files(sites_dir)}
    if name in files:
        return files[name]
    near = difflib.get_close_matches(name, files, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`deephpc site list` shows the known ones;"
    raise InputError(
        f"no site is called {name!r} ({asked_by})", f"{hint} `deephpc site init` makes one for this cluster"
    )


def load_site(file: SiteFile) -> Site:
    """Read one profile.

    Raises
    ------
    InputError
        The file is unreadable, has unknown keys or bad values, or its `name` is not the file's name.
    """
    site = parse_model(Site, read_toml(file.path), str(file.path))
    if site.name != file.name:
        raise InputError(
            f"{file.path}: name = {site.name!r}, but the file is called {file.name!r}",
            "make the file's name and its `name` the same",
        )
    return site
