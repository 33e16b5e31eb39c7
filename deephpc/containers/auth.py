"""Finds a user's credentials for a registry where docker, podman, apptainer and udocker keep them.

Read in this order, the first that knows the registry wins:

1. `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json` (with its credential helpers);
2. `$REGISTRY_AUTH_FILE`, else `$XDG_RUNTIME_DIR/containers/auth.json`, then `~/.config/containers/auth.json`;
3. apptainer's and singularity's `docker-config.json` (`apptainer registry login`);
4. udocker's keystore (`udocker login`).

Source: docker's configuration file (docker login reference, 27), containers-auth.json(5), apptainer 1.4's
`registry login`, udocker 1.3.17's `helper/keystore.py`, and the protocol of docker-credential-helpers 0.8.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deephpc.containers.reference import DOCKER_HUB
from deephpc.errors import InputError
from deephpc.shell import CommandNotFound, run

_HELPER_TIMEOUT_S = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
#: How docker and others name Docker Hub in their files.
_HUB_KEYS = (
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "https://registry-1.docker.io",
    "registry-1.docker.io",
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry is told; a token for refreshing is used where there is one."""

    username: str = ""
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    origin: str = ""
    """The file or helper it came from, for people."""


def find_credentials(registry: str, repository: str, environ: Mapping[str, str], home: Path) -> Credentials | None:
    """Return the user's credentials for a repository; None for an anonymous pull.

    Raises
    ------
    InputError
        A file is no JSON, or a helper that it names does not work.
    """
    for path in _files(environ, home):
        document = _load(path)
        if document is None:
            continue
        found = _from_helper(document, registry, path, environ) or _from_auths(document, registry, repository, path)
        if found is not None:
            return found
    return None


def _files(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    elif environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(environ.get("APPTAINER_CONFIGDIR") or home / ".apptainer") / "docker-config.json"
    yield Path(environ.get("SINGULARITY_CONFIGDIR") or home / ".singularity") / "docker-config.json"
    keystore = environ.get("UDOCKER_KEYSTORE") or "keystore"
    yield Path(environ.get("UDOCKER_DIR") or home / ".udocker") / keystore


def _load(path: Path) -> dict[str, Any] | None:
    """Read a file as the table `{auths: …, credHelpers: …, credsStore: …}`; udocker's is the inner table alone."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.strip():
        return None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON: {error}", "mend it, or log in again with the tool that wrote it"
        ) from error
    if not isinstance(document, dict):
        raise InputError(
            f"{path} is not a table of credentials", "mend it, or log in again with the tool that wrote it"
        )
    is_keystore = document and all(isinstance(each, dict) and "auth" in each for each in document.values())
    return {"auths": document} if is_keystore else document


def _from_helper(
    document: Mapping[str, Any], registry: str, path: Path, environ: Mapping[str, str]
) -> Credentials | None:
    """Ask the helper that is set for this registry, or for all."""
    helpers = document.get("credHelpers")
    for server in _HUB_KEYS if registry == DOCKER_HUB else (registry,):
        name = (helpers.get(server) if isinstance(helpers, dict) else None) or document.get("credsStore")
        if isinstance(name, str) and name:
            found = _ask_helper(name, server, path, environ)
            if found is not None:
                return found
    return None


def _ask_helper(name: str, server: str, path: Path, environ: Mapping[str, str]) -> Credentials | None:
    if not _HELPER_NAME.fullmatch(name):
        raise InputError(f"{path} names a credential helper {name!r}", "a helper is named by letters, digits, . _ -")
    program = f"docker-credential-{name}"
    try:
        answer = run([program, "get"], timeout_s=_HELPER_TIMEOUT_S, env=environ, stdin=server)
    except CommandNotFound as error:
        raise InputError(
            f"{path} asks for credentials from {program}, which is not on PATH", "install it, or remove it there"
        ) from error
    if not answer.ok:  # not found is an answer too: the helpers print it and end with 1
        return None
    try:
        said = json.loads(answer.stdout)
        username, secret = str(said["Username"]), str(said["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{program} gave no credentials for {server}", f"try it: echo {server} | {program} get"
        ) from error
    if username == "<token>":
        return Credentials(refresh_token=secret, origin=program)
    return Credentials(username, secret, origin=program)


def _from_auths(document: Mapping[str, Any], registry: str, repository: str, path: Path) -> Credentials | None:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return None
    known = {_plain(key): entry for key, entry in auths.items() if isinstance(entry, dict)}
    for key in _keys(registry, repository):
        if key in known:
            found = _parse_entry(known[key], path)
            if found is not None:
                return found
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Name what an entry may be filed under, most exact first (containers-auth.json(5))."""
    parts = repository.split("/")
    for length in range(len(parts), -1, -1):
        yield "/".join((registry, *parts[:length]))
    if registry == DOCKER_HUB:
        yield from (_plain(key) for key in _HUB_KEYS)


def _plain(key: str) -> str:
    """Drop what tools put round a registry's name: scheme, /v1/, /v2/, the last slash."""
    return re.sub(
        r"/v[12]/?$", "", key.removeprefix("https://").removeprefix("http://").removeprefix("docker://")
    ).rstrip("/")


def _parse_entry(entry: Mapping[str, Any], path: Path) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(refresh_token=token, origin=str(path))
    username, password = entry.get("username"), entry.get("password")
    if isinstance(username, str) and isinstance(password, str) and username:
        return Credentials(username, password, origin=str(path))
    packed = entry.get("auth")
    if not isinstance(packed, str) or not packed:
        return None
    try:
        username, colon, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} holds credentials that are not base64", "log in again with the tool that wrote it"
        ) from error
    return Credentials(username, password, origin=str(path)) if colon else None
