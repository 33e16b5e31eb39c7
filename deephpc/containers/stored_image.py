"""An image that lies complete in the store: what runtimes are handed."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deephpc.containers.manifest import Descriptor, ImageConfig, Manifest, Platform


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that lies complete in the store."""

    digest: str
    """Of its manifest: the name it has for ever."""
    names: tuple[str, ...]
    """What it was pulled as, newest last; empty for one imported without a name."""
    source_digest: str
    """What the registry's tag named: this manifest, or an index it is part of."""
    manifest: Manifest
    config: ImageConfig
    pulled: datetime
    used: datetime
    layout_dir: Path
    """An OCI layout with this image alone."""
    blobs: Path

    @property
    def layers(self) -> tuple[Path, ...]:
        """The layers' files, lowest first."""
        return tuple(self.blob(layer) for layer in self.manifest.layers)

    @property
    def platform(self) -> Platform | None:
        """What it runs on."""
        return self.config.platform

    @property
    def size_bytes(self) -> int:
        """What it takes in the store, if it shares nothing."""
        return self.manifest.content_bytes

    def blob(self, descriptor: Descriptor) -> Path:
        """Return where a part of the image lies."""
        return self.blobs / descriptor.digest.removeprefix("sha256:")
