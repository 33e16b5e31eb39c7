"""Unpacks an image's layers into a folder that nobody changes later; no layer writes outside it."""

import contextlib
import os
import shutil
import stat
import tarfile
from pathlib import Path

from deephpc.containers.layer_check import check_count, member_path, read_layer, removed_by
from deephpc.containers.space import unwritable
from deephpc.containers.stored_image import StoredImage
from deephpc.errors import EngineError

_CHUNK_BYTES = 1 << 20
_MAX_LINKS = 40
_LATEST_S = 0xFFFFFFFF
_OF_THE_NODE = ("/proc/", "/sys/", "/dev/")
_OPEN_FOLDER = 0o755
_HINT = "the image is broken or hostile; take another tag"


def unpack(image: StoredImage, root: Path, *, relative_links: bool = False) -> None:
    """Unpack an image into a new folder.

    What there is belongs to the caller and is read-only; who may read or run a file as its owner may so as anybody:
    the folder above guards it. Devices are left out, setuid bits dropped, extended attributes not kept.

    Parameters
    ----------
    relative_links
        Make absolute symbolic links relative, so that they lead to the same place where the folder is not the root.

    Raises
    ------
    EngineError
        A layer is not what the configuration says, or would write outside the folder.
    SiteError
        The place cannot be written.
    """
    check_count(image)
    try:
        root.mkdir(mode=_OPEN_FOLDER)
        tree = _Tree(root, relative_links=relative_links)
        for path, diff_id in zip(image.layers, image.config.rootfs.diff_ids, strict=True):
            tree.add(path, diff_id)
        tree.seal()
    except OSError as error:
        raise unwritable(root, error) from error


def remove_tree(path: Path) -> None:
    """Remove a folder with read-only folders in it; one that is not there is fine, and what is a colleague's stays."""
    for folder, folders, _ in os.walk(path):
        for each in (folder, *(os.path.join(folder, name) for name in folders)):  # noqa: PTH118 - 10⁵ of them
            if not os.path.islink(each):  # noqa: PTH114
                with contextlib.suppress(OSError):
                    os.chmod(each, 0o700)  # noqa: PTH101
    shutil.rmtree(path, ignore_errors=True)


def tree_bytes(path: Path) -> int:
    """Return roughly what the files under a folder take; what cannot be looked at counts nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - 10⁵ of them
    return total


class _Tree:
    """A root folder that only we write, layer upon layer.

    Nobody else changes it meanwhile, so that what was looked at stays as it was seen.
    """

    def __init__(self, root: Path, *, relative_links: bool) -> None:
        self._root = str(root)
        self._relative_links = relative_links
        self._parents: dict[str, str] = {}
        """Folder as named by a layer → where it truly is, after symbolic links, from the root."""
        self._made: set[str] = set()
        """What the present layer brought, from the root: its whiteouts do not reach it."""
        self._folders: dict[str, tuple[int, float]] = {}
        self._left_out: set[str] = set()
        """Devices, and further names of theirs."""
        self._layer = ""

    def add(self, path: Path, diff_id: str) -> None:
        """Put a layer over what is here."""
        self._layer = diff_id.removeprefix("sha256:")[:12]
        self._made = set()
        self._parents.clear()
        with read_layer(path, diff_id) as members:
            for archive, member in members:
                try:
                    self._apply(archive, member)
                except ValueError as error:  # a name or time no file system takes
                    raise EngineError(f"layer {self._layer}: {member.name!r}: {error}", _HINT) from error

    def seal(self) -> None:
        """Take all write permissions away and give folders the times they had."""
        for folder, _, _ in os.walk(self._root, topdown=False):
            mode, seconds = self._folders.get(folder[len(self._root) + 1 :], (_OPEN_FOLDER, None))
            os.chmod(folder, _sealed(mode | 0o100))  # noqa: PTH101
            if seconds is not None:
                os.utime(folder, (seconds, seconds))

    def _apply(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member_path(member.name, self._layer)
        removed = removed_by(name, self._layer)
        if removed is not None:
            self._remove(removed)
        elif name:
            self._put(archive, member, name)

    def _put(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        place = self._locate(name)
        path = f"{self._root}/{place}"
        found = _kind(path)
        if found is not None and not (member.isdir() and stat.S_ISDIR(found)):
            self._discard(path)
            found = None
        if member.isdir():
            if found is None:
                os.mkdir(path, _OPEN_FOLDER)  # noqa: PTH102
            self._folders[place] = (member.mode, _seconds(member))
        elif member.isreg():
            self._write(archive, member, path)
        elif member.islnk():
            self._link(member, place)
        elif member.issym():
            os.symlink(self._link_target(member.linkname, place), path)  # noqa: PTH211
        elif member.isfifo():
            os.mkfifo(path, _sealed(member.mode))
        else:
            self._left_out.add(place)
        self._made.add(place)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = archive.extractfile(member)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as target:  # noqa: PTH123
            if source is not None:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
            os.fchmod(descriptor, _sealed(member.mode))
            os.utime(descriptor, (_seconds(member),) * 2)  # Python's compiled files are valid by it

    def _link(self, member: tarfile.TarInfo, place: str) -> None:
        linked = self._locate(member_path(member.linkname, self._layer))
        target = f"{self._root}/{linked}"
        found = _kind(target)
        if found is None and linked in self._left_out:
            self._left_out.add(place)
            return
        if found is None or stat.S_ISDIR(found):
            raise EngineError(
                f"layer {self._layer}: {member.name!r} is a link to {member.linkname!r}, which is no file", _HINT
            )
        os.link(target, f"{self._root}/{place}", follow_symlinks=False)

    def _link_target(self, target: str, place: str) -> str:
        if not self._relative_links or not target.startswith("/") or target.startswith(_OF_THE_NODE):
            return target
        return "../" * place.count("/") + (target.lstrip("/") or ".")

    def _locate(self, name: str) -> str:
        """Return where a member truly lies, from the root; the folders above it are made."""
        folder, _, base = name.rpartition("/")
        if not base:
            raise EngineError(f"layer {self._layer}: the root is used as a file", _HINT)
        parent = self._parents.get(folder)
        if parent is None:
            parent = self._parents[folder] = self._enter(folder)
        return f"{parent}/{base}" if parent else base

    def _enter(self, folder: str) -> str:
        """Follow a folder's name, symbolic links as if the root were `/`, and make what is missing."""
        here: list[str] = []
        todo = [part for part in reversed(folder.split("/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del here[-1:]
                continue
            path = "/".join((self._root, *here, part))
            found = _kind(path)
            if found is None:
                os.mkdir(path, _OPEN_FOLDER)  # noqa: PTH102
            elif stat.S_ISLNK(found):
                links += 1
                target = os.readlink(path)  # noqa: PTH115
                if links > _MAX_LINKS:
                    raise EngineError(f"layer {self._layer}: {folder!r} is a circle of links", _HINT)
                if target.startswith("/"):
                    here.clear()
                todo.extend(each for each in reversed(target.split("/")) if each not in ("", "."))
                continue
            elif not stat.S_ISDIR(found):
                raise EngineError(f"layer {self._layer}: {folder!r} is a file and a folder", _HINT)
            here.append(part)
            self._made.add("/".join(here))
        return "/".join(here)

    def _remove(self, removed: str) -> None:
        """Carry out a whiteout: on what lower layers brought alone."""
        if removed.endswith("/"):
            inside = self._enter(removed.strip("/"))
            self._remove_lower(inside, keep=True)
        elif removed:
            self._remove_lower(self._locate(removed), keep=False)

    def _remove_lower(self, place: str, *, keep: bool) -> None:
        path = f"{self._root}/{place}" if place else self._root
        found = _kind(path)
        if found is None:
            return
        if not keep and place not in self._made:
            self._discard(path)
        elif stat.S_ISDIR(found):
            for name in os.listdir(path):  # noqa: PTH208
                self._remove_lower(f"{place}/{name}" if place else name, keep=False)

    def _discard(self, path: str) -> None:
        found = os.lstat(path).st_mode
        if stat.S_ISDIR(found):
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108
        if not stat.S_ISREG(found):
            self._parents.clear()


def _kind(path: str) -> int | None:
    """Return what lies there, a symbolic link as such; None when nothing does."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def _seconds(member: tarfile.TarInfo) -> float:
    """Return when a member was changed, as file systems can take it."""
    return member.mtime if 0 <= member.mtime <= _LATEST_S else 0.0


def _sealed(mode: int) -> int:
    """Return the permissions of a file nobody writes: for everybody what its owner had, reading in any case."""
    return ((mode >> 6 & 0o5) | 0o4) * 0o111
