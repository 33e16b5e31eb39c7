"""What people write for a place of data becomes a `Location`: a path, a URL, or a remote of rclone's configuration."""

import difflib
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deephpc.data.rclone_config import find_remote, load_remotes, remote_names
from deephpc.data.rclone_kinds import remote_settings
from deephpc.data.surroundings import Surroundings
from deephpc.errors import InputError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_REMOTE = re.compile(r"([\w.+@-][\w .+@-]*):(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
#: What may follow a colon as a data set's name, and what before it is complete without it.
_NAMED = re.compile(
    r"(?P<place>(?:[A-Za-z][\w+.-]*://[^/]+/|[\w.+@-][\w .+@-]*:(?!//)|[/.~]|[^:/]+/).*):(?P<name>[^/:]+)", re.DOTALL
)
_LONGEST = 4096
_MAX_ALIASES = 8
#: Settings that are nobody's business; everything else may be told.
_SECRETS = frozenset(
    {
        "password",
        "bearer_token",
        "bearer_token_command",
        "headers",
        "secret_key",
        "session_token",
        "query",
        "key_passphrase",
    }
)
_KINDS = {
    "file": "file",
    "http": "http",
    "https": "http",
    "webdav": "webdav",
    "webdavs": "webdav",
    "dav": "webdav",
    "davs": "webdav",
    "s3": "s3",
    "s3a": "s3",
    "sftp": "sftp",
    "ssh": "sftp",
}


@dataclass(frozen=True)
class Location:
    """A file or folder somewhere; its text is without credentials."""

    kind: str
    """The kind of storage: file, http, webdav, s3, sftp or fsspec."""
    prefix: str
    """What its path follows when it is told."""
    path: str
    """As the storage takes it, with `/`."""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """How the storage is reached; may hold secrets."""

    def __str__(self) -> str:
        """Return the location as people write it, without credentials."""
        return f"{self.prefix}{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether it is in this machine's file system."""
        return self.kind == "file"

    @property
    def name(self) -> str:
        """The last part of the path; empty for a root."""
        return posixpath.basename(self.path.rstrip("/"))

    @property
    def wants_folder(self) -> bool:
        """Whether it was written as a folder, with `/` at its end."""
        return self.path.endswith("/") or not self.path

    @property
    def identity(self) -> str:
        """A digest that is the same for the same place, whatever its credentials or the remote's name."""
        plain = sorted((key, value) for key, value in self.settings.items() if key not in _SECRETS)
        return hashlib.sha256(json.dumps([self.kind, plain, self.path.rstrip("/")]).encode()).hexdigest()

    def child(self, relative: str) -> "Location":
        """Return the location of something below."""
        return replace(self, path=join(self.path, relative))


def join(path: str, relative: str) -> str:
    """Return a path below another; either may be empty."""
    if not relative:
        return path
    return f"{path.rstrip('/')}/{relative}" if path.rstrip("/") or path.startswith("/") else relative


def read_location(text: str, around: Surroundings) -> Location:
    """Return the location a text names; reads rclone's configuration where the text names a remote.

    Raises
    ------
    InputError
        It names none: an unknown remote or protocol, a path with `..` on a server, a text that is no name.
    """
    _check_text(text)
    url = _URL.fullmatch(text)
    if url is not None:
        return _read_url(url[1].lower(), url[2], text)
    remote = _REMOTE.fullmatch(text)
    if remote is not None and not _exists(around.cwd / text):
        return _read_remote(remote[1], remote[2], around, _MAX_ALIASES)
    if text.startswith(":"):
        raise InputError(f"{text!r}: remotes written out in place are not read", "give it a name by `rclone config`")
    return _read_path(text, around)


def split_data_name(text: str) -> tuple[str, str | None]:
    """Split what `--data SRC[:NAME]` takes; the name is None where none is written.

    A remote's own colon, a port, and the colon of `scheme://` never begin a name.

    Raises
    ------
    InputError
        The name could not be that of a folder.
    """
    match = _NAMED.fullmatch(text)
    if match is None:
        return text, None
    if _NAME.fullmatch(match["name"]) is None:
        raise InputError(
            f"the data set's name {match['name']!r} is not a plain one", "use letters, digits, '.', '_' and '-'"
        )
    return match["place"], match["name"]


def lasting_text(text: str, around: Surroundings) -> str:
    """Return a location as it may be written into a plan and read again from any folder; reads rclone's configuration.

    Raises
    ------
    InputError
        It names no place of data, or has credentials in it, which no plan may hold.
    """
    found = read_location(text, around)
    if found.is_local:
        return found.path
    url = _URL.fullmatch(text)
    if url is not None and (_SECRETS & found.settings.keys() or (found.kind == "fsspec" and re.search("[@?]", url[2]))):
        raise InputError(
            f"{found} was written with credentials, which would be kept with the run",
            "give it a name by `rclone config`, or put them into ~/.netrc",
        )
    return text


def _read_path(text: str, around: Surroundings) -> Location:
    if text == "~" or text.startswith("~/"):
        text = f"{around.home}{text[1:]}"
    path = posixpath.normpath(posixpath.join(str(around.cwd), text))
    ends = "/" if text.endswith("/") and path != "/" else ""
    return Location("file", "", path + ends)


def _read_remote(name: str, path: str, around: Surroundings, aliases_left: int) -> Location:
    remotes = load_remotes(around.environ, around.home)
    options = find_remote(name, remotes, around.environ)
    if options is None:
        raise _unknown_remote(name, remote_names(remotes, around.environ))
    kind = options.get("type", "")
    _check_parts(path, f"{name}:{path}")
    if kind == "alias":
        return _read_alias(name, options.get("remote", ""), path, around, aliases_left)
    if kind == "local":
        return _read_path(path or ".", around)
    settings = remote_settings(name, kind, options)
    return Location(kind, f"{name}:", path if kind == "sftp" else path.lstrip("/"), settings)


def _read_alias(name: str, target: str, path: str, around: Surroundings, aliases_left: int) -> Location:
    if not target:
        raise InputError(f"the remote {name!r} is an alias of nothing", "set its `remote` by `rclone config`")
    if not aliases_left:
        raise InputError(f"the remote {name!r} is an alias of itself", "mend it by `rclone config`")
    remote = None if target.startswith("/") else _REMOTE.fullmatch(target)
    if remote is None:
        found = _read_path(target, around)
    else:
        found = _read_remote(remote[1], remote[2], around, aliases_left - 1)
    return found.child(path.lstrip("/"))


def _unknown_remote(name: str, known: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        hint = f"did you mean {near[0]}: ?"
    elif known:
        hint = f"it has {', '.join(known)}; a local path with a colon begins with ./"
    else:
        hint = "make one by `rclone config`, or set RCLONE_CONFIG_<REMOTE>_TYPE; a local path begins with ./"
    return InputError(f"rclone's configuration has no remote {name!r}", hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file
        return False


def _read_url(scheme: str, rest: str, text: str) -> Location:
    kind = _KINDS.get(scheme)
    if kind is None:
        shown = re.sub(r"^[^/?#]*@", "", rest).partition("?")[0]
        return Location("fsspec", f"{scheme}://", shown, {"protocol": scheme, "rest": rest})
    if kind in ("http", "webdav"):
        return _read_web_url(kind, scheme, text)
    host, slash, path = rest.partition("/")
    if kind == "file":
        if host not in ("", "localhost"):
            raise InputError(f"file://{host}/ names another machine", "write file:///PATH, or sftp://HOST/PATH")
        return Location("file", "", posixpath.normpath(unquote(slash + path)) + ("/" if path.endswith("/") else ""))
    user, password, host = _authority(host)
    _check_parts(path, f"{scheme}://{host}{slash}{path}")
    if not host:
        raise InputError(f"{scheme}:// lacks a {'bucket' if kind == 's3' else 'host'}", f"write {scheme}://NAME/PATH")
    if kind == "s3":
        return Location(
            "s3", "s3://", f"{host}/{path}" if path else host, _only_set(access_key=user, secret_key=password)
        )
    address, port = _host_and_port(host)
    at_home = path.startswith("~/") or path == "~"
    shown = f"sftp://{host}/~/" if at_home else f"sftp://{host}"
    settings = _only_set(host=address, port=port, user=user, password=password)
    return Location("sftp", shown, path[2:] if at_home else f"/{path}", settings)


def _read_web_url(kind: str, scheme: str, text: str) -> Location:
    try:
        parts = urlsplit("//" + text.partition("://")[2])
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise InputError(f"the address of a {scheme}:// URL is not one: {error}", "write HOST or HOST:PORT") from error
    if not host:
        raise InputError(f"{scheme}:// lacks a host", f"write {scheme}://HOST/PATH")
    host = f"[{host}]" if ":" in host else host
    base = f"{'https' if scheme.endswith('s') else 'http'}://{host}{port}"
    path = unquote(parts.path).lstrip("/")
    _check_parts(path, f"{scheme}://{host}{port}/{path}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    settings = _only_set(url=base, user=user, password=password, query=parts.query)
    return Location(kind, f"{scheme}://{host}{port}/", path, settings)


def _authority(text: str) -> tuple[str, str, str]:
    """Split `user:password@host`."""
    login, _, host = text.rpartition("@")
    user, _, password = login.partition(":")
    return unquote(user), unquote(password), host


def _host_and_port(text: str) -> tuple[str, str]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "", str(parts.port or "")
    except ValueError as error:
        raise InputError(f"{text!r} is not HOST or HOST:PORT", "mend the URL") from error


def _only_set(**settings: str) -> dict[str, str]:
    return {key: value for key, value in settings.items() if value}


def _check_text(text: str) -> None:
    if not text.strip():
        raise InputError("an empty name is no place of data", "write a path, a URL, or REMOTE:PATH")
    if len(text) > _LONGEST:
        raise InputError(f"a location of {len(text)} characters is longer than any", f"at most {_LONGEST}")
    if "\0" in text:
        raise InputError("a location has a zero byte in it", "write a path, a URL, or REMOTE:PATH")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the location {text!r} is not UTF-8 text", "rename it") from error


def _check_parts(path: str, shown: str) -> None:
    if ".." in path.split("/"):
        raise InputError(f"{shown} has '..' in it, which servers read differently", "write the path without it")
