"""Names every file of a run, and reads and writes them so that a reader never meets half a file.

A run folder is owner-only (0700). An array run has one folder; each task keeps its own files under `tasks/N/`.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deephpc.account import account_name
from deephpc.errors import InputError, SiteError
from deephpc.whole_file import replacing

_Read = TypeVar("_Read")
_STALE_TRIES = 3
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "over quota",
    errno.EROFS: "read-only",
    errno.EACCES: "no permission to write",
    errno.EEXIST: "a file lies where a folder should be",
    errno.ENOTDIR: "a file lies where a folder should be",
}


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """The files of one job, or of one task of an array."""

    path: Path
    log: Path

    @property
    def events(self) -> Path:
        """JSON lines the node appends and syncs: started, signalled, finished, ..."""
        return self.path / "events.jsonl"

    @property
    def result(self) -> Path:
        """How the program ended; written once, atomically, by the node."""
        return self.path / "result.json"

    @property
    def cancelled(self) -> Path:
        """When its end was asked for through deephpc; written by the login node."""
        return self.path / "cancelled.json"

    @property
    def output(self) -> Path:
        """`DEEPHPC_OUTPUT_DIR`: what the program keeps."""
        return self.path / "output"

    @property
    def checkpoints(self) -> Path:
        """`DEEPHPC_CHECKPOINT_DIR`: kept across attempts."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """`DEEPHPC_METRICS`: JSON lines the program writes."""
        return self.path / "metrics.jsonl"

    @property
    def shipped_models(self) -> Path:
        """The names of what a module's image had among its models before a training; written by `container.sh`."""
        return self.path / "shipped-models.txt"

    @property
    def opened_models(self) -> Path:
        """The names of the files of its models that a module opened, a line each; written by `deepaas_opened.py`."""
        return self.path / "opened-models.txt"

    @property
    def usage(self) -> Path:
        """JSON lines of the job's own sampling of CPU, memory and GPUs."""
        return self.path / "usage.jsonl"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def plan(self) -> Path:
        """What was decided."""
        return self.path / "plan.json"

    @property
    def script(self) -> Path:
        """Exactly what was submitted."""
        return self.path / "job.sh"

    @property
    def submitted(self) -> Path:
        """What the scheduler answered; written once, by the login node."""
        return self.path / "submitted.json"

    @property
    def cancelled(self) -> Path:
        """When its end was asked for through deephpc; written by the login node."""
        return self.path / "cancelled.json"

    @property
    def standing(self) -> Path:
        """How it ended, as the record judged it; written by the login node once that is final."""
        return self.path / "standing.json"

    @property
    def claim(self) -> Path:
        """Holds the id of the one job that may run here; a second job that starts here ends at once."""
        return self.path / "claim"

    @property
    def container(self) -> Path:
        """Folder of what runs the program in its image: shipped scripts and `facts.sh`."""
        return self.path / "container"

    @property
    def secrets(self) -> Path:
        """Folder (0700) for what must not show in script, log or record."""
        return self.path / "secrets"

    @property
    def secret_env(self) -> Path:
        """Shell file (0600) the script reads variables from."""
        return self.secrets / "env.sh"

    def task(self, number: int | None) -> TaskFolder:
        """Return the files of the job (None) or of one array task."""
        if number is None:
            return TaskFolder(self.path, self.path / "job.log")
        return TaskFolder(self.path / "tasks" / str(number), self.path / f"job-{number}.log")

    def create(self) -> None:
        """Make the folder and whatever is missing above it, 0700.

        Raises
        ------
        SiteError
            The place cannot be written (full, over quota, read-only, forbidden), or others could put another folder
            in place of this one.
        InputError
            A run of this name lies there already.
        """
        try:
            _make_private_folders(self.path.parent)
        except OSError as error:
            raise unwritable(self.path.parent, error) from error
        _check_parent(self.path.parent)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise InputError(f"the run folder {self.path} exists already", "choose another --name") from error
        except OSError as error:
            raise unwritable(self.path.parent, error) from error


def _make_private_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each 0700; what is there stays as it is."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _check_parent(folder: Path) -> None:
    """Check that nobody else can put another folder in place of a run's: they would run what they like as us.

    Raises
    ------
    SiteError
        Others may write there, and no sticky bit keeps them from renaming what is ours.
    """
    status = folder.stat()
    is_ours = status.st_uid in (os.geteuid(), 0)
    is_open = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    if is_open or not is_ours:
        raise SiteError(
            f"others may rename what lies in {folder}, so no run of yours is safe there",
            f"use a folder of your own in it: DEEPHPC_WORK_DIR={folder / account_name()}",
        )


def unwritable(place: Path, error: OSError, setting: str = "work_dir") -> SiteError:
    """Return the error for a place that cannot be written, in words, naming the setting that says where it is."""
    reason = _NO_ROOM.get(error.errno or 0, error.strerror or str(error))
    remedy = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend its permissions"
    hint = f"{remedy}, or set another {setting} (`deephpc config show` tells where it comes from)"
    return SiteError(f"cannot write in {place}: {reason}", hint)


def write_atomically(path: Path, text: str, mode: int = 0o600, *, sync: bool = True) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    sync
        False where the content can be had again and the wait is not worth it.

    Raises
    ------
    SiteError
        The place cannot be written.
    """
    try:
        with replacing(path, mode, sync=sync) as file:
            file.write(text.encode())
    except OSError as error:
        raise unwritable(path.parent, error) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when the file is missing, or is not (yet) whole."""
    text = read_text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the JSON objects of a file, one a line; half lines and foreign lines are passed over."""
    for line in (read_text(path) or "").split("\n"):  # not splitlines(): U+2028 and its like may stand inside a string
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def read_text(path: Path) -> str | None:
    """Read a file another machine may be writing; None when there is none. Bytes that are not UTF-8 are replaced."""
    return _despite_stale_handles(lambda: path.read_text(encoding="utf-8", errors="replace"))


def _despite_stale_handles(read: Callable[[], _Read]) -> _Read | None:
    """Call `read`, again after ESTALE: a file renamed into place on NFS needs to be opened anew."""
    for attempt in range(_STALE_TRIES):
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or attempt + 1 == _STALE_TRIES:
                message = f"cannot read {error.filename}: {error.strerror}"
                raise SiteError(message, "is its file system there? try again in a moment", transient=True) from error
            time.sleep(0.05)
    return None
