"""Decides which headers pass the gateway, in both directions (pure).

Source: RFC 9110, 7.6.1: what concerns one connection only ends there.
"""

from collections.abc import Collection

from multidict import CIMultiDict, CIMultiDictProxy

_OF_ONE_CONNECTION = frozenset(
    {
        "connection",
        "expect",  # answered by the gateway itself
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-deephpc-early",  # the gateway's word to itself
    }
)
_OF_THE_HANDSHAKE = "sec-websocket-"


def headers_upstream(
    headers: CIMultiDictProxy[str], client: str, cookie: str, *, handshake: bool = False
) -> CIMultiDict[str]:
    """Return the headers for the server, without the token, which is none of its business.

    Parameters
    ----------
    cookie
        Name of the gateway's own cookie.
    handshake
        Whether a WebSocket is opened: its own headers are made anew.
    """
    kept = _without_hops(headers)
    if headers.get("Authorization", "").lower().startswith("bearer "):
        kept.popall("Authorization", None)
    cookies = [one.strip() for line in kept.popall("Cookie", []) for one in line.split(";")]
    others = [one for one in cookies if one.partition("=")[0] != cookie]
    if others:
        kept["Cookie"] = "; ".join(others)
    if handshake:
        for name in [name for name in kept if name.lower().startswith(_OF_THE_HANDSHAKE)]:
            kept.popall(name, None)
    kept["X-Forwarded-For"] = client
    kept["X-Forwarded-Proto"] = "https"
    kept["X-Forwarded-Host"] = headers.get("Host", "")
    return kept


def headers_downstream(headers: CIMultiDictProxy[str], own: Collection[str] = ()) -> CIMultiDict[str]:
    """Return the headers for the client.

    Parameters
    ----------
    own
        The server's names for itself: it redirects to http:// and one of them, where nobody else reaches it.
    """
    kept = _without_hops(headers)
    for name in {"Location", "Content-Location"} & set(kept):
        for prefix in (f"http://{authority}" for authority in own):
            rest = kept[name].removeprefix(prefix)
            if rest != kept[name] and rest[:1] in ("", "/", "?", "#"):
                kept[name] = rest or "/"
    return kept


def _without_hops(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for line in headers.getall("Connection", []) for name in line.split(",")}
    dropped = _OF_ONE_CONNECTION | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
