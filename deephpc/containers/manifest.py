"""The documents of an image: descriptors, manifests, indexes, configurations; read strictly, since registries may lie.

Source: OCI image specification 1.1 (descriptor, manifest, index, config) and Docker's image manifest version 2,
schema 2, which share their shape.
"""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deephpc.containers.reference import is_digest
from deephpc.errors import EngineError, InputError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html", "")
"""What the configuration of an image to run is called; registries once wrote the last four, and docker takes them
(moby, distribution/registry.go at fb5485f)."""
INDEXES = (OCI_INDEX, DOCKER_INDEX)
#: The most a manifest or configuration may measure; registries themselves stop at 4 MiB.
MAX_DOCUMENT_BYTES = 4 << 20
_MAX_LAYERS = 1000
_MAX_SHOWN = 200
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}

_M = TypeVar("_M", bound=BaseModel)


def _digest(value: str) -> str:
    if not is_digest(value):
        raise ValueError(f"{value[:80]!r} is not a sha256 digest")
    return value


Digest = Annotated[str, AfterValidator(_digest)]


class _Document(BaseModel):
    """A document of somebody else's: keys we do not know are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        """Read `null` as nothing said: builders written in Go leave it for empty lists and tables."""
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


class Platform(_Document):
    """What a node must be to run an image."""

    os: str = "linux"
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        """Return `os/architecture[/variant]`."""
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")

    def runs(self, other: "Platform") -> bool:
        """Say whether a node of this platform runs an image for the other; arm64 means arm64/v8."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return None in (self.variant, other.variant) or self.variant == other.variant


class Descriptor(_Document):
    """Names content by its hash and size."""

    media_type: str = Field(alias="mediaType")
    digest: Digest
    size: int = Field(ge=0, le=1 << 50)
    platform: Platform | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class Manifest(_Document):
    """One image for one platform."""

    schema_version: int = Field(alias="schemaVersion")
    media_type: str | None = Field(None, alias="mediaType")
    config: Descriptor
    layers: tuple[Descriptor, ...] = Field(max_length=_MAX_LAYERS)

    @model_validator(mode="after")
    def _check_sizes(self) -> "Manifest":
        """Refuse content that is named with two sizes: one of them is a lie."""
        if len({(each.digest, each.size) for each in (self.config, *self.layers)}) > len(self.contents):
            raise ValueError("one digest has two sizes")
        return self

    @property
    def contents(self) -> tuple[Descriptor, ...]:
        """Everything the manifest needs, each once: the configuration, then the layers."""
        return tuple({each.digest: each for each in (self.config, *self.layers)}.values())

    @property
    def content_bytes(self) -> int:
        """The size of all that."""
        return sum(each.size for each in self.contents)


class Index(_Document):
    """The same image for several platforms, or the images of a layout."""

    schema_version: int = Field(alias="schemaVersion")
    manifests: tuple[Descriptor, ...]


class ProcessConfig(_Document):
    """What docker would start; empty where the image says nothing."""

    user: str = Field("", alias="User")
    env: tuple[str, ...] = Field((), alias="Env")
    entrypoint: tuple[str, ...] = Field((), alias="Entrypoint")
    cmd: tuple[str, ...] = Field((), alias="Cmd")
    working_dir: str = Field("", alias="WorkingDir")
    labels: dict[str, str] = Field(default_factory=dict, alias="Labels")


class RootFs(_Document):
    """The hashes of the layers before compression."""

    diff_ids: tuple[Digest, ...] = ()


class ImageConfig(_Document):
    """An image's configuration."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    created: str | None = None
    process: ProcessConfig = Field(default_factory=ProcessConfig, alias="config")
    rootfs: RootFs = RootFs()

    @property
    def platform(self) -> Platform | None:
        """The platform the image says it is for; None where it does not."""
        if not self.architecture:
            return None
        return Platform(os=self.os or "linux", architecture=self.architecture, variant=self.variant or None)


def parse_platform(text: str) -> Platform:
    """Read `os/architecture[/variant]`, or an architecture alone.

    Raises
    ------
    InputError
        It is neither.
    """
    parts = text.split("/")
    if not all(parts) or len(parts) > 3:
        raise InputError(f"--platform {text!r} is not a platform", "write it like linux/amd64 or linux/arm64")
    if len(parts) == 1:
        return Platform(os="linux", architecture=_MACHINES.get(text, text))
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) > 2 else None)


def local_platform() -> Platform:
    """Return the platform of this machine (uname(2))."""
    machine = os.uname().machine
    return Platform(os="linux", architecture=_MACHINES.get(machine, machine))


def parse_document(model: type[_M], content: bytes, where: str) -> _M:
    """Read a document of an image.

    Raises
    ------
    EngineError
        It is not JSON, or lacks what it must have.
    """
    try:
        return model.model_validate(_json_object(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EngineError(
            f"{where} is not a proper {model.__name__.lower()}: {plain(place)}: {plain(first['msg'])}",
            "the image is broken; tell its authors, or take another tag",
        ) from error
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"{where} is not JSON: {plain(str(error))}", "the image is broken; take another tag"
        ) from error


def media_type_of(content: bytes, said: str | None) -> str:
    """Return what a manifest is: its own word, else the server's, else its shape."""
    try:
        document = _json_object(content)
    except (ValueError, RecursionError):
        return said or ""
    own = document.get("mediaType")
    if isinstance(own, str) and own:
        return own
    if said in (*MANIFESTS, *INDEXES):
        return str(said)
    if "manifests" in document:
        return OCI_INDEX
    return OCI_MANIFEST if "config" in document else (said or "")


def choose_manifest(index: Index, platform: Platform, where: str) -> Descriptor:
    """Choose the one of several manifests that a platform runs; an exact variant wins.

    Raises
    ------
    EngineError
        There is none; the message lists what there is.
    """
    fitting = [each for each in index.manifests if each.platform is not None and platform.runs(each.platform)]
    exact = [each for each in fitting if each.platform is not None and each.platform.variant == platform.variant]
    if fitting:
        return (exact or fitting)[0]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    there = sorted(
        {plain(str(each.platform)) for each in index.manifests if each.platform and each.platform.os != "unknown"}
    )
    raise EngineError(
        f"{where} has no image for {platform}, only for {', '.join(there) or 'nothing named'}",
        "give the platform of the nodes with --platform, or take another image",
    )


def check_platform(config: ImageConfig, platform: Platform, where: str) -> None:
    """Refuse an image for another kind of machine.

    Raises
    ------
    EngineError
        The image says that it is for another platform.
    """
    own = config.platform
    if own is not None and not platform.runs(own):
        raise EngineError(
            f"{where} is for {plain(str(own))}, not for {platform}", "take it for nodes of that kind with --platform"
        )


def plain(text: str) -> str:
    """Return a text of somebody else's as it may stand in a message: short, and nothing a terminal would obey."""
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"


def render_document(document: Mapping[str, Any]) -> bytes:
    """Return a document as bytes that are the same each time."""
    return json.dumps(document, indent=2, sort_keys=True).encode()


def _json_object(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - parse_document turns it into words
    return document
