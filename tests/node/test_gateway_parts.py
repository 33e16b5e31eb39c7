"""The gateway's small parts, without a network between."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from deephpc.errors import SiteError
from deephpc.node.gateway import _end, parse_options
from deephpc.node.gateway_certificate import make_certificate, server_context
from deephpc.node.gateway_headers import headers_upstream
from deephpc.node.gateway_life import stand_before
from deephpc.node.gateway_port import bind_port
from deephpc.node.gateway_server import ServerProgram
from deephpc.node.gateway_standing import EventLog, Standing, Traffic
from deephpc.serve.service import SERVICE, Service, render_service
from tests.fakes.samples import A_TENTH

NAMES = st.sampled_from(["Accept", "Connection", "X-A", "x-b", "TE", "Upgrade", "Cookie", "Authorization", "Host"])
VALUES = st.sampled_from(["close", "X-A, keep-alive", "a=1; deephpc-r=secret", "Bearer secret", "Basic mine", "x"])


@A_TENTH
@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_what_concerns_one_connection_or_the_gateway_never_goes_up(headers):
    sent = headers_upstream(CIMultiDictProxy(CIMultiDict(headers)), "10.0.0.1", "deephpc-r")
    names = {name.lower() for name in sent}
    assert not names & {"connection", "te", "upgrade"}
    assert ("connection", "X-A, keep-alive") not in [(n.lower(), v) for n, v in headers] or "x-a" not in names
    assert "deephpc-r=secret" not in sent.get("Cookie", "")
    assert "X-Forwarded-For" in sent


def test_a_port_above_the_ephemeral_range_is_bound():
    with bind_port("127.0.0.1") as bound:
        assert 61000 <= bound.getsockname()[1] <= 65535


def test_a_port_in_use_is_passed_over():
    class Chance:
        def sample(self, ports, count):
            return [taken.getsockname()[1], *[port for port in ports if port != taken.getsockname()[1]][: count - 1]]

    with bind_port("127.0.0.1") as taken:
        taken.listen()
        with bind_port("127.0.0.1", Chance()) as bound:
            assert bound.getsockname()[1] != taken.getsockname()[1]


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(SiteError, match=r"cannot bind 192\.0\.2\.1"):
        bind_port("192.0.2.1")


def test_the_certificate_is_for_the_node_and_for_localhost():
    made = make_certificate("demo-1a2b", "c1")
    read = x509.load_pem_x509_certificate(made.pem.encode())
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "c1"} <= set(names.get_values_for_type(x509.DNSName))
    assert read.not_valid_before_utc < datetime.now(timezone.utc) < read.not_valid_after_utc


def test_no_two_runs_have_the_same_key():
    assert make_certificate("r", "c1").public_key_pin != make_certificate("r", "c1").public_key_pin


def test_strict_clients_accept_the_certificate_for_the_nodes_name():
    made = make_certificate("demo-1a2b", "c1")
    strict = ssl.create_default_context(cadata=made.pem)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = strict.wrap_bio(ours, theirs, server_hostname="c1")
    server = server_context(made).wrap_bio(theirs, ours, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() in ("TLSv1.2", "TLSv1.3")


def test_a_slow_client_is_cut_off_and_a_slow_server_is_not():
    cut = []
    traffic = Traffic()
    with traffic.transfer(lambda: cut.append("client")) as one, traffic.transfer(lambda: cut.append("server")):
        with one.waits():
            traffic.cut_slow(3600.0)
            assert cut == []
            traffic.cut_slow(-1.0)
        traffic.cut_slow(-1.0)
    assert cut == ["client"]


def test_a_server_in_use_is_not_idle():
    traffic = Traffic()
    with traffic.transfer(lambda: None):
        assert traffic.idle_s() == 0.0
        ends = time.monotonic()
    assert traffic.idle_s() <= time.monotonic() - ends


def test_a_folder_that_cannot_be_written_stops_no_server(tmp_path, capsys):
    EventLog(tmp_path / "gone" / "events.jsonl", "7", "c1", 1).note("serve", stage="ready")
    assert "ready" in capsys.readouterr().err


def test_every_stage_is_an_event(tmp_path):
    standing = Standing(EventLog(tmp_path / "events.jsonl", "7", socket.gethostname(), 2), ends_at=0.0)
    standing.enter("failed", "it broke", last_lines=["x"])
    text = (tmp_path / "events.jsonl").read_text()
    assert all(part in text for part in ('"event": "serve"', '"stage": "failed"', '"attempt": 2', '"it broke"'))
    assert standing.time_left_s() == 0


def test_a_word_to_end_that_python_passed_over_while_it_loaded_modules_is_heard_all_the_same(tmp_path):
    (tmp_path / SERVICE).write_text(render_service(Service(model="m")))
    log = tmp_path / "job.log"
    options = parse_options([str(tmp_path), "--socket", str(tmp_path / "s"), "--host", "localhost", "--log", str(log)])
    options.told = []
    with pytest.raises(SystemExit):
        _end(options.told, signal.SIGTERM, None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    assert stand_before(ServerProgram(log), options, "") == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert '"told to end"' in (tmp_path / "events.jsonl").read_text()


_ENDING = """
import sys, time
from pathlib import Path
from deephpc.node.gateway_server import ServerProgram
program = ServerProgram(Path("log"))
program.start(["sh", "-c", sys.argv[1]], Path("."), {"PATH": "/usr/bin:/bin"})
while program.exit_code() is None:
    time.sleep(0.02)
print(program.ending())
"""


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo no weights; exit 9", "the server ended with exit code 9: no weights"),
        ("echo no weights; echo 'deephpc gateway: the first prediction: 502'; exit 9", "exit code 9: no weights"),
        ("echo 'deepaas_module: serving x'; echo bang; exit 1", "exit code 1: bang"),
        ("echo 'deepaas_module: no module'; echo engine; exit 1", "exit code 1: deepaas_module: no module"),
        ("exit 139", "exit code 139: its program was ended by signal 11 (SIGSEGV)"),
        ("kill -KILL $$", "the server was killed by signal 9 (SIGKILL)"),
        ("exit 255", "the server ended with exit code 255"),
    ],
)
def test_how_a_server_ended_is_told_by_its_own_last_words(tmp_path, script, told):
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith(told)
