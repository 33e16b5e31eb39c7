"""The gateway of one run while its server lives.

It binds a port, publishes it, waits until the server is ready, passes requests on to it, and ends with it.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio import sslproto
from datetime import datetime, timezone
from pathlib import Path

import aiohttp
from aiohttp import web

from deephpc.node.gateway_access import Access
from deephpc.node.gateway_certificate import Certificate, make_certificate, server_context
from deephpc.node.gateway_own_way import NO_TIMEOUT, open_own_way
from deephpc.node.gateway_port import bind_port, listening_ports
from deephpc.node.gateway_proxy import BUFFER_BYTES, LONGEST_LINE, Proxy, Upstream
from deephpc.node.gateway_server import ServerProgram
from deephpc.node.gateway_standing import EventLog, Standing, Traffic
from deephpc.node.processes import descendants
from deephpc.node.readiness import Readiness, Ways
from deephpc.serve.endpoint import Endpoint, prepare_token, publish, withdraw
from deephpc.serve.service import Service, load_service

_HANDSHAKE_S = 60.0  # a thousand at once, on a node with other work, take their time
_QUIET_S = 75.0
"""How long a connection may stay without a request; one without a first request, too."""
_MOST_CONNECTIONS = 4096
_LOOK_S = 0.2
_DYING_S = 5.0
_TLS_BUFFER_BYTES = 1 << 16
_REASON = ".reason"


class Gateway:
    """The gateway of one run."""

    def __init__(self, options: argparse.Namespace, service: Service, program: ServerProgram, trouble: str) -> None:
        self._options = options
        self._service = service
        self._program = program
        self._trouble = trouble
        self._run_folder: Path = options.run_folder
        events = EventLog(self._run_folder / "events.jsonl", options.job_id, options.host, options.attempt)
        self._standing = Standing(events, options.ends_at)
        self._traffic = Traffic()
        self._upstream = Upstream(options.socket, options.port)

    async def run(self) -> int:
        """Serve until the end and return the exit code."""
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        if self._options.told:  # while modules were loaded
            told.set()
        certificate = make_certificate(self._run_folder.name, self._options.host)
        token = prepare_token(self._run_folder)
        access = Access(token, self._run_folder.name)
        proxy = Proxy(self._upstream, access, self._standing, self._traffic, self._service.largest_upload_bytes)
        listening = await listen(proxy, certificate, self._options.address)
        endpoint = self._endpoint(certificate, listening.port)
        own_way = open_own_way(certificate, token, proxy.early_key, self._options.address, listening.port)
        try:
            publish(self._run_folder, endpoint)
            self._standing.enter("listening", port=listening.port)
            try:
                return await self._serve(told, own_way)
            finally:
                withdraw(self._run_folder, endpoint)
                await listening.close(self._traffic, self._options.grace)
                await asyncio.to_thread(self._program.end, self._options.grace)
        finally:
            withdraw(self._run_folder, endpoint)
            await own_way.close()
            await proxy.close()

    async def _serve(self, told: asyncio.Event, own_way: aiohttp.ClientSession) -> int:
        """Look after everything until there is a reason to end."""
        program = self._program
        if self._trouble:
            return self._fail(self._trouble, program)
        getting_ready = asyncio.ensure_future(self._get_ready(own_way))
        try:
            while not told.is_set():
                self._traffic.cut_slow(self._options.patience)
                if program.exit_code() is not None:
                    return self._fail(program.ending(), program)
                if getting_ready.done() and getting_ready.result():
                    is_dead = await _has_ended(program)  # which tells more than that it does not answer
                    return self._fail(program.ending() if is_dead else getting_ready.result(), program)
                if self._is_idle():
                    return self._stop(f"nobody used it for {self._service.idle_stop_s:g} s")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(told.wait(), _LOOK_S)
        finally:
            getting_ready.cancel()
        return self._stop("told to end")

    async def _get_ready(self, own_way: aiohttp.ClientSession) -> str:
        """Return nothing once the server is ready, or why it never will be."""
        connector = self._upstream.connector(4)
        async with aiohttp.ClientSession(connector=connector, timeout=NO_TIMEOUT) as session:
            ways = Ways(session, self._upstream.url, self._upstream.owner, self._elsewhere, own_way)
            trouble = await Readiness(self._service, self._run_folder, ways, self._standing).reach()
        self._traffic.touch()  # idleness begins now
        return trouble

    def _elsewhere(self) -> tuple[int, ...]:
        """Return the ports on which the program listens, but for its own."""
        found = listening_ports(descendants(os.getpid()))
        return tuple(port for port in found if port != self._upstream.port)

    def _is_idle(self) -> bool:
        limit = self._service.idle_stop_s
        return limit is not None and self._standing.stage == "ready" and self._traffic.idle_s() > limit

    def _stop(self, reason: str) -> int:
        self._standing.enter("stopping", reason)
        self._leave_reason(reason)
        return 0

    def _fail(self, reason: str, program: ServerProgram) -> int:
        lines = program.last_lines()
        self._standing.enter("failed", reason, last_lines=lines)
        self._leave_reason(reason)
        print(f"deephpc: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
        return 1

    def _leave_reason(self, reason: str) -> None:
        """Tell the job script, which writes the run's result; a full disk has been told of by the event."""
        with contextlib.suppress(OSError):
            (self._run_folder / _REASON).write_text(" ".join(reason.split()))

    def _endpoint(self, certificate: Certificate, port: int) -> Endpoint:
        ends_at = self._options.ends_at
        return Endpoint(
            run_id=self._run_folder.name,
            attempt=self._options.attempt,
            kind=self._service.kind,
            host=self._options.host,
            port=port,
            certificate=certificate.pem,
            public_key_pin=certificate.public_key_pin,
            model=self._service.model,
            started_at=datetime.now(timezone.utc),
            ends_at=None if ends_at is None else datetime.fromtimestamp(ends_at, timezone.utc),
        )


class Listening:
    """The open port."""

    def __init__(self, web_server: web.Server, server: asyncio.Server, port: int) -> None:
        self.port = port
        self._web_server = web_server
        self._server = server

    async def close(self, traffic: Traffic, grace_s: float) -> None:
        """Take no more connections, let what is on its way arrive, then close them all."""
        self._server.close()
        await traffic.drain(grace_s)
        await self._web_server.shutdown(1.0)


async def _has_ended(program: ServerProgram) -> bool:
    """Whether a program that seems to fail has ended; its engine may take a moment longer than itself."""
    deadline = time.monotonic() + _DYING_S
    while program.exit_code() is None and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return program.exit_code() is not None


class _NoRoom(asyncio.Protocol):
    """A connection too many: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()


async def listen(proxy: Proxy, certificate: Certificate, address: str) -> Listening:
    """Bind a port and accept connections on it.

    Raises
    ------
    SiteError
        No port is free.
    """
    web_server = web.Server(
        proxy.handle,
        handler_cancellation=True,  # a client that went away is waited for no longer
        keepalive_timeout=_QUIET_S,
        auto_decompress=False,
        read_bufsize=BUFFER_BYTES,
        access_log=None,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )

    def accept() -> asyncio.Protocol:
        return _NoRoom() if len(web_server.connections) >= _MOST_CONNECTIONS else web_server()

    bound = bind_port(address)
    server = await asyncio.get_running_loop().create_server(
        accept,
        sock=bound,
        ssl=server_context(certificate),
        ssl_handshake_timeout=_HANDSHAKE_S,
        backlog=1024,
    )
    return Listening(web_server, server, bound.getsockname()[1])


def stand_before(program: ServerProgram, options: argparse.Namespace, trouble: str) -> int:
    """Look after a server from its start to its end; return the exit code.

    Parameters
    ----------
    trouble
        Why the program could not be started; empty when it was.

    Raises
    ------
    DeephpcError
        It cannot be stood before.
    """
    _make_connections_small()
    return asyncio.run(Gateway(options, load_service(options.run_folder), program, trouble).run())


def _make_connections_small() -> None:
    """Have each TLS connection hold 64 KiB for what it reads, not 256: a thousand of them fit into any job's memory."""
    sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES  # type: ignore[attr-defined]  # typeshed does not know it
