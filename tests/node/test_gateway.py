"""The gateway as a job runs it: a process, a server behind it, and clients of several kinds in front."""

import asyncio
import signal
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import httpx
import pytest

from deephpc.node.gateway_port import bind_port
from deephpc.serve.connection import pinned_context
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import gateway, processes_in


@pytest.fixture(scope="module")
def served():
    with gateway(largest_upload_bytes=50_000_000, options=["--ends-at", str(time.time() + 3600)]) as running:
        running.wait_for_stage("ready")
        yield running


@pytest.fixture
def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.fixture
def session(served):
    with served.session() as opened:
        yield opened


def test_a_request_arrives_as_it_was_sent(session):
    answer = session.post("/echo/a%2Fb/%C3%A9?x=1&x=%20&y", content=b"\x00\xff", headers={"X-Own": "yes"}).json()
    assert (answer["method"], answer["path"]) == ("POST", "/echo/a%2Fb/%C3%A9?x=1&x=%20&y")
    assert answer["body"].encode("latin-1") == b"\x00\xff"
    assert ["X-Own", "yes"] in answer["headers"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_every_method_passes(session, method):
    answer = session.request(method, "/echo")
    assert answer.status_code == 200
    assert method == "HEAD" or answer.json()["method"] == method


def test_cookies_of_the_server_arrive_one_by_one(session):
    assert session.get("/echo").headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("size", [9_000, 20_000, 60_000])
def test_cookies_addresses_and_headers_as_long_as_browsers_and_servers_make_them_pass(session, size):
    answer = session.get(f"/long-header?size={size}", headers={"Cookie": "a=" + "x" * size})
    assert (answer.json()["cookies"], len(answer.headers["x-long"])) == (size + 2, size)
    assert len(session.get("/echo?text=" + "x" * size).json()["path"]) == size + len("/echo?text=")


@pytest.mark.parametrize(
    ("to", "seen"),
    [
        ("http://{host}/ui?x=1", "/ui?x=1"),
        ("http://server", "/"),
        ("/ui", "/ui"),
        ("https://{host}/ui", "https://{host}/ui"),
        ("http://example.org/ui", "http://example.org/ui"),
        ("http://server.example.org/ui", "http://server.example.org/ui"),
    ],
)
def test_a_redirect_to_the_servers_own_name_for_itself_leads_back_through_the_gateway(served, session, to, seen):
    answer = session.get("/redirect", params={"to": to}, follow_redirects=False)
    assert answer.headers["location"] == seen.format(host=served.address.url.removeprefix("https://"))


def refusals(running, status, text, *, has_length):
    def upload():
        return bytes(20 << 20) if has_length else (bytes(1 << 20) for _ in range(20))

    where = {"status": status, "text": text}
    with running.session() as session:
        found = [session.post("/refuse-early", params=where, content=upload()) for _ in range(5)]
    return {(answer.status_code, answer.text) for answer in found}


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize(("status", "text"), [(413, "too large"), (403, "not for you"), (507, "")])
def test_an_early_refusal_of_an_upload_arrives_as_it_is(served, status, text, has_length):
    assert refusals(served, status, text, has_length=has_length) == {(status, text)}


def test_an_early_refusal_arrives_from_a_port_too_whose_end_resets_the_connection(free_port):
    with gateway(port=free_port, port_variable="PORT") as running:
        running.wait_for_stage("ready")
        for status, text, has_length in ((413, "too large", False), (507, "", True)):
            assert refusals(running, status, text, has_length=has_length) == {(status, text)}


def test_the_server_never_sees_the_token(served, session):
    seen = session.get("/echo", headers={"Cookie": f"mine=1; deephpc-demo-1a2b={served.address.token}"}).text
    assert served.address.token not in seen
    assert '"mine=1"' in seen


def test_the_gateways_word_to_itself_cannot_be_guessed_and_goes_no_further(session):
    for word in (b"0" * 32, b"\xff"):
        answer = session.get("/echo", headers={"X-Deephpc-Early": word})
        assert (answer.status_code, "early" in answer.text.lower()) == (200, False)


def test_headers_of_one_connection_end_at_the_gateway(session):
    headers = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "Proxy-Authorization": "x"}
    seen = {name.lower() for name, _ in session.get("/echo", headers=headers).json()["headers"]}
    assert not {"x-hop", "te", "proxy-authorization", "connection"} & seen


def test_told_to_end_while_it_still_loads_it_leaves_no_server():
    with gateway(
        words=lambda socket: ["sh", "-c", 'echo >"$1"; while :; do sleep 1; done', "sh", f"{socket}.began"]
    ) as running:
        wait_until((running.folder / "s.began").exists, "the server to be started")
        running.process.terminate()
        assert running.wait_for_end() in (0, 128 + signal.SIGTERM)
        assert not processes_in(running.folder)
        assert not (running.folder / "endpoint.json").exists()


def test_told_to_end_as_it_starts_its_server_it_leaves_none():
    for _ in range(5):  # the signal comes while the gateway has the server's pid, or just before
        with gateway(
            words=lambda socket: ["sh", "-c", 'kill -TERM "$PPID"; while :; do sleep 1; done', "sh", f"{socket}.began"]
        ) as running:
            assert running.wait_for_end() in (0, 128 + signal.SIGTERM)
            assert not processes_in(running.folder)


def test_every_answer_tells_how_much_time_is_left(session):
    for path in ("/echo", "/health", "/ready"):
        assert 3000 < int(session.get(path).headers["X-Deephpc-Time-Left"]) <= 3600


@pytest.mark.parametrize("path", ["/echo", "/health", "/ready", "/v2/models/", "/"])
def test_without_the_token_nothing_is_told(served, path):
    for headers in ({}, {"Authorization": f"Bearer {'0' * 64}"}, {"Authorization": f"Basic {served.address.token}"}):
        with httpx.Client(verify=pinned_context(served.address.endpoint.certificate), trust_env=False) as stranger:
            answer = stranger.get(served.address.url + path, headers=headers)
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers


def test_a_browser_comes_in_by_a_link_and_keeps_a_cookie(served):
    with httpx.Client(
        verify=pinned_context(served.address.endpoint.certificate), trust_env=False, base_url=served.address.url
    ) as browser:
        answer = browser.get("/echo", params={"token": served.address.token, "tab": "2"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/echo?tab=2")
        flags = answer.headers["set-cookie"]
        assert all(flag in flags for flag in ("HttpOnly", "Secure", "SameSite=Strict"))
        assert browser.get("/echo").status_code == 200
        assert browser.post("/echo").status_code == 403, "another site's form"
        own = {"Origin": served.address.url}
        assert browser.post("/echo", headers=own).status_code == 200


def test_a_link_cannot_lead_to_another_site(served):
    with httpx.Client(verify=pinned_context(served.address.endpoint.certificate), trust_env=False) as browser:
        answer = browser.get(f"{served.address.url}//evil.example/x", params={"token": served.address.token})
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith("//")


def test_a_client_that_pins_another_certificate_refuses_the_gateway(served):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with httpx.Client(verify=other, trust_env=False) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        client.get(served.address.url)


def test_plain_http_gets_nothing(served):
    with pytest.raises(httpx.HTTPError):
        httpx.get(served.address.url.replace("https:", "http:"), trust_env=False)


def test_an_answer_is_passed_on_while_it_is_being_made(session):
    with session.stream("GET", "/ticks") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "first"
        session.get("/tick")
        assert next(lines) == "second"


def test_an_upload_is_passed_on_in_chunks(session):
    assert session.post("/count", content=(b"x" * 100_000 for _ in range(50))).json() == {"size": 5_000_000}


@contextmanager
def raw_connection(address):
    with socket.create_connection(("localhost", address.endpoint.port), timeout=DEADLINE_S) as plain:
        context = pinned_context(address.endpoint.certificate)
        with context.wrap_socket(plain, server_hostname="localhost") as talk:
            yield talk


def announce(address, length):
    head = f"POST /count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {address.token}\r\n"
    return f"{head}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()


def test_an_upload_waits_for_the_word_to_go_on(served):
    with raw_connection(served.address) as talk:
        talk.sendall(announce(served.address, 3))
        assert talk.recv(1000).startswith(b"HTTP/1.1 100 ")
        talk.sendall(b"abc")
        answer = b""
        while b'"size": 3' not in answer:
            answer += (piece := talk.recv(1000))
            assert piece, answer


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_comes(served):
    with raw_connection(served.address) as talk:
        talk.sendall(announce(served.address, 50_000_001))
        assert talk.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_turns_out_too_large_is_refused(session):
    chunks = (b"x" * 1_000_000 for _ in range(60))
    with suppress(httpx.WriteError):  # it may still be sending when the gateway hangs up
        assert session.post("/count", content=chunks).status_code == 413
    assert session.get("/ready").status_code == 200


def test_an_answer_that_breaks_off_is_not_taken_for_whole(session):
    with pytest.raises(httpx.RemoteProtocolError):
        session.get("/broken")


def test_a_slow_prediction_holds_up_nobody(session, served):
    async def both():
        headers = {"Authorization": f"Bearer {served.address.token}"}
        context = pinned_context(served.address.endpoint.certificate)
        async with served.talking(headers=headers) as client:
            form = aiohttp.FormData()
            form.add_field("image", b"x", filename="x")
            asking = client.post("/v2/models/demo_module/predict/?slow_s=3600", data=form, ssl=context)
            slow = asyncio.ensure_future(asking)
            others = 0
            while others < 1 and not slow.done():
                async with client.get("/under-way", ssl=context) as answer:
                    others = (await answer.json())["requests"]
            async with client.get("/v2/models/", ssl=context) as answer:
                status = answer.status
            is_waiting = not slow.done()
            slow.cancel()
            return status, is_waiting

    assert asyncio.run(both()) == (200, True)


def test_messages_of_a_websocket_pass_both_ways(served):
    async def talk():
        headers = {"Authorization": f"Bearer {served.address.token}"}
        context = pinned_context(served.address.endpoint.certificate)
        async with (
            served.talking(headers=headers) as client,
            client.ws_connect("/ws", ssl=context, protocols=["v1.kernel"], max_msg_size=0) as channel,
        ):
            await channel.send_str("ψ")
            text = await channel.receive_str()
            await channel.send_bytes(b"\0" * 3_000_000)
            content = await channel.receive_bytes()
            await channel.send_str("bye")
            end = await channel.receive()
            return text, len(content), channel.protocol, end.data

    assert asyncio.run(talk()) == ("ψ", 3_000_000, "v1.kernel", 4001)


def test_a_websocket_needs_the_token_or_the_gateways_own_page(served):
    async def knock(headers):
        context = pinned_context(served.address.endpoint.certificate)
        async with served.talking() as client:
            try:
                async with client.ws_connect("/ws", ssl=context, headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    cookie = {"Cookie": f"deephpc-demo-1a2b={served.address.token}"}
    assert asyncio.run(knock({})) == 401
    assert asyncio.run(knock({**cookie, "Origin": "https://evil.example"})) == 403
    assert asyncio.run(knock({**cookie, "Origin": served.address.url})) == 101


def test_a_websocket_the_server_does_not_know_is_refused(served):
    async def knock():
        headers = {"Authorization": f"Bearer {served.address.token}"}
        context = pinned_context(served.address.endpoint.certificate)
        async with served.talking(headers=headers) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect("/echo", ssl=context)
            return caught.value.status

    assert asyncio.run(knock()) == 502


def test_files_of_a_server_are_for_its_owner_alone(served):
    for name in ("endpoint.json", "certificate.pem", "secrets/token", "secrets/authorization"):
        assert (served.folder / name).stat().st_mode & 0o077 == 0, name
    assert (served.folder / "secrets").stat().st_mode & 0o077 == 0


def test_the_token_is_in_no_command_line_and_no_log(served):
    token = served.address.token.encode()
    assert not any(token in line for line in processes_in(served.folder))
    for path in served.folder.rglob("*"):
        assert path.parent.name == "secrets" or not path.is_file() or token not in path.read_bytes(), path


def test_an_upload_that_stalls_and_a_reader_that_stalls_are_cut_off():
    with gateway(options=["--patience", "0.5"]) as running:
        running.wait_for_stage("ready")
        with raw_connection(running.address) as talk:
            talk.sendall(announce(running.address, 3))
            assert talk.recv(1000).startswith(b"HTTP/1.1 100 ")
            assert talk.recv(1000).startswith(b"HTTP/1.1 408 ")
        with raw_connection(running.address) as talk:
            bearer = f"Authorization: Bearer {running.address.token}"
            talk.sendall(f"GET /stream?size=300000000 HTTP/1.1\r\nHost: x\r\n{bearer}\r\n\r\n".encode())
            assert talk.recv(1000).startswith(b"HTTP/1.1 200 ")
            wait_until(lambda: is_cut(talk, running.process.pid), "the slow reader to be cut off")


def is_cut(talk, pid):
    """Whether the other side has given this connection up (proc(5): its end is no established socket any more)."""
    port = f":{talk.getsockname()[1]:04X}"
    sockets = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return not any(remote.endswith(port) and state == "01" for _, _, remote, state, *_ in sockets)


def test_a_server_on_a_port_of_loopback_is_served_too():
    with bind_port("127.0.0.1") as free:
        port = free.getsockname()[1]
    with gateway(port=port, kind="command", model=None) as running:
        running.wait_for_stage("ready")
        with running.session() as session:
            assert session.post("/echo?x=1", content=b"hi").json()["body"] == "hi"


def test_a_server_that_dies_is_an_error_with_a_reason():
    with gateway() as running:
        running.wait_for_stage("ready")
        with running.session() as session:
            answer = session.get("/die")
        assert (answer.status_code, "does not answer" in answer.json()["error"]) == (502, True)
        assert running.wait_for_end() == 1
        last = running.last_event()
        assert last["reason"] == "the server ended with exit code 7: dying as told"
        assert "dying as told" in last["last_lines"]
        wait_until(lambda: not processes_in(running.folder), "the end of everything")
        assert not (running.folder / "endpoint.json").exists()
