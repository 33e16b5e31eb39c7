"""Locks among processes and hosts."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.lock import Owner, Timing, hold
from tests.fakes.waiting import wait_until

QUICK = Timing(beat_s=0.1, stale_s=0.6)
HOLD = """
import sys, time
from pathlib import Path
from deephpc.lock import Timing, hold
with hold(Path(sys.argv[1]), timeout_s=10, timing=Timing(0.1, 0.6)):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_foreign(path: Path, host: str = "elsewhere boot pid:[1]") -> None:
    path.write_text(json.dumps({"host": host, "pid": 1, "started": "1", "token": "theirs"}))


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with hold(tmp_path / "x.lock", timeout_s=60, timing=QUICK):
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
    try:
        with (
            pytest.raises(SiteError, match=f"process {holder.pid}"),
            hold(path, timeout_s=1.5, timing=QUICK),
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
    began = time.monotonic()
    with hold(path, timeout_s=10):
        assert time.monotonic() - began < 5  # long before any silence would tell
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_id_does_not_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    me = Owner.this_process()
    path.write_text(json.dumps({"host": me.host, "pid": me.pid, "started": "1", "token": "old"}))
    with hold(path, timeout_s=2):
        assert json.loads(path.read_text())["token"] != "old"


def test_a_silent_owner_on_another_host_loses_it_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    began = time.monotonic()
    with hold(path, timeout_s=10, timing=QUICK):
        assert time.monotonic() - began >= QUICK.stale_s


def test_an_owner_on_another_host_that_gives_signs_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.1):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(SiteError, match="elsewhere"), hold(path, timeout_s=1.5, timing=QUICK):
            pass
    finally:
        done.set()
        beating.join()


def test_of_many_who_see_it_dead_each_gets_it_once(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    inside: list[int] = []
    order: list[int] = []

    def work(number: int) -> None:
        with hold(path, timeout_s=60, timing=QUICK):
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
    with hold(path, timeout_s=1, timing=QUICK) as lock:
        path.unlink()
        write_foreign(path)
        wait_until(lock.lost.is_set)
    assert json.loads(path.read_text())["token"] == "theirs"


def test_rubbish_in_its_place_is_cleared_too(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("")
    with hold(path, timeout_s=10, timing=QUICK):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_wait_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    write_foreign(path)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(SiteError, match="the wait for it ended"), hold(path, timeout_s=60, stop=stop):
        pass
