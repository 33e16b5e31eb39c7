"""The real `deephpc tunnel`, to a real gateway whose job stands in the queue of a fake Slurm."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deephpc.serve.tunnel import choose_port, is_reached
from tests.fakes.programs import CommandLine
from tests.fakes.serving import RUN, serving
from tests.fakes.waiting import DEADLINE_S


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


@pytest.fixture
def served(deephpc: CommandLine):
    with serving(deephpc) as one:
        one.running.wait_for_stage("ready")
        yield one


def _hear_ctrl_c() -> None:
    """Undo what a shell does to programs in its background, such as pytest there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Tunnel:
    """A `deephpc tunnel` that runs."""

    def __init__(self, deephpc: CommandLine, *words: str) -> None:
        program = Path(sys.executable).with_name("deephpc")
        self.process = subprocess.Popen(
            [program, *words], cwd=deephpc.home, env=deephpc.environ(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - one call, no lock
        )  # fmt: skip

    def __enter__(self) -> "Tunnel":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def first_lines(self, count: int) -> list[str]:
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def end(self, number: int | None = None) -> tuple[int, str]:
        if number is not None:
            self.process.send_signal(number)
        _, told = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, told


def curl(line: str, *more: str) -> str:
    done = subprocess.run(
        [*shlex.split(line), "-sS", *more], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    return done.stdout + done.stderr


def test_its_lines_lead_to_the_server_until_ctrl_c(deephpc, served):
    port = choose_port()
    with Tunnel(deephpc, "tunnel", "serve-demo", "--port", str(port)) as tunnel:
        url, copied, python, laptop = (line.split(maxsplit=1) for line in tunnel.first_lines(4))
        assert url == ["url", f"https://localhost:{port}"]
        assert "demo_module" in curl(copied[1])
        script = f"{python[1]}; print(client.models())"
        assert "demo_module" in subprocess.check_output([sys.executable, "-c", script], text=True, timeout=DEADLINE_S)
        assert laptop[1].startswith(f"ssh -N -L {port}:localhost:")
        assert served.token not in f"{copied} {python} {laptop}"
        assert "401" in curl(f"curl -k {url[1]}/v2/models/", "-w", "%{http_code}")
        assert tunnel.end(signal.SIGINT) == (0, "the tunnel is closed\n")
    assert not is_reached("127.0.0.1", port)


def test_it_ends_with_one_clear_line_when_the_server_ends(deephpc, served):
    with Tunnel(deephpc, "--json", "tunnel", RUN) as tunnel:
        told = json.loads(tunnel.first_lines(1)[0])
        assert told["schema"] == "deephpc.tunnel/1"
        assert told["url"] == f"https://localhost:{told['local_port']}"
        assert "demo_module" in curl(told["curl"])
        served.end()
        code, lines = tunnel.end()
    assert (code, lines.splitlines()[-1]) == (0, f"the server {RUN} has ended (CANCELLED)")
    done = deephpc("tunnel", RUN)
    assert done.returncode == 2
    assert f"error: the server {RUN} has ended (CANCELLED)" in done.stderr
    assert "serve start" in done.stderr


def test_told_to_end_it_leaves_nothing_behind(deephpc, served):
    with Tunnel(deephpc, "--json", "tunnel", RUN) as tunnel:
        port = json.loads(tunnel.first_lines(1)[0])["local_port"]
        assert tunnel.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM
    assert not is_reached("127.0.0.1", port)


def test_it_waits_while_the_server_starts(deephpc):
    with serving(deephpc, "hang") as served:
        served.running.wait_for_stage("warming")
        with Tunnel(deephpc, "tunnel", RUN) as tunnel:
            assert tunnel.process.stderr.readline() == f"{RUN} is not ready yet: warming\n"
            assert tunnel.end(signal.SIGINT)[0] == 0


def test_a_dry_run_tells_where_the_server_is_and_opens_nothing(deephpc, served):
    done = deephpc("--json", "tunnel", RUN, "--dry-run")
    told = json.loads(done.stdout)
    endpoint = served.running.address.endpoint
    assert (told["host"], told["port"], told["model"]) == (endpoint.host, endpoint.port, "demo-module")
    assert (told["url"], told["folder"]) == (None, str(served.running.folder))
    assert served.token not in done.stdout + done.stderr


def test_a_port_that_is_taken_is_refused(deephpc, served):
    taken = served.running.address.endpoint.port
    done = deephpc("tunnel", RUN, "--port", str(taken))
    assert done.returncode == 2
    assert f"port {taken} cannot be used" in done.stderr


def test_a_run_that_is_not_there_is_told(deephpc):
    done = deephpc("tunnel", "serve-größe'\n$(id)")
    assert done.returncode == 2
    assert "no run named" in done.stderr


def test_a_run_that_is_no_server_is_told(deephpc):
    submitted = deephpc("run", "--name", "plain", "--", "true")
    done = deephpc("tunnel", submitted.stdout.strip())
    assert done.returncode == 2
    assert "is no server" in done.stderr
