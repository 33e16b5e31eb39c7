"""The staging cache: data sets as read-only folders named by their manifest's digest, each content kept once.

    objects/ab/HEX      every file by its sha256, read-only; the folders of data sets are hard links to them
    sets/HEX/data       a data set, ready to be bound into jobs        sets/HEX/manifest.json
    ledgers/            what earlier transfers saw, by source          partial/  what is on its way          locks/

The cache is the user's own (0700): what comes from a private remote must not become readable to a group.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.disk import unwritable
from deephpc.data.ledger import Ledger
from deephpc.data.manifest import Manifest, parse_manifest, render_manifest
from deephpc.data.storage import Missing
from deephpc.errors import InputError
from deephpc.model import Model

_FILE_MODE = 0o444
_FOLDER_MODE = 0o555
Hold = Callable[[Path], AbstractContextManager[object]]


class StagedSet(Model):
    """A data set in the cache."""

    digest: str
    folder: Path
    """Read-only; holds the files under their own paths."""
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Cache:
    """One user's data on shared storage.

    Parameters
    ----------
    hold
        Holds a lock's file for a block, among processes of several login nodes.
    """

    root: Path
    hold: Hold
    open_mode = 0o600
    final_mode = _FILE_MODE

    def part(self, path: str, key: str) -> Path:
        """Return where a file lies while it is on its way."""
        del path
        return self.root / "partial" / key

    def final(self, path: str, sha256: str) -> Path:
        """Return where a content belongs."""
        del path
        return self.root / "objects" / sha256[:2] / sha256

    def prepare(self) -> None:
        """Make the cache's folders.

        Raises
        ------
        Unwritable
            The place cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            for name in ("objects", "sets", "ledgers", "partial", "locks"):
                (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def ledger(self, key: str) -> Ledger:
        """Return what transfers between one pair of places have seen."""
        return Ledger(self.root / "ledgers" / f"{key}.jsonl")

    def holding(self, key: str) -> AbstractContextManager[object]:
        """Hold the right to transfer between one pair of places; waits as long as another owner lives."""
        return self.hold(self.root / "locks" / f"{key}.lock")

    def find(self, digest: str) -> StagedSet | None:
        """Return a data set by its digest or the digest's first digits; None when it is not here.

        Raises
        ------
        InputError
            Several begin so.
        """
        begin = digest.removeprefix("sha256:")
        names = [begin] if len(begin) == 64 else [each.name for each in self._sets() if each.name.startswith(begin)]
        if len(names) > 1:
            raise InputError(f"{len(names)} staged data sets begin with {begin!r}", "write more digits")
        manifest = self.manifest(names[0]) if names else None
        return None if manifest is None else self._staged(manifest)

    def sets(self) -> tuple[StagedSet, ...]:
        """Return all data sets."""
        found = (self.manifest(each.name) for each in self._sets())
        return tuple(self._staged(each) for each in found if each is not None)

    def manifest(self, name: str) -> Manifest | None:
        """Return a data set's manifest by the 64 digits of its digest; None when it is not here."""
        path = self.root / "sets" / name / "manifest.json"
        try:
            return parse_manifest(path.read_bytes(), str(path))
        except OSError:
            return None

    def add(self, manifest: Manifest) -> StagedSet:
        """Make the folder of a data set whose files are all among the objects.

        Raises
        ------
        Missing
            An object is gone: somebody cleans the cache.
        Unwritable
            The place cannot be written.
        """
        staged = self._staged(manifest)
        if not staged.folder.exists():
            draft = self.root / "sets" / f".{uuid.uuid4().hex}"
            try:
                self._build(draft, manifest)
                with contextlib.suppress(FileExistsError):
                    self._rename(draft, staged.folder.parent)
            except OSError as error:
                raise unwritable(draft.parent, error) from error
            finally:
                _remove_tree(draft)
        with contextlib.suppress(OSError):
            (staged.folder.parent / "used").touch()
        return staged

    def _build(self, draft: Path, manifest: Manifest) -> None:
        data = draft / "data"
        data.mkdir(parents=True)
        folders = {data}
        for each in manifest.files:
            target = data / each.path
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.update(above for above in target.parents if above.is_relative_to(data))
            _link(self.final(each.path, each.sha256), target)
        for folder in folders:
            folder.chmod(_FOLDER_MODE)
        (draft / "manifest.json").write_text(render_manifest(manifest), encoding="utf-8")

    @staticmethod
    def _rename(draft: Path, place: Path) -> None:
        try:
            draft.rename(place)
        except OSError as error:
            if not place.exists():
                raise
            raise FileExistsError from error  # another process was faster, with the same content

    def _staged(self, manifest: Manifest) -> StagedSet:
        folder = self.root / "sets" / manifest.digest.removeprefix("sha256:") / "data"
        size = manifest.size_bytes
        return StagedSet(digest=manifest.digest, folder=folder, files=len(manifest.files), size_bytes=size)

    def _sets(self) -> list[Path]:
        try:
            return sorted(each for each in (self.root / "sets").iterdir() if not each.name.startswith("."))
        except OSError:
            return []


def _link(source: Path, target: Path) -> None:
    """Give a content one more name; a copy where the file system has no more links, or none at all."""
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise Missing(f"{source} is gone", "is somebody cleaning the cache? say it again") from error
    except OSError:
        shutil.copy2(source, target)
        target.chmod(_FILE_MODE)


def _remove_tree(folder: Path) -> None:
    """Remove a folder of read-only folders."""
    if not folder.exists():
        return
    for above, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(above).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
