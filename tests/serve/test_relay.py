"""A local port that leads to another one, with a real server behind it."""

import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from deephpc.errors import InputError
from deephpc.serve.relay import Relay
from deephpc.serve.tunnel import choose_port, is_reached
from tests.fakes.waiting import DEADLINE_S, wait_until


@contextmanager
def listening(answer):
    """Run a server of this process that hands each connection to `answer`; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def count(connection):
    """Answer how many bytes came before the other side ended its half."""
    with connection:
        size = 0
        while data := connection.recv(1 << 16):
            size += len(data)
        connection.sendall(str(size).encode())


def stay(connection):
    """Say hello and wait for the other side to go."""
    with connection:
        connection.sendall(b"hello")
        connection.recv(1)


@contextmanager
def relay(target):
    port = choose_port()
    opened = Relay(port, "127.0.0.1", target)
    try:
        yield opened, port
    finally:
        opened.close()


def test_both_halves_are_carried_whole_and_end_one_after_the_other():
    with (
        listening(count) as target,
        relay(target) as (_, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as near,
    ):
        near.sendall(bytes(5_000_000))
        near.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b"5000000"
        assert near.recv(100) == b""


def test_a_hundred_connections_go_through_at_once():
    with listening(stay) as target, relay(target) as (_, port):
        nears = [socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(100)]
        assert [near.recv(5, socket.MSG_WAITALL) for near in nears] == [b"hello"] * 100
        for near in nears:
            near.close()


def test_a_target_that_is_away_closes_the_connection_and_comes_back():
    target = choose_port()
    with relay(target) as (_, port):
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as near:
            assert near.recv(5) == b""
        assert is_reached("127.0.0.1", port)


def test_the_end_closes_the_port_and_what_goes_through_it():
    with listening(stay) as target, relay(target) as (opened, port):
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as near:
            assert near.recv(5) == b"hello"
            opened.close()
            with suppress(ConnectionResetError):
                assert near.recv(5) == b""
        wait_until(lambda: not is_reached("127.0.0.1", port), "the port to close")
        opened.close()


def test_a_port_that_is_taken_is_refused():
    with listening(stay) as target, pytest.raises(InputError, match=f"port {target} cannot be used"):
        Relay(target, "127.0.0.1", 1)
