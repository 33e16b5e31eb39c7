"""The line that is shown while a run is queued, on a real terminal, with fake Slurm programs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.programs import CommandLine
from tests.fakes.waiting import DEADLINE_S

START = 1893510300  # 2030-01-01 15:05 UTC


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


def put(deephpc: CommandLine, number: str, state: str) -> None:
    """Have the queue say of a job how it stands."""
    place = deephpc.slurm / "queue" / number
    fields = place.read_text().split("\x1f")
    place.write_text("\x1f".join([fields[0], state, "Priority", *fields[3:]]))


@contextmanager
def on_a_terminal(deephpc: CommandLine, *words: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run deephpc with its stderr on a terminal of its own; give the other end of that."""
    ours, theirs = os.openpty()
    program = Path(sys.executable).with_name("deephpc")
    environ = deephpc.environ(TERM="xterm", TZ="UTC", COLUMNS="100")
    with subprocess.Popen(
        [program, *words],
        cwd=deephpc.home,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, wanted: str = "") -> str:
    """Return what a terminal shows until it shows something, or is closed."""
    text = ""
    while not wanted or wanted not in text:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not read:
            break
        text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode())
    return text


@pytest.mark.parametrize("count", [1, 2])
def test_a_queued_run_is_shown_as_it_waits(deephpc: CommandLine, count: int):
    runs = [deephpc("run", "--time", "10", "--", "true", str(number)).stdout.strip() for number in range(count)]
    for number in range(count):
        put(deephpc, str(number + 1), "PENDING")
    (deephpc.slurm / "turn").write_text(f"1\x1f50\x1fPriority\x1f{START}\x1fdebug\n")
    beginning = f"queued {count} runs, {runs[0]} " if count > 1 else "queued "
    with on_a_terminal(deephpc, "jobs", "wait", *runs) as (process, terminal):
        assert beginning in read_until(terminal, ": Priority; about Tue 2030-01-01 15:05")
        for number in range(count):
            put(deephpc, str(number + 1), "COMPLETED")
        assert "ended COMPLETED" in read_until(terminal)
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("words", [("--json",), ("--quiet",)])
def test_where_nobody_reads_it_there_is_no_line(deephpc: CommandLine, words: tuple[str, ...]):
    run_id = deephpc("run", "--time", "10", "--", "true").stdout.strip()
    put(deephpc, "1", "PENDING")
    before = deephpc.calls("squeue")
    with on_a_terminal(deephpc, *words, "jobs", "wait", "--timeout", "0:01", run_id) as (process, terminal):
        shown = read_until(terminal)
        assert process.wait(DEADLINE_S) == 3
    assert "queued" not in shown
    assert "%Q" not in "".join((deephpc.slurm / "squeue.argv").read_text().splitlines()[before:])
