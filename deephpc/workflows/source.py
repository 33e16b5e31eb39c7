"""Records which code a run used: its git commit and what differs from it; its command's files by their content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.model import Model
from deephpc.shell import CommandNotFound, Completed, run

_GIT_TIMEOUT_S = 20.0
_MOST_UNTRACKED = 1000
_LONGEST_DIFF = 10 * 1024 * 1024
#: By this file of its run folder a job finds what was edited meanwhile: it is one for `sha256sum --check` of coreutils.
COMMAND_FILES = "code.sha256"
_LARGEST_FILE = 16 * 1024 * 1024
_MOST_WORDS = 100


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


def render_command_files(command: Sequence[str], workdir: Path) -> str:
    """Return a line for each of the first 100 words of a command that names a file of up to 16 MiB.

    What cannot be read is left out, and so are names with a newline or a backslash, which coreutils would escape.
    """
    lines: dict[Path, str] = {}
    for path in (workdir / word for word in command[:_MOST_WORDS]):
        try:
            if path.is_file() and path.stat().st_size <= _LARGEST_FILE and not {"\n", "\\"} & set(str(path)):
                lines[path] = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n"
        except (OSError, ValueError):  # ValueError: a NUL in the word
            continue
    return "".join(lines.values())


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
