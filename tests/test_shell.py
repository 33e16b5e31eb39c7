"""Every process has a deadline and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.shell import CommandNotFound, Completed, run, start_child, start_detached
from tests.fakes.waiting import DEADLINE_S, GROWING_S, is_alive, wait_until


def run_into_deadline(program: str) -> Completed:
    """Run it until a deadline that passes after it has said something."""
    for timeout_s in GROWING_S:
        done = run(["bash", "-c", program], timeout_s=timeout_s)
        if done.stdout:
            break
    return done


def test_output_and_status_come_back():
    done = run(["bash", "-c", "cat; echo oh >&2; exit 7"], timeout_s=DEADLINE_S, stdin="hé\n")
    assert (done.returncode, done.stdout, done.stderr, done.ok) == (7, "hé\n", "oh\n", False)
    assert done.last_words() == "oh"


def test_bytes_that_are_no_text_are_replaced():
    assert run(["printf", r"a\xffb"], timeout_s=DEADLINE_S).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_words_reach_the_program_unread_by_any_shell():
    assert run(["printf", "%s", "$(id) `id` ;|&"], timeout_s=DEADLINE_S).stdout == "$(id) `id` ;|&"


def test_no_input_is_an_empty_input():
    assert run(["cat"], timeout_s=DEADLINE_S).ok


def test_the_deadline_kills_the_program_and_its_children(tmp_path: Path):
    pids = tmp_path / "pids"
    done = run_into_deadline(f"sleep 600 & echo $! > {pids}; echo so >&2; echo said; wait")
    assert done.timed_out
    assert (done.stdout, done.stderr) == ("said\n", "so\n")
    wait_until(lambda: not is_alive(int(pids.read_text())))


def test_the_deadline_holds_although_a_stranger_keeps_the_pipes(tmp_path: Path):
    pid = tmp_path / "pid"
    done = run_into_deadline(
        f"setsid bash -c 'echo $$ >{pid}; exec sleep 600' & while [ ! -s {pid} ]; do sleep 0.01; done; echo saïd; wait"
    )
    assert is_alive(int(pid.read_text()))
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert done.timed_out
    assert done.stdout == "saïd\n"


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(CommandNotFound, match="no-such-program: command not found") as caught:
        run(["no-such-program"], timeout_s=DEADLINE_S)
    assert caught.value.exit_code == 3


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SiteError, match="gone does not exist"):
        run(["true"], timeout_s=DEADLINE_S, cwd=tmp_path / "gone")


def test_a_killed_parent_takes_along_a_child_that_dies_with_it(tmp_path: Path):
    program = (
        "import sys; from deephpc.shell import run\n"
        "run(['bash', '-c', 'echo $$ > pid; exec sleep 600'], timeout_s=600, dies_with_us=True)\n"
    )  # fmt: skip
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    parent.kill()
    assert parent.wait(DEADLINE_S) == -signal.SIGKILL
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_a_child_ends_with_a_killed_parent(tmp_path: Path):
    program = (
        "import time; from deephpc.shell import start_child\n"
        "start_child(['bash', '-c', 'echo $$ > pid; exec sleep 600'])\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    parent.kill()
    assert parent.wait(DEADLINE_S) == -signal.SIGKILL
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_a_child_says_why_it_ended_and_is_ended_with_its_own_children(tmp_path: Path):
    child = start_child(["bash", "-c", "echo first >&2; printf 'last words' >&2; exit 3"])
    assert child.wait(DEADLINE_S) == 3
    assert child.last_words() == "last words"
    child.terminate()
    assert child.last_words() == "last words"
    child = start_child(["bash", "-c", f"sleep 600 & echo $! >{tmp_path}/pid; wait"])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    child.terminate()
    assert child.poll() == -signal.SIGTERM
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))
    with pytest.raises(CommandNotFound, match="no-such-program"):
        start_child(["no-such-program"])


def test_a_detached_process_outlives_us_and_logs(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from deephpc.shell import start_detached\n"
        "here = Path(sys.argv[1])\n"
        "argv = ['bash', '-c', 'while [ ! -e go ]; do sleep 0.05; done; echo done']\n"
        "print(start_detached(argv, cwd=here, env={'PATH': '/usr/bin:/bin'}, log=here / 'log'))\n"
    )
    argv = [sys.executable, "-W", "error", "-c", program, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stderr == ""
    assert is_alive(int(done.stdout))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    (tmp_path / "go").touch()
    wait_until(lambda: (tmp_path / "log").read_text() == "done\n")


def test_a_detached_process_has_a_session_of_its_own(tmp_path: Path):
    pid = start_detached(["sleep", "600"], cwd=tmp_path, env=dict(os.environ), log=tmp_path / "log")
    session = os.getsid(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert session == pid
