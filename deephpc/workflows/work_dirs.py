"""Remembers, beside the record, every folder runs were ever put in: a lost record is rebuilt from them."""

from pathlib import Path

from deephpc.jobs.run_folder import read_text, write_atomically

_NAME = "work_dirs"


def remember_work_dir(state_dir: Path, work_dir: Path) -> None:
    """Add a folder of runs to the list, if it is not on it.

    Raises
    ------
    SiteError
        The list cannot be written.
    """
    known = load_work_dirs(state_dir)
    if work_dir not in known:
        write_atomically(state_dir / _NAME, "".join(f"{path}\n" for path in (*known, work_dir)))


def load_work_dirs(state_dir: Path) -> tuple[Path, ...]:
    """Return the folders of runs used so far, oldest first."""
    return tuple(Path(line) for line in (read_text(state_dir / _NAME) or "").splitlines() if line)
