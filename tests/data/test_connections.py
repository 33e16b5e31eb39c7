"""The HTTP client against servers that say exactly what a test has written down."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deephpc.data.answer import Broken
from deephpc.data.connections import Connections, Message, Misled
from deephpc.data.storage import Unwritable
from deephpc.data.web import Limits, Request, Web
from deephpc.errors import DataError
from deephpc.retries import Patience
from tests.fakes.waiting import DEADLINE_S, wait_until

PATIENCE = Patience(connect_s=DEADLINE_S, stall_s=DEADLINE_S)
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer the heads that come with what is written down, each `b""` closing a connection.

    Yields the URL and the heads, `b""` for a connection that was closed.
    """
    heads: list[bytes] = []
    clients: list[socket.socket] = []
    left = list(answers)

    def serve() -> None:
        with contextlib.suppress(OSError):  # it is over
            while left:
                client, _ = listener.accept()
                clients.append(client)
                with client:
                    is_closing = _say(client, left, heads)
                if is_closing:
                    heads.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
        finally:
            for each in (listener, *clients):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()


def _say(client: socket.socket, left: list[bytes], heads: list[bytes]) -> bool:
    """Answer; True when what is written down says to close the connection."""
    while left:
        if not left[0]:
            left.pop(0)
            return True
        head = _head_of(client)
        if not head:
            break
        heads.append(head)
        client.sendall(left.pop(0))
    return False


def _head_of(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(1 << 16)
        if not piece:
            return b""
        head += piece
    return head


def get(connections: Connections, url: str, **headers: str) -> bytes:
    with connections.send(Message("GET", url, headers), follow=True) as answer:
        return b"".join(bytes(chunk) for chunk in answer.chunks())


@pytest.fixture
def connections() -> Iterator[Connections]:
    found = Connections(PATIENCE, trust_proxies=False)
    yield found
    found.close()


def test_a_connection_is_used_again(connections: Connections):
    with saying(FINE, FINE.replace(b"200 OK", b"404 No"), FINE) as (url, heads):
        assert get(connections, url) == get(connections, url) == get(connections, f"{url}/a b?c=ü d") == b"ok"
    assert heads[2].startswith(b"GET /a%20b?c=%C3%BC%20d HTTP/1.1\r\n")


def test_one_that_the_server_closed_meanwhile_is_not_used_again(connections: Connections):
    with saying(FINE, b"", FINE) as (url, heads):
        assert get(connections, url) == b"ok"
        wait_until(lambda: heads[-1] == b"")
        assert get(connections, url) == b"ok"


@pytest.mark.parametrize("first", [b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_what_comes_before_an_answer_is_passed_over(connections: Connections, first: bytes):
    with saying(first + FINE) as (url, _):
        assert get(connections, url) == b"ok"


def test_a_body_in_chunks_is_read_to_its_end_and_the_connection_used_again(connections: Connections):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    with saying(chunked, FINE) as (url, _):
        assert (get(connections, url), get(connections, url)) == (b"abcde", b"ok")


def test_a_body_without_a_length_ends_with_the_connection(connections: Connections):
    with saying(b"HTTP/1.1 200 OK\r\n\r\nabc", b"", FINE) as (url, _):
        assert (get(connections, url), get(connections, url)) == (b"abc", b"ok")


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 2",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
    ],
)
def test_half_an_answer_is_none(connections: Connections, broken: bytes):
    with saying(broken) as (url, _), pytest.raises(Broken):
        get(connections, url)


def test_redirects_are_followed_and_credentials_stay_with_their_server(connections: Connections):
    with saying(FINE) as (other, seen):
        there = f"HTTP/1.1 302 Found\r\nLocation: {other}/b\r\nContent-Length: 3\r\n\r\nold".encode()
        here = "HTTP/1.1 301 Moved\r\nLocation: ü/a#x\r\nContent-Length: 0\r\n\r\n".encode()
        with saying(here, there) as (url, heads):
            assert get(connections, f"{url}/", Authorization="secret") == b"ok"
    assert heads[1].startswith(b"GET /%C3%BC/a HTTP/1.1\r\n")
    assert b"secret" in heads[1]
    assert seen[0].startswith(b"GET /b ")
    assert b"secret" not in seen[0]


@pytest.mark.parametrize(
    ("location", "says"),
    [("ftp://host/x", "other than HTTP"), ("http://[/x", "no address"), ("http://h:x/", "no address"), ("/", "circle")],
)
def test_redirects_that_lead_nowhere_end(connections: Connections, location: str, says: str):
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with saying(*[answer] * 21) as (url, _), pytest.raises(Misled, match=says):
        get(connections, url)


def test_an_answer_that_comes_before_all_is_sent_is_heard():
    full = b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n"
    with saying(full) as (url, _):
        web = Web(url, None, Limits(patience=PATIENCE))
        with pytest.raises(Unwritable, match="no room"):
            web.ask(Request("PUT", url, "there", {"Content-Length": str(1 << 24)}, _pieces(1 << 24)))


def test_a_header_that_holds_what_none_may_is_not_told(connections: Connections):
    with saying(FINE) as (url, _), pytest.raises(Misled) as caught:
        get(connections, url, Authorization="sec\nret")
    assert "sec" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("no_proxy", ["", "127.0.0.1"])
def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch, no_proxy: str):
    with saying(FINE) as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy.replace("http://", "http://me:p%40w@"))
        monkeypatch.setenv("no_proxy", no_proxy)
        connections = Connections(PATIENCE, trust_proxies=True)
        with pytest.raises(Broken) if no_proxy else contextlib.nullcontext():
            assert get(connections, "http://127.0.0.1:9/x") == b"ok"
        connections.close()
    assert [head.split(b"\r\n")[0] for head in heads] == ([] if no_proxy else [b"GET http://127.0.0.1:9/x HTTP/1.1"])
    assert all(b"Proxy-Authorization: Basic bWU6cEB3" in head for head in heads)


def test_a_proxy_makes_a_tunnel_for_tls_and_sees_no_credentials(monkeypatch: pytest.MonkeyPatch):
    with saying(b"HTTP/1.1 407 No\r\n\r\n") as (proxy, heads):
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(Broken) as caught:
            get(Connections(PATIENCE, trust_proxies=True), "https://far.example/x", Authorization="secret")
    assert "407" in str(caught.value.__cause__)
    assert heads[0].startswith(b"CONNECT far.example:443 HTTP/1.")
    assert b"secret" not in heads[0]


def _pieces(size: int) -> Iterator[bytes]:
    for _ in range(size >> 16):
        yield bytes(1 << 16)


def test_a_proxy_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    web = Web("http://far.example", None, Limits(patience=PATIENCE))
    with pytest.raises(DataError, match="socks5") as caught:
        web.ask(Request("GET", "http://far.example/x", "there", {}))
    assert "http_proxy" in caught.value.hint
