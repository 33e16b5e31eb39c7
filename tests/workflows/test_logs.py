"""What jobs wrote: across attempts, tasks, half characters and no newline."""

import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import DataError, InputError
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.scheduler import Observation
from deephpc.jobs.state import JobState
from deephpc.workflows.logs import GrowingFile, LogFollower, follow_log, print_log, read_tail
from tests.fakes.samples import A_TENTH, a_job
from tests.fakes.schedulers import ScriptedScheduler, seen, sighting

utc_now = partial(datetime.now, timezone.utc)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "run-a-0001").mkdir()
    return a_job(tmp_path, state=JobState.RUNNING)


@pytest.fixture
def array(job: Job) -> Job:
    job.files.task(1).log.write_bytes(b"one\n")
    job.files.task(10).log.write_bytes(b"ten\nmore")
    return job.model_copy(update={"tasks": {1: JobState.RUNNING, 2: JobState.PENDING, 10: JobState.RUNNING}})


def test_a_log_is_printed_byte_by_byte(job: Job):
    written = b"--- attempt 1\n\xc3\xa9 \xff half \xe2\x82\n--- attempt 2\nno newline"
    job.files.task(None).log.write_bytes(written)
    out = bytearray()
    print_log(job, None, out.extend)
    assert bytes(out) == written


def test_the_tasks_of_an_array_stand_under_headings_in_the_order_of_numbers(array: Job):
    out = bytearray()
    print_log(array, None, out.extend)
    assert bytes(out) == b"==> run-a-0001 task 1 <==\none\n==> run-a-0001 task 10 <==\nten\nmore"


def test_one_task_stands_alone(array: Job):
    out = bytearray()
    print_log(array, 10, out.extend, last_lines=1)
    assert bytes(out) == b"more"


def test_nothing_written_yet_is_said_so(job: Job):
    with pytest.raises(InputError, match=r"has written nothing yet \(RUNNING\)") as caught:
        print_log(job, None, lambda _: None)
    assert "deephpc why" in caught.value.hint


def test_a_run_folder_that_is_gone_is_said_so(job: Job, tmp_path: Path):
    job.folder.rmdir()
    with pytest.raises(DataError, match=r"run-a-0001 is gone"):
        print_log(job, None, lambda _: None)
    with Record(tmp_path / "deephpc.db") as record, pytest.raises(DataError, match=r"run-a-0001 is gone"):
        follow_log(record, {}, job, None, lambda _: None, clock=utc_now)


def test_following_may_begin_with_the_last_lines(job: Job, tmp_path: Path):
    log = job.files.task(None).log
    log.write_bytes(b"one\ntwo\nthree")
    out = bytearray()
    follower = LogFollower(job, None, out.extend, last_lines=2)
    follower.pump()
    with log.open("ab") as file:
        file.write(b" and more\n")
    follower.pump()
    assert bytes(out) == b"two\nthree and more\n"
    done = job.model_copy(update={"state": JobState.COMPLETED})
    del out[:]
    with Record(tmp_path / "deephpc.db") as record:
        record.add(done)
        follow_log(record, {}, done, None, out.extend, clock=utc_now, last_lines=1)
    assert bytes(out) == b"three and more\n"


def test_following_the_tasks_of_an_array_may_begin_with_their_last_lines(array: Job):
    out = bytearray()
    follower = LogFollower(array, None, out.extend, last_lines=1)
    follower.pump()
    follower.finish()
    assert bytes(out) == b"[1] one\n[10] more\n"


@pytest.mark.parametrize(
    ("text", "lines", "tail"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 9, b"a\nb\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\nb\n", 0, b""),
        (b"start\n10%\r20%\r30%\nend\n", 2, b"10%\r20%\r30%\nend\n"),
        (b"x" * 200_000 + b"\nlast\n", 1, b"last\n"),
        (b"a\n" + b"y" * 200_000, 1, b"y" * 200_000),
    ],
)
def test_the_last_lines_are_those_that_end_with_a_newline(tmp_path: Path, text: bytes, lines: int, tail: bytes):
    (tmp_path / "log").write_bytes(text)
    assert read_tail(tmp_path / "log", lines) == tail


@A_TENTH  # costly, and no text of Slurm's
@given(st.binary(max_size=200), st.integers(1, 10))
def test_a_tail_is_the_end_of_the_file(tmp_path_factory: pytest.TempPathFactory, text: bytes, lines: int):
    path = tmp_path_factory.getbasetemp() / "tail.log"
    path.write_bytes(text)
    tail = read_tail(path, lines)
    assert text.endswith(tail)
    assert tail.removesuffix(b"\n").count(b"\n") == min(lines - 1, text.removesuffix(b"\n").count(b"\n"))


def test_a_growing_file_gives_only_what_is_new_and_starts_again_when_cut(tmp_path: Path):
    path = tmp_path / "log"
    file = GrowingFile(path)
    assert file.read_new() == b""
    path.write_bytes(b"one")
    assert file.read_new() == b"one"
    assert file.read_new() == b""
    path.write_bytes(b"x")
    assert file.read_new() == b"x"


def test_lines_of_tasks_are_marked_and_never_mixed(array: Job):
    out = bytearray()
    follower = LogFollower(array, None, out.extend)
    follower.pump()
    with array.files.task(10).log.open("ab") as log:
        log.write(b" and \xc3\xa9\nlast")
    follower.pump()
    follower.finish()
    assert bytes(out) == b"[1] one\n[10] ten\n[10] more and \xc3\xa9\n[10] last\n"


@pytest.mark.slow
def test_following_ends_when_the_run_is_final_and_its_log_is_read(job: Job, tmp_path: Path):
    log = job.files.task(None).log
    log.write_bytes(b"before\n")

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if log.read_bytes() == b"before\n":
            log.write_bytes(b"before\nmore\n")

    running = Observation(queue=seen(sighting("4711", JobState.RUNNING)), accounting={})
    failed = Observation(queue=seen(sighting("4711", JobState.FAILED, exit_code=7)), accounting={})
    out = bytearray()
    with Record(tmp_path / "deephpc.db") as record:
        record.add(job)
        scheduler = ScriptedScheduler(observations=[running, failed])
        ended = follow_log(record, {"slurm": scheduler}, job, None, out.extend, clock=utc_now, sleep=sleep)
    assert ended.state is JobState.FAILED
    assert bytes(out) == b"before\nmore\n"
