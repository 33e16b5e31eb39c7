"""Tunnels, with a double of ssh that really forwards; `tests/cluster` has the real one."""

import re
import shlex
import socket
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError, SiteError
from deephpc.node.gateway_certificate import make_certificate
from deephpc.serve import Client
from deephpc.serve.connection import Address
from deephpc.serve.endpoint import Endpoint
from deephpc.serve.tunnel import (
    Tunnel,
    Way,
    choose_port,
    is_reached,
    plan_ways,
    render_laptop_line,
    render_lines,
    ssh_argv,
)
from deephpc.shell import start_child
from tests.fakes.samples import A_TENTH
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import gateway

CERTIFICATE = make_certificate("demo-1a2b", "c1")
ENDPOINT = Endpoint(
    run_id="demo-1a2b",
    host="c1",
    port=61234,
    certificate=CERTIFICATE.pem,
    public_key_pin=CERTIFICATE.public_key_pin,
    started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
)


class Starter:
    """Starts the double of ssh and remembers what with."""

    def __init__(self):
        self.argvs = []
        self.running = []

    def __call__(self, argv):
        self.argvs.append(list(argv))
        process = start_child([sys.executable, str(Path(__file__).with_name("fake_ssh.py")), *argv[1:]])
        self.running.append(process)
        return process


@pytest.fixture
def start():
    starter = Starter()
    yield starter
    for process in starter.running:
        process.terminate()


@pytest.fixture(scope="module")
def served():
    with gateway() as running:
        running.wait_for_stage("ready")
        yield running


@pytest.fixture
def behind(served):
    """The server as seen from where its node cannot be reached by its name."""
    return Address(served.address.endpoint.model_copy(update={"host": "c1"}), served.address.token)


def test_ssh_asks_nothing_shares_nothing_and_fails_when_it_cannot_forward():
    argv = ssh_argv(ENDPOINT, ["alice@login"], 40000)
    for option in ("BatchMode=yes", "ControlPath=none", "ControlMaster=no", "ExitOnForwardFailure=yes"):
        assert argv[argv.index(option) - 1] == "-o"
    assert argv[argv.index("-L") + 1] == "127.0.0.1:40000:c1:61234"
    assert argv[-2:] == ["--", "alice@login"]


def test_the_node_itself_as_last_hop_is_reached_on_its_loopback():
    argv = ssh_argv(ENDPOINT, ["alice@login", "alice@c1"], 40000, Path("/x/config"))
    assert argv[argv.index("-L") + 1] == "127.0.0.1:40000:127.0.0.1:61234"
    assert argv[argv.index("-J") + 1] == "alice@login"
    assert argv[argv.index("-F") + 1] == "/x/config"


def test_from_a_laptop_the_way_leads_over_the_login_node():
    assert plan_ways(ENDPOINT) == (Way(), Way(("c1",)))
    assert plan_ways(ENDPOINT, "alice@login") == (Way(("alice@login",)), Way(("alice@login", "alice@c1")))
    assert plan_ways(ENDPOINT, "login") == (Way(("login",)), Way(("login", "c1")))


@A_TENTH
@given(st.text(max_size=12))
def test_no_host_becomes_an_option(hop):
    try:
        argv = ssh_argv(ENDPOINT, [hop], 40000)
    except InputError as error:
        assert error.hint
    else:
        assert argv[-2:] == ["--", hop]
        assert not hop.startswith("-")


def test_a_node_that_is_reached_directly_needs_no_ssh(served, start):
    tunnel = Tunnel(served.address, [Way(), Way(("alice@c1",))], start)
    assert tunnel.open() == served.address
    assert not start.argvs


def test_a_node_that_is_not_reached_is_reached_through_the_first_way_that_works(behind, start):
    told = []
    tunnel = Tunnel(behind, [Way(), Way(("alice@down",)), Way(("alice@c1",))], start, tell=told.append)
    try:
        with Client(tunnel.open(), patience_s=DEADLINE_S) as client:
            assert client.models() == ("demo_module",)
        assert [argv[-1] for argv in start.argvs] == ["alice@down", "alice@c1"]
        assert told == ["no way by c1 itself: it does not answer", "no way by ssh to alice@down: the host is down"]
    finally:
        tunnel.close()
    assert start.running[-1].poll() is not None


def test_a_port_that_is_asked_for_leads_to_a_node_that_is_reached_directly(served, start):
    port = choose_port()
    tunnel = Tunnel(served.address, [Way(), Way(("alice@localhost",))], start, port=port)
    try:
        address = tunnel.open()
        assert address.url == f"https://localhost:{port}"
        with Client(address, patience_s=DEADLINE_S) as client:
            assert client.models() == ("demo_module",)
        assert not start.argvs
    finally:
        tunnel.close()
    assert not is_reached("127.0.0.1", port)


def test_no_way_is_an_error_that_names_them(behind, start):
    with pytest.raises(SiteError, match="tried c1 itself: it does not answer; ssh to alice@down: the host is down"):
        Tunnel(behind, [Way(), Way(("alice@down",))], start).open()


def test_a_port_in_use_is_refused(behind, start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be used"):
            Tunnel(behind, [Way()], start, port=taken.getsockname()[1])


def test_a_lost_connection_is_made_again(behind, start):
    told, done = [], threading.Event()
    tunnel = Tunnel(behind, [Way(("alice@c1",))], start, tell=told.append)
    address = tunnel.open()
    holding = threading.Thread(target=tunnel.hold, args=(done.is_set, lambda _: done.wait(0.01)))
    holding.start()
    try:
        start.running[0].terminate()
        wait_until(lambda: "connected again" in told, "the connection to come back")
        with Client(address, patience_s=DEADLINE_S) as client:
            assert client.models() == ("demo_module",)
    finally:
        done.set()
        holding.join(DEADLINE_S)
        tunnel.close()
    assert told == ["the connection is lost (ssh ended with -15); trying again", "connected again"]


def test_the_lines_to_copy_work_and_hold_no_token(served):
    lines = render_lines(served.address, served.folder)
    assert lines.url == served.address.url
    assert served.address.token not in str(lines)
    answer = subprocess.run(
        [*shlex.split(lines.curl), "-sS"], check=False, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert "demo_module" in answer.stdout, answer.stderr
    script = f"{lines.python}; print(client.models())"
    answer = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert answer.stdout == "('demo_module',)\n", answer.stderr


def test_curl_can_pin_the_public_key_alone(served):
    pin = served.address.endpoint.public_key_pin
    for name, code in ((pin, 0), ("sha256//" + "A" * 43 + "=", 90)):
        curl = ["curl", "-sS", "-k", "--pinnedpubkey", name, "-H", f"@{served.folder}/secrets/authorization"]
        answer = subprocess.run(
            [*curl, f"{served.address.url}/health"], check=False, capture_output=True, timeout=DEADLINE_S
        )
        assert answer.returncode == code


def test_the_line_for_a_laptop_is_plain_ssh():
    assert render_laptop_line(ENDPOINT, "alice@login", 8443) == "ssh -N -L 8443:c1:61234 alice@login"
    behind = render_laptop_line(ENDPOINT, "alice@login", 8443, Way(("c1",)))
    assert behind == "ssh -N -J alice@login -L 8443:127.0.0.1:61234 alice@c1"
    assert re.search(
        r"\[fe80::1\]:61234", render_laptop_line(ENDPOINT.model_copy(update={"host": "fe80::1"}), "a@b", 1)
    )
