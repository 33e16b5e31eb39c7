"""Passes the messages of a WebSocket through the gateway, both ways, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from deephpc.node.gateway_standing import Traffic

_LARGEST_MESSAGE_BYTES = 64 << 20
_HEARTBEAT_S = 30.0
_Socket: TypeAlias = "web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool]"


def is_handshake(request: web.BaseRequest) -> bool:
    """Whether a request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket" and request.method == "GET"


async def relay_websocket(
    request: web.BaseRequest, session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str], traffic: Traffic
) -> web.WebSocketResponse:
    """Open the WebSocket at the server, then here, and pass messages on until one side closes it.

    Raises
    ------
    aiohttp.ClientError
        The server does not open it.
    """
    offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if word.strip()]
    opening = session.ws_connect(
        url, headers=headers, protocols=offered, max_msg_size=_LARGEST_MESSAGE_BYTES, heartbeat=_HEARTBEAT_S
    )
    async with opening as theirs:
        chosen = [theirs.protocol] if theirs.protocol else []
        ours = web.WebSocketResponse(
            protocols=chosen, max_msg_size=_LARGEST_MESSAGE_BYTES, heartbeat=_HEARTBEAT_S, compress=False
        )
        await ours.prepare(request)
        with traffic.websocket(ours):
            directions = [
                asyncio.ensure_future(_pass_on(ours, theirs, traffic.touch)),
                asyncio.ensure_future(_pass_on(theirs, ours, traffic.touch)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
                await _close(theirs, ours)
                await _close(ours, theirs)
        return ours


async def _pass_on(source: _Socket, target: _Socket, touch: Callable[[], None]) -> None:
    """Pass messages on; a slow receiver slows the sender down."""
    async for message in source:
        touch()
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)


async def _close(one: _Socket, other: _Socket) -> None:
    """Close one side with the code the other side gave, where it gave one that may be sent (RFC 6455, 7.4)."""
    code = other.close_code
    closing: Awaitable[object]
    if code is None or code in (1005, 1006, 1015):
        closing = one.close()
    else:
        closing = one.close(code=code)
    await closing
