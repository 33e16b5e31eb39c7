"""What becomes of answers: full disks, closed outputs, poor locales, an environment with nothing in it."""

import os
import pwd
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from deephpc.cli.context import complete_environment
from tests.fakes.programs import CommandLine
from tests.fakes.waiting import DEADLINE_S, wait_until


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


def in_bash(deephpc: CommandLine, words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    program = f"{sys.executable} -m deephpc"
    return subprocess.run(["bash", "-c", f"{program} {words}"], cwd=deephpc.home, env=deephpc.environ(**environ),
                          capture_output=True, text=True, errors="replace", timeout=300, check=False)  # fmt: skip


@pytest.mark.parametrize("words", ["--help", "jobs", "config show", "jobs --json", "run --dry-run --time 1 -- true"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_an_answer_that_cannot_be_written_is_no_bug_of_ours(deephpc: CommandLine, words: str, where: str):
    done = in_bash(deephpc, f"{words} {where}")
    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot write to stdout: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_the_id_of_a_submitted_run_is_not_lost_with_stdout(deephpc: CommandLine, where: str):
    done = in_bash(deephpc, f"-q run --name kept --time 10 -- true {where}")
    (folder,) = (deephpc.home / "work").iterdir()
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: run {folder.name} is submitted, but cannot write to stdout: ")


def test_what_is_told_never_mixes_with_the_answer_when_stderr_is_closed(deephpc: CommandLine):
    done = in_bash(deephpc, "-v config show --json 2>&-")
    assert (done.returncode, done.stdout[:10]) == (0, '{"schema":')


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_that_lacks_a_letter_gets_another(deephpc: CommandLine, encoding: str):
    (deephpc.home / "höhe→.py").write_text("")
    sent = in_bash(deephpc, "train höhe→.py --name plain --time 10", PYTHONIOENCODING=encoding)
    assert sent.returncode == 0, sent.stderr
    for words in ("jobs", "--json jobs", f"jobs show {sent.stdout.strip()}", f"why {sent.stdout.strip()}"):
        assert in_bash(deephpc, words, PYTHONIOENCODING=encoding).returncode == 0


def test_an_empty_environment_is_filled_from_the_password_database():
    entry = complete_environment({})
    assert Path(entry["HOME"]).is_absolute()
    assert entry["USER"] == entry["LOGNAME"] == pwd.getpwuid(os.geteuid()).pw_name
    assert complete_environment({"HOME": "", "X": ""}) == {**entry, "X": ""}
    assert complete_environment({"HOME": "/elsewhere"})["HOME"] == "/elsewhere"


@pytest.mark.parametrize("said", [{"USER": "nobody"}, {"LOGNAME": "root2"}, {"USER": "", "LOGNAME": "daemon"}])
def test_who_we_are_is_never_taken_from_variables(said: dict[str, str]):
    entry = complete_environment({})
    assert complete_environment({"HOME": "/home/me", **said}) == {**entry, "HOME": "/home/me"}


def test_ctrl_c_while_the_program_loads_leaves_no_traceback(tmp_path: Path):
    slow = tmp_path / "typer.py"  # found before the real one
    slow.write_text(f"import time, pathlib\npathlib.Path({str(tmp_path / 'loading')!r}).touch()\ntime.sleep(600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "deephpc", "jobs"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads; in the background it is ignored
    )
    with process:
        try:
            wait_until((tmp_path / "loading").exists)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=DEADLINE_S)[1] == ""
            assert process.returncode == 130
        finally:
            process.kill()


def test_verbose_tells_the_site_the_files_and_the_calls(deephpc: CommandLine):
    in_bash(deephpc, "run --time 10 -- true")
    done = in_bash(deephpc, "-v jobs")
    assert "- site generic (environment DEEPHPC_SITE)" in done.stderr
    assert "- read the site file " in done.stderr
    assert "- call squeue " in done.stderr
