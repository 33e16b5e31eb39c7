"""Lists what leaves of a run: what its program kept, its log and its result; for an array, task by task."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from deephpc.data.local import entry_of
from deephpc.data.manifest import LeftOut, shown_name
from deephpc.data.storage import Entry
from deephpc.jobs.job import Job
from deephpc.model import Model
from deephpc.room import why_refused

_KEPT = ("output", "checkpoints")
_TOLD = ("result.json", "metrics.jsonl", "usage.jsonl")
_OF_THE_RUN = ("plan.json", "source.diff", "results.csv", "results.jsonl")


class Piece(Model):
    """What leaves together: of one job, of one task of an array, or of an array as a whole."""

    task: int | None
    names: tuple[str, ...]
    """Files and folders below the run folder; those that are not there are passed over."""
    is_final: bool
    """False while its program runs: only what the program keeps leaves then, not what is being appended to."""


def pieces_of(job: Job, task: int | None) -> tuple[Piece, ...]:
    """Return what leaves of a run, or of one task of its array (pure)."""
    if task is not None:
        return (piece_of(task, is_final=job.state_of(task).is_final),)
    if not job.tasks:
        return (piece_of(None, is_final=job.state.is_final),)
    each = (piece_of(number, is_final=job.state_of(number).is_final) for number in sorted(job.tasks))
    whole = Piece(task=None, names=_OF_THE_RUN, is_final=job.state.is_final)
    return (*each, whole)


def piece_of(task: int | None, *, is_final: bool) -> Piece:
    """Return what leaves of a plain run (None) or of one task of an array (pure)."""
    begin = "" if task is None else f"tasks/{task}/"
    names = [f"{begin}{name}" for name in (*_KEPT, *(_TOLD if is_final else ()))]
    if is_final:
        names += [f"job-{task}.log"] if task is not None else ["job.log", *_OF_THE_RUN]
    return Piece(task=task, names=tuple(names), is_final=is_final)


def list_results(folder: Path, names: Sequence[str]) -> tuple[tuple[Entry, ...], tuple[LeftOut, ...]]:
    """List the files of a piece; links to files of the run count as files.

    Left out are links to folders, what is no file, and links out of the run folder: whoever wrote them, an image of
    a stranger's perhaps, may not see what lies there. So is what cannot be read.
    """
    entries: list[Entry] = []
    left: list[LeftOut] = []
    home = folder.resolve()
    for path in _walk(folder, names):
        name = str(path.relative_to(folder))
        shown = shown_name(name)
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode) and not path.is_symlink():
                os.listdir(path)  # noqa: PTH208 - raises why it could not be listed
        except FileNotFoundError:
            if path.is_symlink():
                left.append(LeftOut(path=shown, reason="is a link to nothing"))
            continue
        except OSError as error:
            left.append(LeftOut(path=shown, reason=f"cannot be read: {why_refused(error)}"))
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            left.append(LeftOut(path=shown, reason="is a link out of the run folder"))
        elif stat.S_ISREG(found.st_mode):
            entries.append(entry_of(found, name, str(path)))
        else:
            what = "is a link to a folder" if stat.S_ISDIR(found.st_mode) else "is neither a file nor a folder"
            left.append(LeftOut(path=shown, reason=what))
    return tuple(entries), tuple(left)


def _walk(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield all that is no real folder, or one that cannot be listed."""
    waiting = [folder / name for name in reversed(names)]
    while waiting:
        path = waiting.pop()
        if not path.is_dir() or path.is_symlink():
            yield path
            continue
        try:
            waiting += sorted(map(Path, os.scandir(path)), reverse=True)
        except FileNotFoundError:  # a program that runs has removed it
            continue
        except OSError:
            yield path
