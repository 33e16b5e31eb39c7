"""A module of a catalogue, whichever schema described it."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from deephpc.catalogue.finding import Finding
from deephpc.model import Model

TRAINABLE, INFERENCE, PRE_TRAINED = "AI4 trainable", "AI4 inference", "AI4 pre trained"


class ModuleResources(Model):
    """What one use of a module needs, as its authors say."""

    cpus: int | None = None
    gpus: int | None = None
    memory_mb: int | None = None
    """In units of 10^6 bytes, as the schema says MB."""
    gpu_memory_mb: int | None = None
    gpu_compute_capability: float | None = None
    """NVIDIA's number, such as 7.0."""
    storage_mb: int | None = None


class Module(Model):
    """One module in the words of version 2 of the schema.

    An invalid module still carries what could be read of it; `problems` says why it is invalid.
    """

    name: str
    source: str
    """The catalogue it is from."""
    repository: str = ""
    """Where its metadata is kept."""
    file: str = ""
    """The metadata file that was read."""
    schema_version: str = ""
    """`1` or `2`, told by shape; empty when no file could be read."""
    title: str = ""
    summary: str = ""
    description: str = ""
    licence: str = ""
    """Empty when nobody says; version 2 of the schema has no place for it."""
    image: str = ""
    """Image name, with a tag only if the metadata has one; empty when there is none to pull."""
    image_tags: tuple[str, ...] = ()
    """Tags the metadata lists; a registry may have others."""
    libraries: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()
    links: Mapping[str, str] = Field(default_factory=dict)
    """Version 2's names of links → web addresses; placeholders are left out."""
    doi: str = ""
    created: str = ""
    updated: str = ""
    training: ModuleResources | None = None
    inference: ModuleResources | None = None
    problems: tuple[str, ...] = ()
    """Why it is invalid, one line each with file and line; empty when it is valid."""
    notes: tuple[str, ...] = ()
    """What was mended or set aside to read it."""
    as_of: datetime
    """When this copy was last known to be the current one."""
    trouble: str = ""
    """Why there is no newer copy; empty when the last update reached it."""

    @property
    def is_valid(self) -> bool:
        """Whether its metadata keeps to its schema."""
        return not self.problems

    @property
    def is_trainable(self) -> bool:
        """Whether users can train it on their own data."""
        return TRAINABLE in self.categories

    @property
    def has_inference(self) -> bool:
        """Whether it can be asked for predictions."""
        return INFERENCE in self.categories

    @property
    def is_pre_trained(self) -> bool:
        """Whether it comes trained."""
        return PRE_TRAINED in self.categories


class FileVerdict(Model):
    """What one metadata file is worth."""

    file: str
    schema_version: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it has no errors."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make it invalid."""
        return tuple(finding for finding in self.findings if finding.level == "error")
