"""What a user may name as an image, and docker's rules for turning it into one full name.

Source: the grammar and the normalisation of `docker pull`, as documented in the package `reference` of the
`distribution/reference` project (v0.6), and the OCI image specification 1.1 for digests.
"""

import re
from pathlib import Path
from typing import Literal, TypeAlias

from deephpc.errors import InputError
from deephpc.model import Model

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_OLD_HUB = "index.docker.io"
_MAX_REPOSITORY = 255

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_BARE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_HINT = "an image is written docker://[registry[:port]/]repository[:tag][@sha256:…]"


class RegistryImage(Model):
    """An image in a registry, by its full name."""

    registry: str
    """Host and port as people write it; docker.io for Docker Hub."""
    repository: str
    tag: str | None = None
    """None where only a digest was given."""
    digest: str | None = None
    """`sha256:…`; it wins over the tag."""

    def __str__(self) -> str:
        """Return the full name, with `docker://`."""
        tag = f":{self.tag}" if self.tag else ""
        return f"docker://{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def selector(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def at(self, digest: str) -> "RegistryImage":
        """Return the same image, pinned."""
        return self.model_copy(update={"digest": digest})


class LocalImage(Model):
    """An image in a file or folder of the user's."""

    kind: Literal["oci", "oci-archive", "docker-archive", "sif"]
    path: Path
    name: str | None = None
    """Which image of several, as the file's own index calls it."""

    def __str__(self) -> str:
        """Return it as it is written."""
        if self.kind == "sif":
            return str(self.path)
        return f"{self.kind}:{self.path}" + (f":{self.name}" if self.name else "")


class ModuleImage(Model):
    """A module of the catalogue, whose metadata says which image it has."""

    module: str
    tag: str | None = None
    """None leaves the choice to the registry's tags."""
    digest: str | None = None

    def __str__(self) -> str:
        """Return it as it is written."""
        return self.module + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


class KeptImage(Model):
    """An image in the store, whatever it is called there."""

    digest: str
    """Of its manifest."""

    def __str__(self) -> str:
        """Return the digest."""
        return self.digest


Target: TypeAlias = RegistryImage | LocalImage | ModuleImage


def parse_target(text: str) -> Target:
    """Read what a user named as an image.

    Raises
    ------
    InputError
        It is none of the forms; the message carries the text.
    """
    schemes: tuple[Literal["oci-archive", "docker-archive", "oci"], ...] = ("oci-archive", "docker-archive", "oci")
    for scheme in schemes:
        if text.startswith(f"{scheme}:"):
            return _parse_local(scheme, text)
    if text.startswith("docker://"):
        return parse_reference(text.removeprefix("docker://"), text)
    if text.endswith(".sif"):
        return LocalImage(kind="sif", path=Path(text))
    return _parse_module(text)


def parse_reference(name: str, written: str | None = None) -> RegistryImage:
    """Read an image's name as `docker pull` does: docker.io, library/ and :latest are filled in.

    Parameters
    ----------
    name
        The name without `docker://`.
    written
        The text the user wrote, for the message.

    Raises
    ------
    InputError
        Docker would refuse it too; or the digest is not a sha256.
    """
    said = repr(written if written is not None else name)
    if _BARE_ID.fullmatch(name):
        raise InputError(f"{said} is an image's id, not a name", _HINT)
    rest, digest = _split_digest(name, said)
    registry, remainder = _split_registry(rest)
    repository, colon, tag = remainder.partition(":")
    if not _REGISTRY.fullmatch(registry):
        raise InputError(f"{said}: {registry!r} is not a registry's host[:port]", _HINT)
    if repository != repository.lower():
        raise InputError(f"{said}: the repository {repository!r} has capitals", f"write it {repository.lower()!r}")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _MAX_REPOSITORY:
        raise InputError(f"{said}: {repository!r} is not a repository's name", _HINT)
    if colon and not _TAG.fullmatch(tag):
        raise InputError(f"{said}: {tag!r} is not a tag", "a tag has letters, digits, . _ and -, at most 128")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    chosen = tag or (None if digest else DEFAULT_TAG)
    return RegistryImage(registry=registry, repository=repository, tag=chosen, digest=digest)


def full_name(text: str) -> str | None:
    """Return the full name, with `docker://`, of what an archive calls an image; None where it is but a tag or none."""
    if not ("/" in text or ":" in text):
        return None
    try:
        return str(parse_reference(text.removeprefix("docker://")))
    except InputError:
        return None


def is_digest(text: str) -> bool:
    """Say whether a text is a sha256 digest, in the only form that is safe as a file's name."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Say whether a text can be a tag."""
    return _TAG.fullmatch(text) is not None


def _split_digest(name: str, said: str) -> tuple[str, str | None]:
    rest, at, digest = name.partition("@")
    if not at:
        return rest, None
    if not is_digest(digest):
        raise InputError(f"{said}: {digest!r} is not a digest", "a digest is sha256: and 64 digits 0-9a-f")
    return rest, digest


def _split_registry(name: str) -> tuple[str, str]:
    """Take the registry off: the first part is one when it has a dot, a colon or capitals, or is localhost."""
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not is_host:
        return DOCKER_HUB, name
    return (DOCKER_HUB if first == _OLD_HUB else first), rest


def _parse_local(kind: Literal["oci", "oci-archive", "docker-archive"], text: str) -> LocalImage:
    """Split `kind:path[:name]`; a path has no colon, as in skopeo (containers-transports(5))."""
    path, _, name = text.removeprefix(f"{kind}:").partition(":")
    if not path or "\0" in text:
        raise InputError(f"{text!r} names no file", f"write {kind}:PATH")
    return LocalImage(kind=kind, path=Path(path), name=name or None)


def _parse_module(text: str) -> ModuleImage:
    rest, digest = _split_digest(text, repr(text))
    name, colon, tag = rest.partition(":")
    if not _MODULE.fullmatch(name) or (colon and not _TAG.fullmatch(tag)):
        hint = f"an image in a registry is written docker://{text}" if "/" in text else _HINT
        if text.startswith(("/", "./", "../", "~")):
            hint = f"an image on disk is written oci:{text} (a folder), oci-archive:{text} or docker-archive:{text}"
        raise InputError(f"{text!r} is neither a module's name nor an image", hint)
    return ModuleImage(module=name, tag=tag or None, digest=digest)
