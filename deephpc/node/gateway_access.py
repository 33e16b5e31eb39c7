"""Lets in whoever has the run's token, and nobody else.

Programs send `Authorization: Bearer TOKEN`. Browsers cannot: they open `/?token=TOKEN` once, as Jupyter's links do, are
sent on without it and keep a cookie. A cookie also comes with requests that other pages make, so with it alone nothing
is changed and no WebSocket opened unless the page is one of the gateway's own (Origin).
"""

import hmac
from urllib.parse import urlsplit

from aiohttp import web

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Access:
    """The token of one run."""

    def __init__(self, token: str, run_id: str) -> None:
        self._token = token.encode()
        self.cookie = f"deephpc-{run_id}"

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        """Return the answer for somebody who may not come in, or must come again; None for whoever may."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return None
        if self._is_token(request.cookies.get(self.cookie, "")):
            return None if _is_own_page(request) else _answer(403, "another site's page asks for this")
        if request.method == "GET" and self._is_token(request.rel_url.query.get("token", "")):
            return self._welcome(request)
        return _answer(401, "the token of this run is missing or wrong", {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def _welcome(self, request: web.BaseRequest) -> web.Response:
        """Send a browser on to the same page with a cookie, so that the token does not stay in its address line."""
        place = request.rel_url.with_query(
            {name: value for name, value in request.rel_url.query.items() if name != "token"}
        )
        answer = web.Response(
            status=303, headers={"Location": "/" + str(place).lstrip("/"), "Cache-Control": "no-store"}
        )
        answer.set_cookie(self.cookie, self._token.decode(), secure=True, httponly=True, samesite="Strict", path="/")
        return answer


def _is_own_page(request: web.BaseRequest) -> bool:
    origin = request.headers.get("Origin")
    is_handshake = request.headers.get("Upgrade", "").lower() == "websocket"
    if origin is None:
        return request.method in _READS and not is_handshake
    return urlsplit(origin).netloc == request.headers.get("Host", "")


def _answer(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)
