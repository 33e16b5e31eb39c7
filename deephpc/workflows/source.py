"""Records which code a run used: the git commit, the uncommitted changes, the untracked files (login node)."""

from pathlib import Path

from deephpc.errors import SiteError
from deephpc.model import Model
from deephpc.shell import CommandNotFound, Completed, run

_GIT_TIMEOUT_S = 20.0
_MOST_UNTRACKED = 1000
_LONGEST_DIFF = 10 * 1024 * 1024


class SourceState(Model):
    """The state of a git checkout at submission."""

    root: Path
    commit: str
    branch: str = ""
    is_dirty: bool
    """Whether tracked files differ from the commit."""
    untracked: tuple[str, ...] = ()
    """Untracked files that git does not ignore, relative to the root; at most 1000 names."""
    note: str = ""
    """What could not be recorded, in words."""


def load_source_state(folder: Path) -> tuple[SourceState | None, str]:
    """Return the state of the checkout that holds `folder`, and the diff of its tracked files.

    Returns (None, "") outside a checkout and where there is no git. A checkout git cannot read in time is recorded with
    a note rather than stopping the submission.
    """
    try:
        root = _git(folder, "rev-parse", "--show-toplevel")
    except CommandNotFound:
        return None, ""
    if not root.ok:
        return None, ""
    top = Path(root.stdout.rstrip("\n"))
    commit = _git(top, "rev-parse", "--verify", "--quiet", "HEAD")
    branch = _git(top, "symbolic-ref", "--short", "--quiet", "HEAD")
    diff = (
        _git(top, "diff", "--no-color", "--no-ext-diff", "--binary", "HEAD")
        if commit.ok
        else _git(top, "diff", "--no-color", "--cached")
    )
    untracked = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    names = [name for name in untracked.stdout.split("\0") if name] if untracked.ok else []
    state = SourceState(
        root=top,
        commit=commit.stdout.strip(),
        branch=branch.stdout.strip(),
        is_dirty=bool(diff.stdout),
        untracked=tuple(names[:_MOST_UNTRACKED]),
        note=_note(diff, untracked, len(names)),
    )
    return state, diff.stdout if diff.ok and len(diff.stdout) <= _LONGEST_DIFF else ""


def _note(diff: Completed, untracked: Completed, names: int) -> str:
    notes = []
    if not diff.ok:
        notes.append(f"git diff failed: {diff.last_words() or 'no answer in time'}")
    elif len(diff.stdout) > _LONGEST_DIFF:
        notes.append("the diff is larger than 10 MiB and was not kept")
    if not untracked.ok:
        notes.append("untracked files could not be listed")
    elif names > _MOST_UNTRACKED:
        notes.append(f"{names} untracked files, the first {_MOST_UNTRACKED} are listed")
    return "; ".join(notes)


def _git(folder: Path, *words: str) -> Completed:
    try:
        return run(["git", "-c", "core.quotePath=false", "-C", str(folder), *words], timeout_s=_GIT_TIMEOUT_S)
    except CommandNotFound:
        raise
    except SiteError as error:
        return Completed(("git",), 1, "", error.message)
