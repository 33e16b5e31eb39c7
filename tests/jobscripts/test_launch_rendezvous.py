"""How ranks find each other: the shipped shim itself, as many processes, without Slurm and without a framework."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from deephpc.places import shipped
from tests.fakes.waiting import DEADLINE_S, wait_until

SHIM = shipped("jobscripts") / "launch_rendezvous.py"
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(scope="module")
def shim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("launch_rendezvous", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def frameworks(shim: ModuleType) -> ModuleType:
    return sys.modules[shim.World.__module__]


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of this test's own: other ports than those of any other."""
    return os.urandom(16).hex()


def environment(rank: int, tasks: list[int], key: str, **more: str) -> dict[str, str]:
    before, node = 0, 0
    while rank >= before + tasks[node]:
        before, node = before + tasks[node], node + 1
    facts = {
        "RANK": rank, "SIZE": sum(tasks), "LOCAL_RANK": rank - before, "LOCAL_SIZE": tasks[node], "NODE_RANK": node,
        "TASKS": ",".join(map(str, tasks)), "LAUNCH_KEY": key, "ADDRESS": "127.0.0.1", "PEER": "127.0.0.1",
    }  # fmt: skip
    return {"PATH": os.environ["PATH"], **{f"DEEPHPC_{name}": str(value) for name, value in facts.items()}, **more}


def start(framework: str, rank: int, tasks: list[int], key: str, *words: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, SHIM, framework, *(words or (sys.executable, "-c", SHOW))],
        env=environment(rank, tasks, key, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(framework: str, tasks: list[int], key: str, **more: str) -> list[dict[str, str]]:
    """Run all ranks, the first last; return the environment each program saw."""
    running = [start(framework, rank, tasks, key, **more) for rank in reversed(range(sum(tasks)))]
    ended = [(process, *process.communicate(timeout=DEADLINE_S)) for process in running]
    assert [(process.returncode, said) for process, _, said in ended] == [(0, "")] * len(ended)
    return [json.loads(out) for _, out, _ in reversed(ended)]


@contextlib.contextmanager
def listening(port: int, answer: bytes) -> Iterator[None]:
    """Somebody else's service at a port: it answers everything with the same bytes."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", port))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller:
                        caller.recv(100)
                        caller.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def test_every_rank_is_told_its_place_and_the_same_port(key: str) -> None:
    seen = run("torchrun", [3, 1], key)
    assert [one["RANK"] for one in seen] == ["0", "1", "2", "3"]
    assert [one["LOCAL_RANK"] for one in seen] == ["0", "1", "2", "0"]
    assert [one["LOCAL_WORLD_SIZE"] for one in seen] == ["3", "3", "3", "1"]
    assert [one["GROUP_RANK"] for one in seen] == ["0", "0", "0", "1"]
    assert {one["WORLD_SIZE"] for one in seen} == {"4"}
    assert {one["MASTER_ADDR"] for one in seen} == {"127.0.0.1"}
    assert len({one["MASTER_PORT"] for one in seen}) == 1
    assert 61000 <= int(seen[0]["MASTER_PORT"]) <= 65535
    assert all("DEEPHPC_LAUNCH_KEY" not in one for one in seen)


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"61234 " + b"0" * 64 + b"\n", b"", b"\xff\n"])
def test_a_first_port_that_somebody_else_has_is_passed_over(shim: ModuleType, key: str, answer: bytes) -> None:
    with listening(shim.ports_of(bytes.fromhex(key))[0], answer):
        seen = run("torchrun", [1, 1], key)
    assert len({one["MASTER_PORT"] for one in seen}) == 1
    assert seen[0]["MASTER_PORT"] != "61234"


def test_two_steps_on_one_machine_do_not_meet(key: str) -> None:
    other = os.urandom(16).hex()
    ports = {run("torchrun", [2], each)[1]["MASTER_PORT"] for each in (key, other)}
    assert len(ports) == 2


def test_the_port_is_kept_for_rank_0_and_opens_to_it_alone(key: str) -> None:
    holds = (
        "import os, socket; one, two = socket.socket(), socket.socket();"
        "two.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        "port = int(os.environ['MASTER_PORT']);"
        "print(one.connect_ex(('127.0.0.1', port)) != 0);"
        "two.bind(('', port)); two.listen(); print('listens')"
    )
    process = start("torchrun", 0, [1], key, sys.executable, "-c", holds)
    out, said = process.communicate(timeout=DEADLINE_S)
    assert (out, said) == ("True\nlistens\n", "")


def is_listened_at(port: int) -> bool:
    """Say whether somebody listens at a port of this machine (proc(5), net/tcp), without a word to them."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in sockets)


def test_a_rank_waits_for_those_that_come_late_and_ends_with_a_signal_meanwhile(shim: ModuleType, key: str) -> None:
    process = start("torchrun", 0, [2], key)
    wait_until(lambda: is_listened_at(shim.ports_of(bytes.fromhex(key))[0]), "rank 0 to await the other one")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == -signal.SIGTERM
    process.communicate()


def test_the_process_beside_rank_0_ends_with_it(key: str) -> None:
    sleeps = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")
    process = start("torchrun", 0, [1], key, *sleeps)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    process.kill()
    process.communicate(timeout=DEADLINE_S)  # ends although the other still lives: it holds no copy of the streams
    wait_until(lambda: not Path(f"/proc/{children[0]}").exists())
    assert not Path(f"/proc/{children[0]}").exists()


def test_the_sites_choice_of_interface_stays(key: str) -> None:
    mine = {"GLOO_SOCKET_IFNAME": "ib7", "OMP_NUM_THREADS": "5", "RANK": "99"}
    [seen] = run("torchrun", [1], key, **mine)
    assert (seen["GLOO_SOCKET_IFNAME"], seen["OMP_NUM_THREADS"], seen["RANK"]) == ("ib7", "5", "0")
    [seen] = run("torchrun", [1], key)
    assert seen["GLOO_SOCKET_IFNAME"] == "lo"


def test_the_interface_is_the_sites_where_there_is_one_and_that_of_the_route_otherwise(
    frameworks: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = environment(0, [1, 1], "00" * 16)
    assert frameworks.find_interface(frameworks.World(facts)) == "lo"  # the way to 127.0.0.1
    assert frameworks.find_interface(frameworks.World({**facts, "DEEPHPC_INTERFACE": "lo"})) == "lo"
    world = frameworks.World({**facts, "DEEPHPC_INTERFACE": "ib99"})
    assert frameworks.find_interface(world) == "lo"
    assert "no network interface ib99" in capsys.readouterr().err
    assert frameworks.fabric_variables(world, "ib99")["NCCL_SOCKET_IFNAME"] == "=ib99"
    assert "NCCL_SOCKET_IFNAME" not in frameworks.fabric_variables(world, "eth0")


def test_horovods_places_of_uneven_nodes(frameworks: ModuleType) -> None:
    tasks = [3, 1]
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "HOSTNAME")
    seen = []
    for rank in range(4):
        variables = frameworks.horovod_variables(frameworks.World(environment(rank, tasks, "00" * 16)), 61000, "eth0")
        seen.append(" ".join(variables[f"HOROVOD_{name}"] for name in names))
    assert seen == ["0 4 0 3 0 2 node0", "1 4 1 3 0 1 node0", "2 4 2 3 0 1 node0", "3 4 0 1 1 2 node1"]


def test_a_meeting_point_that_cannot_start_says_why(key: str, tmp_path: Path) -> None:
    (tmp_path / "horovod.py").write_text("raise ImportError('no Horovod in this image')")
    process = start("horovod", 0, [1], key, PYTHONPATH=str(tmp_path))
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "the ranks have no place to meet: ImportError: no Horovod in this image" in said


def test_a_program_that_is_not_there_fails_as_in_a_shell(key: str) -> None:
    process = start("torchrun", 0, [1], key, "no-such-program")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 127
    assert "cannot start no-such-program: No such file or directory" in said
