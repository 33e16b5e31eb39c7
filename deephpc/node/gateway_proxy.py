"""Passes requests on to the server of the job and its answers back, both as streams; memory does not grow with them."""

import asyncio
import contextlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from deephpc.node.gateway_access import Access
from deephpc.node.gateway_headers import headers_downstream, headers_upstream
from deephpc.node.gateway_port import listening_user
from deephpc.node.gateway_standing import Standing, Traffic, Transfer
from deephpc.node.gateway_websocket import is_handshake, relay_websocket

TIME_LEFT = "X-Deephpc-Time-Left"
EARLY = "X-Deephpc-Early"
BUFFER_BYTES = 1 << 18
"""How much of one stream is held at a time."""
LONGEST_LINE = 1 << 16
"""Bytes of an address, and of a header, in both directions; aiohttp's own 8190 are less than browsers' cookies."""
_CONNECTIONS_UPSTREAM = 100
_KEPT_ALIVE_S = 15.0  # shorter than servers keep theirs, so that none is used while it is being closed
_SOCKET_PATH_BYTES = 100


@dataclass(frozen=True)
class Upstream:
    """The server of the job: a UNIX socket, or a port of loopback."""

    socket: Path | None = None
    port: int | None = None

    def connector(self, limit: int) -> aiohttp.BaseConnector:
        """Return what opens connections to it."""
        connector: aiohttp.BaseConnector
        if self.socket is not None:
            connector = aiohttp.UnixConnector(path=_short(self.socket), limit=limit, keepalive_timeout=_KEPT_ALIVE_S)
        else:
            connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEPT_ALIVE_S)
        connector._factory = partial(_ReadToItsEnd, loop=asyncio.get_running_loop())  # type: ignore[assignment]
        return connector

    def owner(self) -> int | None:
        """Return the user who listens there, as far as the kernel tells; a socket lies in a folder of ours."""
        return os.geteuid() if self.port is None else listening_user(self.port)

    @property
    def authority(self) -> str:
        """Return what stands for it in an address."""
        return "server" if self.port is None else f"127.0.0.1:{self.port}"

    def url(self, request: URL) -> URL:
        """Return the address there of what is asked for here."""
        path, query = request.raw_path, request.raw_query_string
        return URL.build(scheme="http", authority=self.authority, path=path or "/", query_string=query, encoded=True)


@dataclass
class _Upload:
    """The body of a request on its way up."""

    content: aiohttp.StreamReader
    transfer: Transfer
    largest_bytes: int
    refusal: tuple[int, str] | None = field(default=None)
    """Why it was ended: status and reason."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it as it comes.

        Raises
        ------
        aiohttp.ClientPayloadError
            It is too large, or its sender too slow.
        """
        passed = 0
        while True:
            with self.transfer.waits():
                chunk = await self.content.readany()
            if not chunk:
                return
            passed += len(chunk)
            if passed > self.largest_bytes:
                self.refusal = (413, f"the upload is larger than {self.largest_bytes} bytes")
                raise aiohttp.ClientPayloadError(self.refusal[1])
            yield chunk

    def cut(self) -> None:
        """End it, for its sender is too slow."""
        self.refusal = (408, "the upload stalled")
        self.content.set_exception(aiohttp.ClientPayloadError(self.refusal[1]))


class _ReadToItsEnd(ResponseHandler):
    """A connection to the server; what the server had said is read also when a write finds it closed.

    A server that refuses an upload early answers and closes at once.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note the end, after what came before it; the socket is still open here."""
        self._read_on()
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Note that the upload failed, after what came before that."""
        self._read_on()
        super().set_exception(exc, *cause)

    def _read_on(self) -> None:
        transport = self.transport
        if transport is None or not transport.is_closing():
            return
        descriptor = transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):  # nothing more is there, which is as good as an end
            while descriptor >= 0 and (content := os.read(descriptor, BUFFER_BYTES)):
                self.data_received(content)


class Proxy:
    """The gateway's answers: its own, or those of the server behind it."""

    def __init__(
        self, upstream: Upstream, access: Access, standing: Standing, traffic: Traffic, largest_bytes: int
    ) -> None:
        self._upstream = upstream
        self._access = access
        self._standing = standing
        self._traffic = traffic
        self._largest_bytes = largest_bytes
        self.early_key = secrets.token_hex(16)
        """Lets one in before the server is ready: the gateway's own first prediction."""
        self._sessions = tuple(_open_session(upstream.connector(limit)) for limit in (_CONNECTIONS_UPSTREAM, 0))

    async def close(self) -> None:
        """Close the connections to the server."""
        for session in self._sessions:
            await session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        answer = self._access.refuse(request) or self._own_answer(request)
        if answer is not None:
            return self._signed(answer)
        self._traffic.touch()
        if is_handshake(request):
            return await self._open_websocket(request)
        return await self._pass_on(request)

    def _own_answer(self, request: web.BaseRequest) -> web.Response | None:
        """Return what the gateway says itself: how it stands, or why it passes nothing on."""
        standing = self._standing
        about: dict[str, object] = {"stage": standing.stage, "time_left_s": standing.time_left_s()}
        if standing.reason:
            about["reason"] = standing.reason
        is_ready = standing.stage == "ready"
        given = request.headers.get(EARLY, "").encode("utf-8", "surrogateescape")
        is_early = hmac.compare_digest(given, self.early_key.encode())
        if request.path == "/health":
            return web.json_response(about)
        if request.path == "/ready" and is_ready:
            return web.json_response(about)
        if not is_ready and not is_early:
            return _not_ready(standing, about)
        if request.method == "CONNECT":
            return web.json_response({"error": "CONNECT is not for gateways"}, status=405)
        if (request.content_length or 0) > self._largest_bytes:
            return web.json_response({"error": f"the upload is larger than {self._largest_bytes} bytes"}, status=413)
        return None

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        with self._traffic.transfer(lambda: None) as transfer:
            upload = _Upload(request.content, transfer, self._largest_bytes)
            transfer.cut = upload.cut
            try:
                answering = self._sessions[0].request(
                    request.method,
                    self._upstream.url(request.rel_url),
                    headers=self._headers(request),
                    data=upload.chunks() if request.body_exists else None,
                    allow_redirects=False,
                )
                async with answering as answer:
                    return await self._send_back(request, answer, transfer)
            except aiohttp.ClientError as error:
                status, reason = upload.refusal or (502, f"the server does not answer: {_told(error)}")
                return self._signed(web.json_response({"error": reason}, status=status))

    async def _send_back(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, transfer: Transfer
    ) -> web.StreamResponse:
        """Stream an answer; one that breaks off upstream breaks off here, so that nobody takes it for whole."""
        own = (self._upstream.authority, request.headers.get("Host", ""))
        headers = headers_downstream(answer.headers, own)
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        self._signed(response)
        transport = request.transport
        if transport is not None:
            transfer.cut = transport.abort
        await response.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                with transfer.waits():
                    await response.write(chunk)
        except aiohttp.ClientError:
            if transport is not None:
                transport.abort()
            return response
        with transfer.waits():
            await response.write_eof()
        return response

    async def _open_websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        session, url = self._sessions[1], self._upstream.url(request.rel_url)
        try:
            return await relay_websocket(request, session, url, self._headers(request, handshake=True), self._traffic)
        except aiohttp.WSServerHandshakeError as error:
            reason = f"the server refuses the WebSocket: {error.message}"
            return self._signed(
                web.json_response({"error": reason}, status=error.status if error.status >= 400 else 502)
            )
        except aiohttp.ClientError as error:
            reason = f"the server does not answer: {_told(error)}"
            return self._signed(web.json_response({"error": reason}, status=502))

    def _headers(self, request: web.BaseRequest, *, handshake: bool = False) -> CIMultiDict[str]:
        return headers_upstream(request.headers, request.remote or "", self._access.cookie, handshake=handshake)

    def _signed(self, answer: web.StreamResponse) -> web.StreamResponse:
        left = self._standing.time_left_s()
        if left is not None:
            answer.headers[TIME_LEFT] = str(left)
        return answer


def _not_ready(standing: Standing, about: dict[str, object]) -> web.Response:
    """Return the answer of a server that is not ready yet (503, come again), or never will be (502)."""
    if standing.stage in ("failed", "stopping"):
        return web.json_response({"error": f"the server has ended: {standing.reason}", **about}, status=502)
    error = f"the server is not ready yet: {standing.stage}"
    return web.json_response({"error": error, **about}, status=503, headers={"Retry-After": "1"})


def _open_session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """Return a session that adds nothing of its own to what it passes on."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        read_bufsize=BUFFER_BYTES,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _short(path: Path) -> str:
    """Return a path short enough for a socket's address (unix(7)), a long one by way of its open folder."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)  # stays open as long as the gateway lives
    return f"/proc/self/fd/{folder}/{path.name}"
