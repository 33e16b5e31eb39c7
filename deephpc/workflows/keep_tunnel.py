"""Keeps a local port to a server open until the server ends, also when its job starts anew on another node."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.serve.connection import Address
from deephpc.serve.endpoint import Endpoint
from deephpc.serve.tunnel import (
    Lines,
    Start,
    Tunnel,
    Way,
    choose_port,
    plan_ways,
    render_laptop_line,
    render_lines,
)
from deephpc.workflows.reach_server import Reached, Server, ServerEnded

_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class TunnelRequest:
    """A tunnel, as asked for."""

    port: int | None = None
    """Where it is to begin on this machine; None for any free port."""
    login: str | None = None
    """`user@login` where this is a laptop; None on the cluster itself."""
    here: str = ""
    """`user@login` of this machine, for the line that a laptop may use."""


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    """A tunnel that is open, and what a user may copy."""

    endpoint: Endpoint
    folder: Path
    """Where certificate and token lie on this machine."""
    port: int
    way: str
    lines: Lines
    laptop: str
    """The plain ssh line for a laptop; empty where this is one."""


def keep_tunnel(
    server: Server,
    request: TunnelRequest,
    start: Start,
    tell: Callable[[str], None],
    show: Callable[[OpenTunnel], None],
) -> None:
    """Open a tunnel when the server is ready, show it, and keep it open until the server ends.

    Raises
    ------
    InputError
        The server has ended already, or the port is taken.
    SiteError
        No way to it works.
    """
    reached = server.wait()
    port = choose_port(request.port)
    is_shown = False
    while True:
        tunnel = Tunnel(
            reached.address, plan_ways(reached.address.endpoint, request.login), start, port=port, tell=tell
        )
        try:
            address = tunnel.open()
            if is_shown:
                tell(f"the server is ready again, on {reached.address.endpoint.host}; the tunnel leads there now")
            else:
                show(_describe(reached, address, tunnel.way, request))
            is_shown = True
            tunnel.hold(_rarely(server, reached.address.endpoint))
        except SiteError as error:
            if not is_shown:
                raise
            tell(error.message)  # its node may be gone, and Slurm not know yet
            time.sleep(_AGAIN_S)
        finally:
            tunnel.close()
        try:
            reached = server.wait()
        except ServerEnded as end:
            tell(end.message)
            return


def _rarely(server: Server, endpoint: Endpoint) -> Callable[[], bool]:
    """Return what tells whether the server has gone; it looks again only after a while."""
    last = time.monotonic()

    def is_gone() -> bool:
        nonlocal last
        if time.monotonic() - last < server.looks_apart_s:
            return False
        last = time.monotonic()
        return not server.stands(endpoint)

    return is_gone


def _describe(reached: Reached, address: Address, way: Way, request: TunnelRequest) -> OpenTunnel:
    endpoint = address.endpoint
    laptop = "" if request.login else render_laptop_line(endpoint, request.here, address.port, way)
    return OpenTunnel(
        endpoint=endpoint,
        folder=reached.folder,
        port=address.port,
        way=way.describe(endpoint),
        lines=render_lines(address, reached.folder),
        laptop=laptop,
    )
