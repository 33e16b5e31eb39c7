"""An image's own udocker repository, made once, on a login node or in a job.

`udocker load` and `create` (1.3.17) are not used: they copy every layer, miss whiteouts at the root of an image, write
through symbolic links of a lower layer to wherever they point, and end with 0 when tar failed. What is made here is a
repository as udocker keeps it, with one container: `UDOCKER_DIR=PATH udocker ps` lists it.
"""

import contextlib
import json
import stat
import uuid
from pathlib import Path

from deephpc.containers.space import check_quota, check_room, unwritable
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.tree import remove_tree, unpack
from deephpc.lock import hold

FAKECHROOT = "udocker-f"
_LOCK_WAIT_S = 3600.0
_FOLDERS = ("repos", "layers", "containers", "bin", "lib", "doc")


def container_name(digest: str) -> str:
    """Return the name of an image's one container (pure); udocker.sh knows the rule too."""
    return digest.removeprefix("sha256:")[:12]


def root_path(prepared: Path, digest: str) -> Path:
    """Return where the image's files lie in its repository (pure)."""
    return prepared / "containers" / container_name(digest) / "ROOT"


def prepare(image: StoredImage, path: Path, engine: str) -> None:
    """Make an image's repository where it is not there yet; of many processes one does.

    Parameters
    ----------
    engine
        The repository for `udocker-f` has relative links alone: it is not the one of the other modes.

    Raises
    ------
    EngineError
        A layer is not what the configuration says, or would write outside: nothing is kept.
    SiteError
        The place cannot be written.
    """
    try:
        if path.is_dir():
            return
        mode = stat.S_IMODE(image.blobs.parents[1].stat().st_mode)  # what is made is for whom the images are for
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    with contextlib.suppress(PermissionError):  # a colleague made it
        path.parent.chmod(mode)
    check_room(path.parent, image.size_bytes, len(image.layers))  # at least; how much more only unpacking tells
    check_quota(path.parent, image.size_bytes, len(image.layers))
    lock_mode = 0o664 if mode & stat.S_IWGRP else 0o644
    with hold(path.with_name(f"{path.name}.lock"), timeout_s=_LOCK_WAIT_S, mode=lock_mode):
        for half in path.parent.glob(f".{path.name}.*"):  # of owners of the lock that are no more
            remove_tree(half)
        if not path.is_dir():
            _make(image, path, mode, relative_links=engine == FAKECHROOT)


def remove(path: Path) -> None:
    """Remove an image's repository: out of sight first, so that none is ever found half.

    Of a colleague's, what only they can remove stays out of sight until they collect garbage.

    Raises
    ------
    OSError
        It cannot even be renamed.
    """
    dying = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(dying)
    except FileNotFoundError:
        return
    remove_tree(dying)


def _make(image: StoredImage, path: Path, mode: int, *, relative_links: bool) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    container = draft / "containers" / container_name(image.digest)
    try:
        try:
            for folder in (draft, *(draft / name for name in _FOLDERS), container):
                folder.mkdir()
                folder.chmod(mode)  # whatever the umask says
            unpack(image, container / "ROOT", relative_links=relative_links)
            config = json.loads(image.blob(image.manifest.config).read_bytes())
            name = f"deephpc/image:{container_name(image.digest)}"
            for file, content in (("container.json", json.dumps(config)), ("imagerepo.name", name)):
                (container / file).write_text(content, encoding="utf-8")
                (container / file).chmod(0o644)
            draft.rename(path)
        except OSError as error:
            raise unwritable(path, error) from error
    except BaseException:
        remove_tree(draft)
        raise
