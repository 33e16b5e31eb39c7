"""The real command in a process of its own, so that it can be killed, limited and seen as a user sees it."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from deephpc.cli import COMMANDS, main
from tests.fakes.waiting import DEADLINE_S

from .conftest import Desk
from .servers import clean_environment

#: The table of commands gets its line where it is not there yet.
_MAIN = "from deephpc.cli import COMMANDS, main; COMMANDS.setdefault('data', ('deephpc.cli.data:app', 'Data.')); main()"


def start(desk: Desk, *words: object, file_limit_bytes: int | None = None) -> "subprocess.Popen[str]":
    """Start `deephpc …` at a user's desk."""

    def limit() -> None:
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(desk),
        cwd=desk.tmp,
        preexec_fn=limit,  # noqa: PLW1509 - one call between fork and exec
    )


def run(desk: Desk, *words: object, file_limit_bytes: int | None = None) -> tuple[int, str, str]:
    """Run `deephpc …` to its end; returns its exit code, stdout and stderr."""
    with start(desk, *words, file_limit_bytes=file_limit_bytes) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def run_here(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Run `deephpc …` in this process, which starts no interpreter; returns what `run` returns."""
    environ = environment(desk)
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(desk.tmp)
    if "data" not in COMMANDS:
        monkeypatch.setitem(COMMANDS, "data", ("deephpc.cli.data:app", "Data."))
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def environment(desk: Desk) -> dict[str, str]:
    """Return the variables that the command sees."""
    return {
        **clean_environment(desk.home, **desk.environ),
        "DEEPHPC_CACHE_DIR": str(desk.tmp / "cache"),
        "DEEPHPC_STATE_DIR": str(desk.tmp / "state"),
        "DEEPHPC_SITE": "local",
    }


def is_one_line_and_a_hint(err: str) -> bool:
    """Say whether an error reads as every error does."""
    lines = err.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("  hint: ")


def here(folder: Path) -> list[str]:
    """Return the names of all that lies below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
