"""The index files of catalogues: `MODULES.yml` of version 1 and `.gitmodules` of version 2 → the modules they list."""

import configparser
import re
from collections.abc import Iterator

from deephpc.catalogue.document import UnreadableError, parse_document
from deephpc.catalogue.source import IndexEntry, bare_repository, resolve_repository

_MODULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


def parse_index(text: str, url: str) -> tuple[tuple[IndexEntry, ...], tuple[str, ...]]:
    """Return the modules an index lists, in its order, and the lines that name none.

    Parameters
    ----------
    url
        Where the index is: repositories may be written relative to it.

    Raises
    ------
    UnreadableError
        It is neither form of index.
    """
    is_git = text.lstrip().startswith(("[", "#", ";"))
    found: dict[str, IndexEntry] = {}
    bad: list[str] = []
    for written, branch in _git_lines(text) if is_git else _yaml_lines(text):
        entry = _entry(written, branch, url)
        if entry is None:
            bad.append(written)
        else:
            found.setdefault(entry.repository, entry)
    return tuple(found.values()), tuple(bad)


def is_module_name(name: str) -> bool:
    """Whether a name can stand for a module: one word that is safe as the name of a folder."""
    return _MODULE_NAME.fullmatch(name) is not None


def _entry(written: str, branch: str, url: str) -> IndexEntry | None:
    repository = resolve_repository(written, url)
    name = bare_repository(repository).rpartition("/")[2]
    if not is_module_name(name) or not _BRANCH.fullmatch(branch) or ".." in branch:
        return None
    return IndexEntry(name=name, repository=repository, branch=branch)


def _git_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield address and branch of each submodule (gitmodules(5)); Python's configparser reads that form."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or 1
        raise UnreadableError(int(line), f"not a .gitmodules file: {str(error).splitlines()[0]}") from error
    for section in parser.sections():
        if parser.has_option(section, "url"):
            branch = parser.get(section, "branch", fallback="HEAD").strip() or "HEAD"
            yield parser.get(section, "url").strip(), "HEAD" if branch == "." else branch


def _yaml_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield the address in each `- module: ADDRESS`."""
    items = parse_document(text, "MODULES.yml").value
    if not isinstance(items, list):
        raise UnreadableError(1, "not an index: neither .gitmodules nor a list of `- module: ADDRESS`")
    for item in items:
        address = item.get("module") if isinstance(item, dict) else None
        yield (address, "HEAD") if isinstance(address, str) else (str(item)[:80], "HEAD")
