"""`deephpc.lock`: which digest a name stood for when it was last accepted, for runs that can be repeated."""

import sys
from pathlib import Path

import tomli_w
from pydantic import Field, ValidationError

from deephpc.containers.manifest import Digest
from deephpc.errors import EngineError, InputError
from deephpc.model import Model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCKFILE = "deephpc.lock"
_VERSION = 1


class LockedImage(Model):
    """One name and what it stands for."""

    reference: str
    """The full name: docker://registry/repository:tag."""
    digest: Digest
    """What the tag named: a manifest, or an index of several platforms."""
    sif_sha256: Digest | None = None
    """The SIF made of it, where one was."""


class Lockfile(Model):
    """The names a project pins."""

    version: int = _VERSION
    images: dict[str, LockedImage] = Field(default_factory=dict)

    def pin(self, name: str, image: LockedImage) -> "Lockfile":
        """Return the file with one name pinned anew; the hash of an unchanged image's SIF stays."""
        old = self.images.get(name)
        if image.sif_sha256 is None and old is not None and old.digest == image.digest:
            image = image.model_copy(update={"sif_sha256": old.sif_sha256})
        return self.model_copy(update={"images": {**self.images, name: image}})

    def check(self, name: str, digest: str, path: Path) -> None:
        """Refuse a name that moved.

        Raises
        ------
        EngineError
            The name is not pinned, or stood for something else when it was.
        """
        pinned = self.images.get(name)
        if pinned is None:
            raise EngineError(f"{name} is not in {path}", f"pin it: `deephpc image pull {name} --lock`")
        if pinned.digest != digest:
            raise EngineError(
                f"{name} moved: it is {digest} now, {path} says {pinned.digest}",
                f"look at what changed, then `deephpc image pull {name} --lock`; "
                f"or take the old one: {pinned.reference.partition('@')[0]}@{pinned.digest}",
            )


def load_lockfile(path: Path) -> Lockfile:
    """Read a lock file; an empty one where there is none.

    Raises
    ------
    InputError
        It is no TOML, of another version, or lacks what it must have.
    """
    try:
        lockfile = Lockfile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Lockfile()
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{path}: {place}: {error.errors()[0]['msg']}", "mend it, or remove it and pin anew"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}", "mend it, or remove it and pin anew") from error
    if lockfile.version != _VERSION:
        raise InputError(f"{path} has version {lockfile.version}, this deephpc reads {_VERSION}", "update deephpc")
    return lockfile


def render_lockfile(lockfile: Lockfile) -> str:
    """Return the file's text; the same each time, so that version control shows only what changed."""
    said = lockfile.model_dump(mode="json", exclude_none=True)
    images = {name: said["images"][name] for name in sorted(said["images"])}
    return "# Written by `deephpc image pull --lock`.\n" + tomli_w.dumps(
        {"version": lockfile.version, "images": images}
    )
