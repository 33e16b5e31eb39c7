"""Ranks without Slurm: `launch.sh` as the job script of a local job starts it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.fakes.waiting import DEADLINE_S, wait_until

LAUNCH = shipped("jobscripts") / "launch.sh"
LISTENER = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: print("told", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
pathlib.Path("here-" + os.environ["RANK"]).touch()
while True:
    time.sleep(0.05)
"""


def start(folder: Path, launcher: str, *words: str) -> "subprocess.Popen[str]":
    """Start three ranks; descriptor 9 is a file, as the job script has it."""
    (folder / "output").mkdir()
    facts = {"OUTPUT_DIR": f"{folder}/output", "LAUNCHER": launcher, "TASKS_PER_NODE": "3", "RUN_ID": "run-x-0001"}
    environ = {"PATH": os.environ["PATH"], **{f"DEEPHPC_{name}": value for name, value in facts.items()}}
    command = 'exec 9>"$1"; shift; exec "$@"'
    return subprocess.Popen(
        ["bash", "-c", command, "bash", folder / "setup", "bash", LAUNCH, "", *words],
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_rank_runs_and_rank_0_speaks_for_all(tmp_path: Path) -> None:
    process = start(tmp_path, "torchrun", "bash", "-c", "echo $RANK of $WORLD_SIZE at $LOCAL_RANK")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, "0 of 3 at 0\n")
    for rank in range(3):
        assert (tmp_path / "ranks" / f"{rank}.log").read_text().splitlines()[1:] == [f"{rank} of 3 at {rank}"]


def test_with_srun_the_log_has_what_all_say(tmp_path: Path) -> None:
    process = start(tmp_path, "srun", "bash", "-c", "echo $DEEPHPC_RANK of $DEEPHPC_SIZE")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert sorted(out.splitlines()) == ["0 of 3", "1 of 3", "2 of 3"]


@pytest.mark.parametrize(
    ("dies", "code", "words"), [("exit 9", 9, "with exit code 9"), ("kill -9 $$", 137, "by signal 9 (KILL)")]
)
def test_the_first_that_fails_ends_all_and_has_the_last_word(tmp_path: Path, dies: str, code: int, words: str) -> None:
    program = f"if [ $RANK = 2 ]; then echo the end is near; {dies}; fi; exec sleep 600"
    process = start(tmp_path, "torchrun", "bash", "-c", program)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert (tmp_path / "ranks" / "reason").read_text().endswith(f" ended first, {words}")
    assert out.splitlines()[-1] == "the end is near"
    assert "rank 2 on" in out.splitlines()[-2]
    assert (tmp_path / "setup").read_text() == ""


def test_signals_reach_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "listens.py").write_text(LISTENER)
    process = start(tmp_path, "torchrun", "python3", "listens.py")
    wait_until(lambda: len(list(tmp_path.glob("here-*"))) == 3)
    process.send_signal(signal.SIGUSR1)
    logs = [tmp_path / "ranks" / f"{rank}.log" for rank in range(3)]
    wait_until(lambda: all("told" in log.read_text() for log in logs))
    process.terminate()
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (3, "told\n")
    assert not (tmp_path / "ranks" / "failed").exists()


def test_a_rank_that_asks_to_be_continued_lets_the_others_save(tmp_path: Path) -> None:
    program = "if [ $RANK = 0 ]; then while [ ! -e ../ranks/continue ]; do sleep 0.05; done; echo saved; fi; exit 75"
    process = start(tmp_path, "torchrun", "bash", "-c", f"cd output && {program}")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (75, "saved\n")
    assert not (tmp_path / "ranks" / "failed").exists()


def test_a_rank_that_fails_because_another_left_to_be_continued_is_no_failure(tmp_path: Path) -> None:
    program = "[ $RANK != 1 ] || exit 75; while [ ! -e ranks/continue ]; do sleep 0.05; done; exit $((RANK / 2))"
    process = start(tmp_path, "torchrun", "bash", "-c", program)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (75, "")


def test_a_rank_that_failed_first_is_what_the_run_ends_with(tmp_path: Path) -> None:
    program = "trap 'exit 75' TERM; [ $RANK != 1 ] || exit 9; while :; do sleep 0.05; done"
    process = start(tmp_path, "torchrun", "bash", "-c", program)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 9
