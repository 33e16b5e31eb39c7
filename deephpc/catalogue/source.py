"""A source of modules: where a catalogue is kept, and where it keeps each module's metadata."""

import re
from typing import Literal
from urllib.parse import urljoin, urlsplit

from pydantic import field_validator

from deephpc.errors import InputError
from deephpc.model import Model

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PLACEHOLDERS = re.compile(r"\{([^{}]*)\}")
_KNOWN_PLACEHOLDERS = frozenset({"repository", "owner", "name", "branch", "file"})
_SSH_FORM = re.compile(r"^(?:ssh://)?git@([^:/]+)[:/](.+)$")
#: Where hosting services serve one file of a repository, by host.
_RAW_FORMS = {
    "github.com": "https://raw.githubusercontent.com/{owner}/{name}/{branch}/{file}",
    "gitlab.com": "{repository}/-/raw/{branch}/{file}",
}
_PLAIN_FORM = "{repository}/{file}"


class Source(Model):
    """One catalogue."""

    name: str
    """Lower case, unique among the sources."""
    url: str
    """An index (`MODULES.yml`, `.gitmodules`) by http or any fsspec protocol, or a folder by any fsspec protocol."""
    files: str = ""
    """Where a module's file is: a template of {repository} {owner} {name} {branch} {file}; empty follows the host."""
    organisation: str = ""
    """Who publishes the images; completes image names that lack it."""
    whose: Literal["shipped", "user"] = "user"

    @field_validator("name")
    @classmethod
    def _name_is_simple(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name is of lower-case letters, digits, dots and dashes")
        return value

    @field_validator("files")
    @classmethod
    def _placeholders_are_known(cls, value: str) -> str:
        unknown = set(_PLACEHOLDERS.findall(value)) - _KNOWN_PLACEHOLDERS
        if unknown:
            raise ValueError(f"{{{unknown.pop()}}} is none of {', '.join(sorted(_KNOWN_PLACEHOLDERS))}")
        if value and "{file}" not in value:
            raise ValueError("{file} must stand in it")
        return value

    @property
    def is_web(self) -> bool:
        """Whether it is fetched over HTTP."""
        return is_web(self.url)


class IndexEntry(Model):
    """One line of an index: a module's repository."""

    name: str
    repository: str
    """Its address, without `.git` and slashes behind it."""
    branch: str = "HEAD"


def is_web(url: str) -> bool:
    """Whether an address is fetched over HTTP."""
    return url.startswith(("http://", "https://"))


def checked_url(url: str) -> str:
    """Return the address of a source as it will be fetched; a GitHub project's page becomes its `.gitmodules`.

    Raises
    ------
    InputError
        Nothing can be fetched from it.
    """
    text = url.strip()
    if not text or any(c.isspace() or not c.isprintable() for c in text):
        raise InputError(f"{url!r} is not the address of a catalogue", "give a web address or a folder")
    parts = urlsplit(text)
    if is_web(text) and parts.username:
        raise InputError("the address carries a user name or a password", "keep secrets out of it; use a folder")
    if parts.hostname == "github.com" and len(parts.path.strip("/").split("/")) == 2:
        return "https://raw.githubusercontent.com/" + bare_repository(parts.path.strip("/")) + "/HEAD/.gitmodules"
    return text


def bare_repository(url: str) -> str:
    """Return a repository's address without `.git` and slashes behind it; `git@host:path` becomes https."""
    text = url.strip().rstrip("/").removesuffix(".git").rstrip("/")
    ssh = _SSH_FORM.match(text)
    return f"https://{ssh[1]}/{ssh[2]}" if ssh else text


def resolve_repository(written: str, index_url: str) -> str:
    """Return the address of a repository an index names, which may be relative to the index (gitmodules(5))."""
    text = bare_repository(written)
    if not text.startswith(("./", "../")):
        return text
    folder = index_url.rpartition("/")[0] + "/"
    if is_web(index_url):
        return urljoin(folder, text).rstrip("/")
    parts = folder.rstrip("/").split("/")
    for step in text.split("/"):
        if step == "..":
            parts = parts[:-1]
        elif step not in (".", ""):
            parts.append(step)
    return "/".join(parts)


def file_address(source: Source, entry: IndexEntry, file: str) -> str:
    """Return where one metadata file of a module is."""
    parts = urlsplit(entry.repository)
    form = source.files or _RAW_FORMS.get(parts.hostname or "", _PLAIN_FORM)
    owner = parts.path.strip("/").rpartition("/")[0]
    values = {
        "repository": entry.repository,
        "owner": owner,
        "name": entry.name,
        "branch": entry.branch,
        "file": file,
    }
    return _PLACEHOLDERS.sub(lambda match: values[match[1]], form)
