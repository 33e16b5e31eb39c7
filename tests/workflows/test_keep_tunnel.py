"""A tunnel over the life of a server: other nodes, ways that are closed for a while, the end."""

import threading
from contextlib import contextmanager

import pytest

from deephpc.errors import SiteError
from deephpc.serve import Client
from deephpc.serve.tunnel import choose_port, is_reached
from deephpc.shell import start_child
from deephpc.workflows.keep_tunnel import TunnelRequest, keep_tunnel
from deephpc.workflows.reach_server import Reached, ServerEnded
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import gateway


def no_ssh(_argv):
    """Start what ends at once, as an ssh that is refused does."""
    return start_child(["false"])


class Server:
    """A server that is where the test says, one place after the other."""

    def __init__(self, *places):
        self.looks_apart_s = 0.0
        self._places = list(places)
        self._now = None

    def wait(self):
        if not self._places:
            raise ServerEnded("the server s has ended (COMPLETED)", "start another")
        self._now = self._places.pop(0)
        return self._now

    def stands(self, endpoint):
        return self._now is not None and self._now.address.endpoint == endpoint

    def goes(self):
        self._now = None


def at(running, **changes):
    """Return where a gateway is reached; with changes, where it is not."""
    address = running.address
    endpoint = address.endpoint.model_copy(update=changes)
    return Reached(type(address)(endpoint, address.token), running.folder)


@contextmanager
def keeping(server, port):
    """Keep a tunnel in a thread; yields what it tells and shows."""
    told, shown = [], []
    request = TunnelRequest(port=port, here="alice@login")
    words = (server, request, no_ssh, told.append, shown.append)
    thread = threading.Thread(target=keep_tunnel, args=words)
    thread.start()
    try:
        wait_until(lambda: shown, "the tunnel to open")
        yield thread, told, shown
    finally:
        server.goes()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_the_port_leads_to_wherever_the_server_is_until_it_ends():
    port = choose_port()
    with gateway() as first, gateway() as second:
        first.wait_for_stage("ready")
        second.wait_for_stage("ready")
        server = Server(at(first), at(second, port=1), at(second))
        with keeping(server, port) as (thread, told, shown):
            with Client(first.address.through(port)) as client:
                assert client.models() == ("demo_module",)
            server.goes()
            wait_until(lambda: any("is ready again" in line for line in told), "the second place")
            assert any("cannot be reached" in line for line in told)
            with Client(second.address.through(port)) as client:
                assert client.models() == ("demo_module",)
            server.goes()
            thread.join(DEADLINE_S)
            assert told[-1] == "the server s has ended (COMPLETED)"
            assert [one.port for one in shown] == [port]
    assert not is_reached("127.0.0.1", port)


def test_no_way_at_the_beginning_is_an_error():
    with gateway() as running:
        running.wait_for_stage("ready")
        server = Server(at(running, port=1))
        told = []
        with pytest.raises(SiteError, match="cannot be reached"):
            keep_tunnel(server, TunnelRequest(here="a@b"), no_ssh, told.append, told.append)
