"""The real `deephpc serve` with local jobs, natively: the real gateway, and behind it a server that fails on demand."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from deephpc.serve import Client
from deephpc.serve.connection import load_address, open_session
from tests.fakes.programs import CommandLine
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import UPSTREAM, processes_in

#: In place of the venv's python3, which would run `deepaas_serve.py`.
_MODULE = f"""#!/bin/bash
case $1 in */container/deepaas_serve.py) ;; *) exec {sys.executable} "$@" ;; esac
exec {sys.executable} {UPSTREAM} "$DEEPHPC_SOCKET" --mode "$(cat ~/mode)"
"""


class Servers:
    """A user with a native module, and what is left of the servers at the end."""

    def __init__(self, command: CommandLine) -> None:
        self.command = command

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.command("--site", "local", *words)

    def start(self, *words: str, mode: str = "ok") -> "subprocess.CompletedProcess[str]":
        (self.command.home / "mode").write_text(mode)
        return self("serve", "start", "demo_module", "--engine", "native", "--venv", "venv", "--time", "10", *words)

    def folder(self, run_id: str) -> Path:
        return self.command.home / "work" / run_id

    def status(self, run_id: str) -> dict:
        done = self("--json", "serve", "status", run_id)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def deephpc(tmp_path: Path):
    command = CommandLine.make(tmp_path)
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    (programs / "python3").write_text(_MODULE)
    (programs / "python3").chmod(0o755)
    servers = Servers(command)
    yield servers
    left = [folder.name for folder in (tmp_path / "work").glob("serve-*") if processes_in(folder)]
    if left:
        servers("jobs", "cancel", *left)
    wait_until(lambda: not processes_in(tmp_path / "work"), "the end of every process")


def stages(told: str) -> list[str]:
    """Return the stages that were told, which came one after the other."""
    lines = [line.split() for line in told.splitlines() if line[:1] == " " and " s  " in line]
    assert [int(words[0]) for words in lines] == sorted(int(words[0]) for words in lines), told
    known = ["queued", "starting", "listening", "loading", "warming", "failed", "ready"]
    assert [known.index(words[2]) for words in lines] == sorted({known.index(words[2]) for words in lines}), told
    return [words[2] for words in lines]


def test_a_server_is_ready_when_start_returns_and_nothing_is_left_when_stop_does(deephpc: Servers):
    done = deephpc.start()
    run_id = done.stdout.strip()
    assert (done.returncode, done.stdout) == (0, f"{run_id}\n"), done.stderr
    told = stages(done.stderr)
    assert told[0] == "queued"
    assert told[-4:] == ["listening", "loading", "warming", "ready"]
    server = deephpc.status(run_id)
    assert (server["stage"], server["model"], server["reply"]["ready"]) == ("ready", "demo_module", True)
    assert 0 < server["time_left_s"] <= 600
    assert [one["run_id"] for one in json.loads(deephpc("--json", "serve", "list").stdout)["servers"]] == [run_id]
    with Client.of_run(deephpc.folder(run_id)) as client:
        assert client.predict(image=deephpc.command.home / "mode").value["size"] == 2
    assert deephpc("serve", "stop", run_id).stdout == f"{run_id}: stopped (CANCELLED)\n"
    assert not (deephpc.folder(run_id) / "endpoint.json").exists()
    assert not processes_in(deephpc.folder(run_id))
    assert deephpc("serve", "list").stdout == "no server is alive; 1 ended, --all shows it\n"
    assert (deephpc.status(run_id)["stage"], deephpc.status(run_id)["url"]) == ("ended", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("import-fails", "the server ended with exit code 3: ModuleNotFoundError: No module named 'weights'"),
        ("crash", "the server ended with exit code 9: the model crashes now: no weights"),
        ("hang", "it does not answer its first prediction"),
        ("silent", "it does not listen"),
    ],
)
def test_a_server_that_fails_is_reported_by_its_deadline_and_nothing_is_left(deephpc: Servers, mode: str, reason: str):
    # one that never comes up must have come as far as it does before its deadline
    for ready_within in ("0:00:04", "0:00:40", "0:04:00") if mode in ("hang", "silent") else ("0:04:00",):
        done = deephpc.start("--ready-within", ready_within, mode=mode)
        if reason in done.stderr:
            break
    run_id = done.stdout.strip()
    assert done.returncode == 6
    assert f"error: {run_id} failed: " in done.stderr, done.stderr
    assert reason in done.stderr, done.stderr
    told = stages(done.stderr)
    assert (told[0], told[-1]) == ("queued", "failed")
    assert done.stderr.count(reason) == 2, done.stderr  # as the stage, and as the error
    assert deephpc.status(run_id)["state"] == "FAILED"
    assert not (deephpc.folder(run_id) / "endpoint.json").exists()
    wait_until(lambda: not processes_in(deephpc.folder(run_id)), "the end of every process")


def test_who_stops_waiting_is_told_how_to_go_on_and_the_job_stays(deephpc: Servers):
    program = Path(sys.executable).with_name("deephpc")
    words = ("serve", "start", "demo_module", "--engine", "native", "--venv", "venv", "--time", "10")
    process = subprocess.Popen(  # a fake Slurm, where the job stays in the queue
        [program, *words], cwd=deephpc.command.home, env=deephpc.command.environ(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads; in the background it is ignored
    )  # fmt: skip
    with process:
        try:
            assert "queued" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            run_id, said = (text.strip() for text in process.communicate(timeout=DEADLINE_S))
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"{run_id} goes on; `deephpc serve status {run_id} --wait`" in said
    assert f"`deephpc serve stop {run_id}` ends it" in said
    assert json.loads(deephpc.command("--json", "serve", "list").stdout)["servers"][0]["stage"] == "queued"
    assert deephpc.command("serve", "stop", run_id).stdout == f"{run_id}: stopped (CANCELLED)\n"


@pytest.mark.slow
def test_a_server_that_nobody_uses_ends_by_itself_and_has_completed(deephpc: Servers):
    run_id = deephpc.start("--idle-stop", "0:00:01").stdout.strip()
    assert deephpc("jobs", "wait", run_id).returncode == 0
    server = deephpc.status(run_id)
    assert (server["state"], server["reason"]) == ("COMPLETED", "nobody used it for 1 s")


@pytest.mark.slow
def test_one_may_leave_and_wait_later(deephpc: Servers):
    done = deephpc.start("--no-wait")
    assert "ready" not in done.stderr
    waited = deephpc("--json", "serve", "status", done.stdout.strip(), "--wait")
    assert json.loads(waited.stdout)["stage"] == "ready"


@pytest.mark.slow
def test_the_sample_for_the_first_prediction_is_copied_with_its_name(deephpc: Servers):
    sample = deephpc.command.home / "größe 1.png"
    sample.write_bytes(b"\x89PNG\xff")
    run_id = deephpc.start("--sample", "image=größe 1.png", "--sample", "top=3").stdout.strip()
    sample.unlink()
    (copy,) = (deephpc.folder(run_id) / "samples").rglob("*.png")
    assert (copy.name, copy.read_bytes(), copy.stat().st_mode & 0o077) == ("größe 1.png", b"\x89PNG\xff", 0)
    assert "with your sample (image=größe 1.png top=3)" in deephpc("logs", run_id).stdout
    again = deephpc("jobs", "rerun", run_id).stdout.strip()
    assert json.loads(deephpc("--json", "serve", "status", again, "--wait").stdout)["stage"] == "ready"


@pytest.mark.slow
def test_a_server_of_ones_own_learns_its_port_or_its_socket(deephpc: Servers):
    (deephpc.command.home / "own.sh").write_text(f'exec {sys.executable} {UPSTREAM} "${{PORT:-$DEEPHPC_SOCKET}}"\n')
    common = ("--site", "local", "serve", "start", "--command", "sh own.sh", "--time", "10")
    for words in ((), ("--port-env", "PORT")):
        done = deephpc.command(*common, *words)
        assert done.returncode == 0, done.stderr
        with open_session(load_address(deephpc.folder(done.stdout.strip())), 10) as session:
            assert session.get("/echo").json()["path"] == "/echo"


@pytest.mark.slow
def test_jupyter_is_told_its_socket_and_to_ask_for_no_token_of_its_own(deephpc: Servers):
    (deephpc.command.home / "venv" / "bin" / "jupyter").write_text(
        f"""#!/bin/bash
[ "$2" != --version ] || {{ [ "$1" = server ]; exit; }}
printf '%s\\n' "$@" >~/jupyter.words
exec {sys.executable} {UPSTREAM} "$DEEPHPC_SOCKET"
"""
    )
    (deephpc.command.home / "venv" / "bin" / "jupyter").chmod(0o755)
    done = deephpc("serve", "start", "--service", "jupyter", "--venv", "venv", "--time", "10")
    assert done.returncode == 0, done.stderr
    words = (deephpc.command.home / "jupyter.words").read_text().splitlines()
    assert words[0] == "server"
    assert {"--ServerApp.token=", "--IdentityProvider.token=", "--ServerApp.sock_mode=0600"} <= set(words)
    assert f"--ServerApp.root_dir={deephpc.command.home}" in words


def test_a_jupyter_that_the_environment_lacks_is_not_queued(deephpc: Servers):
    done = deephpc("serve", "start", "--service", "jupyter", "--venv", "venv", "--time", "10")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PATH has a Jupyter" in done.stderr
    assert not (deephpc.command.home / "work").exists()


def test_a_jupyter_that_only_the_node_may_have_is_noted(deephpc: Servers):
    done = deephpc("serve", "start", "--service", "jupyter", "--time", "10", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "note: PATH has no Jupyter here" in done.stderr


def test_a_dry_run_starts_nothing(deephpc: Servers):
    done = deephpc.start("--dry-run")
    assert "deephpc.node.gateway" in done.stdout
    assert not (deephpc.command.home / "work").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample", "image"], "--sample 'image' is not NAME=VALUE"),
        (["--idle-stop", "soon"], "--idle-stop 'soon' is no length of time"),
        (["--ready-within", "0"], "--ready-within '0' is no length of time"),
        (["--service", "gradio"], "--service 'gradio' is not known"),
    ],
)
def test_a_bad_option_is_named_before_anything_is_submitted(deephpc: Servers, words: list[str], said: str):
    done = deephpc.start(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_another_run_is_no_server(deephpc: Servers):
    run_id = deephpc("run", "--time", "10", "--", "true").stdout.strip()
    for verb in ("status", "stop"):
        done = deephpc("serve", verb, run_id)
        assert (done.returncode, f"run {run_id} is no server" in done.stderr) == (2, True)
