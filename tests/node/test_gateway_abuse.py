"""Clients that vanish, lie about their requests, or guess; a server that dies in the middle of an answer."""

import asyncio
import re
import socket
import ssl
from contextlib import contextmanager, suppress

import aiohttp
import httpx
import pytest

from deephpc.serve.connection import pinned_context
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import gateway, processes_in

MIB = 1 << 20


@pytest.fixture(scope="module")
def served():
    with gateway() as running:
        running.wait_for_stage("ready")
        yield running


@pytest.fixture
def session(served):
    with served.session() as opened:
        yield opened


@contextmanager
def connection(served):
    with socket.create_connection(("localhost", served.address.endpoint.port), timeout=DEADLINE_S) as plain:
        context = pinned_context(served.address.endpoint.certificate)
        with context.wrap_socket(plain, server_hostname="localhost") as talk:
            yield talk


def head(served, first_line, *lines):
    said = [first_line, "Host: x", f"Authorization: Bearer {served.address.token}", *lines]
    return ("\r\n".join(said) + "\r\n\r\n").encode("latin-1")


def all_of(talk):
    """Read until the other side hangs up."""
    content = b""
    with suppress(ConnectionError, ssl.SSLError):
        while piece := talk.recv(1 << 16):
            content += piece
    return content


def under_way(session):
    return session.get("/under-way").json()["requests"]


def test_a_client_that_vanishes_amid_its_upload_leaves_nothing_behind(served, session):
    with connection(served) as talk:
        talk.sendall(head(served, "POST /count HTTP/1.1", f"Content-Length: {100 * MIB}") + bytes(MIB))
        wait_until(lambda: under_way(session) == 1, "the upload to begin")
    wait_until(lambda: under_way(session) == 0, "the server to be told that the client has gone")


def test_a_client_that_vanishes_amid_its_answer_leaves_nothing_behind(served, session):
    with connection(served) as talk:
        talk.sendall(head(served, "GET /stream?size=1000000000 HTTP/1.1"))
        assert talk.recv(1000).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: under_way(session) == 1, "the answer to begin")
    wait_until(lambda: under_way(session) == 0, "the server to be told that the client has gone")


def test_a_client_that_vanishes_amid_its_prediction_is_waited_for_no_longer(served, session):
    with connection(served) as talk:
        talk.sendall(head(served, "POST /wait HTTP/1.1", "Content-Length: 0"))
        wait_until(lambda: under_way(session) == 1, "the prediction to begin")
    wait_until(lambda: under_way(session) == 0, "the server to be told that the client has gone")


#: Requests that a gateway and a server may read differently (RFC 9112, 11.2), with the smuggled one in their bodies.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LIES = {
    "a length and chunks": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + SMUGGLED),
    "two lengths": (["Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"], SMUGGLED),
    "a list of lengths": ([f"Content-Length: 0, {len(SMUGGLED)}"], SMUGGLED),
    "a length with a sign": (["Content-Length: +0"], SMUGGLED),
    "chunks twice": (["Transfer-Encoding: chunked, chunked"], b"0\r\n\r\n" + SMUGGLED),
    "chunks not last": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n" + SMUGGLED),
    "unknown coding": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n" + SMUGGLED),
    "a space before the colon": (["Content-Length : 0", "Transfer-Encoding : chunked"], SMUGGLED),
    "a folded line": (["X-A: 1", " Transfer-Encoding: chunked"], b"0\r\n\r\n" + SMUGGLED),
    "a chunk's size with a sign": (["Transfer-Encoding: chunked"], b"-1\r\n\r\n" + SMUGGLED),
    "a chunk's size with a bare newline": (["Transfer-Encoding: chunked"], b"0\n\n" + SMUGGLED),
    "a zero byte": (["X-A: 1\0"], SMUGGLED),
    "a bare newline in a header": (["X-A: 1\nTransfer-Encoding: chunked"], b"0\r\n\r\n" + SMUGGLED),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_can_be_read_in_two_ways_is_refused_and_brings_the_server_no_request(served, session, lie):
    lines, body = LIES[lie]
    with connection(served) as talk:
        talk.sendall(head(served, "POST /count-lie HTTP/1.1", *lines) + body)
        answer = all_of(talk)
    assert re.findall(rb"HTTP/1\.[01] (\d+) ", answer)[:1] == [b"400"], answer
    assert not {"/smuggled", "/count-lie"} & {path for path, *_ in session.get("/seen").json()["requests"]}


@pytest.mark.parametrize(
    ("first_line", "lines"),
    [
        ("GET /" + "x" * 100_000 + " HTTP/1.1", []),
        ("GET / HTTP/1.1", ["X-A: " + "x" * 1_000_000]),
        ("GET / HTTP/1.1", [f"X-{n}: {'x' * 100}" for n in range(20_000)]),
        ("GET / HTTP/9.9", []),
        ("\x16\x03 / HTTP/1.1", []),
        ("GET  /  HTTP/1.1", []),
    ],
    ids=["long address", "long header", "many headers", "unknown version", "no method", "spaces"],
)
def test_heads_that_are_none_are_refused_and_cost_nothing(served, session, first_line, lines):
    with connection(served) as talk:
        with suppress(OSError):  # it may hang up before the end
            talk.sendall(head(served, first_line, "Connection: close", *lines))
        answer = all_of(talk)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert served.address.token.encode() not in answer
    assert session.get("/ready").status_code == 200


def test_a_server_that_dies_amid_its_answer_leaves_no_whole_one():
    with gateway() as running:
        running.wait_for_stage("ready")
        with running.session() as session, pytest.raises(httpx.RemoteProtocolError):
            session.get(f"/stream?size={50 * MIB}&die_after={5 * MIB}")
        assert running.wait_for_end() == 1
        assert running.last_event()["reason"] == "the server ended with exit code 7"
        wait_until(lambda: not processes_in(running.folder), "the end of everything")


@pytest.mark.slow
def test_guesses_at_the_token_without_an_end_are_refused_and_keep_nobody_waiting(served):
    context = pinned_context(served.address.endpoint.certificate)
    statuses, is_answered = [], asyncio.Event()

    async def guess(client):
        """Guess until the friend has an answer, and until there were a thousand guesses."""
        while not is_answered.is_set() or len(statuses) < 1000:
            headers = {"Authorization": f"Bearer {len(statuses):064x}"}
            async with client.post("/count", headers=headers, data=b"x" * 1000, ssl=context) as answer:
                statuses.append(answer.status)

    async def talk():
        async with served.talking() as client:
            guessing = asyncio.gather(*(guess(client) for _ in range(100)))
            while len(statuses) < 100:
                await asyncio.sleep(0.01)
            headers = {"Authorization": f"Bearer {served.address.token}"}
            async with (
                served.talking(headers=headers) as friend,
                friend.get("/ready", ssl=context) as answer,
            ):
                is_answered.set()
                await guessing
                return answer.status

    assert asyncio.run(talk()) == 200
    assert set(statuses) == {401}


@pytest.mark.slow
def test_a_websocket_message_beyond_all_bounds_ends_the_websocket_alone(served, session):
    context = pinned_context(served.address.endpoint.certificate)

    async def talk():
        headers = {"Authorization": f"Bearer {served.address.token}"}
        async with (
            served.talking(headers=headers) as client,
            client.ws_connect("/ws", ssl=context, max_msg_size=0) as channel,
        ):
            await channel.send_bytes(bytes(30 * MIB))
            large = await channel.receive_bytes(timeout=DEADLINE_S)
            with suppress(ConnectionError):  # it hangs up on us
                await channel.send_bytes(bytes(65 * MIB))
            end = await channel.receive(timeout=DEADLINE_S)
            return len(large), end.type

    size, end = asyncio.run(talk())
    assert size == 30 * MIB
    assert end in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
    assert session.get("/ready").status_code == 200
