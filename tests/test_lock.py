"""Locks among processes and hosts."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.lock import Owner, Timing, hold
from tests.fakes.waiting import DEADLINE_S, wait_until

#: No time goes by for those who wait: what they get, they get without a silence.
STANDING = Timing(clock=lambda: 0.0)
HOLD = """
import sys, time
from pathlib import Path
from deephpc.lock import Timing, hold
with hold(Path(sys.argv[1]), timeout_s=10, timing=Timing(beat_s=0.01)):
    print("held", flush=True)
    time.sleep(600)
"""


class Clock:
    """Goes on by a second each time it is looked at, or only where something else has happened since."""

    def __init__(self, happened: Callable[[], bool] = lambda: True) -> None:
        self.now = 0.0
        self.happened = happened

    def __call__(self) -> float:
        self.now += 1.0 if self.happened() else 0.0
        return self.now


def start_holder(path: Path) -> "subprocess.Popen[str]":
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_foreign(path: Path, host: str = "elsewhere boot pid:[1]") -> None:
    path.write_text(json.dumps({"host": host, "pid": 1, "started": "1", "token": "theirs"}))


def write_dead(path: Path) -> None:
    me = Owner.this_process()
    path.write_text(json.dumps({"host": me.host, "pid": me.pid, "started": "1", "token": "old"}))


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with hold(tmp_path / "x.lock", timeout_s=DEADLINE_S):
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_living_owner_keeps_it_beyond_the_silence_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    holder = start_holder(path)
    beats = {path.stat().st_mtime_ns}

    def has_beaten() -> bool:
        was_known, last = len(beats), path.stat().st_mtime_ns
        beats.add(last)
        return len(beats) > was_known

    try:
        with (
            pytest.raises(SiteError, match=f"process {holder.pid}"),
            hold(path, timeout_s=10, timing=Timing(stale_s=5, clock=Clock(has_beaten))),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_a_killed_owner_loses_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    holder = start_holder(path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.exists()
    with hold(path, timeout_s=10, timing=STANDING):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_id_does_not_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_dead(path)
    with hold(path, timeout_s=2, timing=STANDING):
        assert json.loads(path.read_text())["token"] != "old"


def test_a_silent_owner_on_another_host_loses_it_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    clock = Clock()
    with hold(path, timeout_s=100, timing=Timing(stale_s=9, clock=clock)):
        assert 9 < clock.now < 20


def test_an_owner_on_another_host_that_gives_signs_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    beats = itertools.count(1)

    def beat() -> bool:
        os.utime(path, (0, next(beats)))
        return True

    timing = Timing(stale_s=5, clock=Clock(beat))
    with pytest.raises(SiteError, match="elsewhere"), hold(path, timeout_s=15, timing=timing):
        pass


def test_of_many_who_see_it_dead_each_gets_it_once(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_dead(path)
    inside: list[int] = []
    order: list[int] = []

    def work(number: int) -> None:
        with hold(path, timeout_s=DEADLINE_S):
            inside.append(number)
            assert inside == [number]
            order.append(number)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(order) == list(range(8))
    assert list(tmp_path.iterdir()) == []


def test_an_owner_frozen_too_long_learns_that_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold(path, timeout_s=1, timing=Timing(beat_s=0.01)) as lock:
        path.unlink()
        write_foreign(path)
        wait_until(lock.lost.is_set)
    assert json.loads(path.read_text())["token"] == "theirs"


def test_rubbish_in_its_place_is_cleared_too(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("")
    with hold(path, timeout_s=100, timing=Timing(stale_s=5, clock=Clock())):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_wait_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(SiteError, match="the wait for it ended"), hold(path, timeout_s=60, timing=STANDING, stop=stop):
        pass
