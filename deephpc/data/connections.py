"""Sends HTTP/1.1 over connections that are kept, through proxies and by way of redirects; bodies come into one buffer.

The standard library's client speaks it: gigabytes cost it a tenth of what they cost a client made of layers, and it is
loaded in a fifth of the time. Source: RFC 9110 and 9112; for proxies, the environment as urllib.request reads it.
"""

import http.client
import select
import ssl
import threading
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from string import punctuation
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from deephpc.data.answer import Answer, Broken, Silent, translated
from deephpc.retries import Patience

_KEPT_S = 5.0  # firewalls and servers forget idle connections, some without a word
_MAX_REDIRECTS = 20
_FOR_ANYBODY = frozenset({"user-agent", "accept", "accept-encoding", "content-type", "depth", "range", "if-range"})


class Unreachable(Broken):
    """There is no connection to the host."""


class Misled(Exception):  # noqa: N818 - says what happened
    """A redirect or a proxy leads nowhere.

    Parameters
    ----------
    why
        In words.
    hint
        What to do.
    """

    def __init__(self, why: str, hint: str = "ask its owner") -> None:
        super().__init__(why)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | Iterable[bytes] | None = None


class _Line(http.client.HTTPConnection):
    """A connection; `stall_s` bounds each piece that is sent, not all of them."""

    response_class = Answer
    is_spent = False
    idle_since = 0.0

    def send(self, data: Any) -> None:  # noqa: ANN401 - as the standard library has it
        """Send bytes."""
        view = memoryview(data)
        with translated():
            while view:
                view = view[self.sock.send(view) :]


class _SealedLine(_Line, http.client.HTTPSConnection):
    """A connection over TLS."""


@dataclass
class Connections:
    """Connections to whatever hosts, each used by one thread at a time.

    Parameters
    ----------
    trust_proxies
        Whether the environment's proxies are used.
    """

    patience: Patience
    trust_proxies: bool
    _idle: dict[tuple[str, str], list[_Line]] = field(default_factory=lambda: defaultdict(list))
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """End those that nobody uses."""
        with self._turn:
            for lines in self._idle.values():
                while lines:
                    lines.pop().close()

    @contextmanager
    def send(self, message: Message, *, follow: bool) -> Iterator[Answer]:
        """Send a message and return its answer, the body still to be read.

        Another host that a redirect leads to gets no header by which the user might be known.

        Parameters
        ----------
        follow
            Whether to go where redirects point.

        Raises
        ------
        Broken
            There is no connection, or it broke.
        Misled
            A redirect or a proxy leads nowhere.
        """
        for count in range(_MAX_REDIRECTS + 1):
            line, answer = self._exchange(message)
            answer.url, answer.was_redirected = message.url, count > 0
            try:
                if not (follow and answer.is_redirect):
                    yield answer
                    return
                answer.drain()
            finally:
                self._release(line, answer, message.url)
            message = _redirected(message, answer)
        raise Misled("redirected in a circle")

    def _exchange(self, message: Message) -> tuple[_Line, Answer]:
        parts = urlsplit(message.url)
        line = self._take(parts)
        headers = dict(message.headers)
        try:
            proxy = self._proxy(parts)
            is_relayed = proxy is not None and parts.scheme == "http"
            if proxy and is_relayed:
                headers |= _proxy_authorization(proxy)
            try:
                line.request(message.method, _target(parts, is_relayed), message.content, headers)
            except Silent:
                raise
            except Broken:  # a server may have answered before it had all, and closed
                line.is_spent = True
            except ValueError:  # which would tell the header's value
                raise Misled("a header would hold what none may", "check user, password and token") from None
            with translated():
                answer = line.getresponse()
        except BaseException:
            line.close()
            raise
        assert isinstance(answer, Answer)  # noqa: S101 - tells mypy what response_class says
        return line, answer

    def _take(self, parts: SplitResult) -> _Line:
        while True:
            with self._turn:
                waiting = self._idle[parts.scheme, parts.netloc]
                line = waiting.pop() if waiting else None
            if line is None:
                return self._open(parts)
            if time.monotonic() - line.idle_since < _KEPT_S and not _is_readable(line):
                return line
            line.close()

    def _release(self, line: _Line, answer: Answer, url: str) -> None:
        if answer.length == 0:
            answer.close()
        if line.is_spent or line.sock is None or not answer.isclosed():
            answer.close()
            line.close()
            return
        parts = urlsplit(url)
        line.idle_since = time.monotonic()
        with self._turn:
            self._idle[parts.scheme, parts.netloc].append(line)

    def _open(self, parts: SplitResult) -> _Line:
        proxy = self._proxy(parts)
        to = proxy or parts
        try:
            line = self._line(parts.scheme == "https", to)
            if proxy and parts.scheme == "https":
                line.set_tunnel(parts.hostname or "", parts.port, _proxy_authorization(proxy))
            line.connect()
        except TimeoutError as error:
            raise Silent from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last for a host no resolver takes
            raise Unreachable from error
        line.sock.settimeout(self.patience.stall_s)
        return line

    def _line(self, is_sealed: bool, to: SplitResult) -> _Line:
        host = to.hostname or ""
        if is_sealed:
            return _SealedLine(host, _port(to), timeout=self.patience.connect_s, context=self._context)
        return _Line(host, _port(to), timeout=self.patience.connect_s)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @cached_property
    def _proxies(self) -> dict[str, str]:
        return getproxies() if self.trust_proxies else {}

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        """Return the proxy on the way to a URL."""
        named = self._proxies.get(parts.scheme) or self._proxies.get("all")
        if not named or proxy_bypass(parts.hostname or ""):
            return None
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        if proxy.scheme != "http":
            raise Misled(f"its proxy is one of {proxy.scheme}://", f"name one of http:// in {parts.scheme}_proxy")
        return proxy


def _redirected(message: Message, answer: Answer) -> Message:
    """Return the message to send to where a redirect points."""
    try:
        location = quote(answer.headers["location"].encode("latin-1"), safe=punctuation)
        url = urljoin(message.url, location).partition("#")[0]
        after = urlsplit(url)
        is_ours = _may_know(urlsplit(message.url), after)
    except ValueError as error:
        raise Misled("redirected to what is no address") from error
    if after.scheme not in ("http", "https") or not after.hostname:
        raise Misled("redirected to a protocol other than HTTP")
    headers = {
        name: value
        for name, value in message.headers.items()
        if name.lower() in _FOR_ANYBODY or (is_ours and name.lower() != "host")
    }
    method = "GET" if answer.status == 303 and message.method != "HEAD" else message.method
    return Message(method, url, headers, message.content if method == message.method else None)


def _may_know(before: SplitResult, after: SplitResult) -> bool:
    """Say whether credentials go on to where a redirect leads: the same server, or its own TLS."""
    ports = (_port(before), _port(after))
    if before.hostname != after.hostname:
        return False
    return (before.scheme == after.scheme and ports[0] == ports[1]) or (after.scheme == "https" and ports == (80, 443))


def _target(parts: SplitResult, is_relayed: bool) -> str:
    """Return what a request asks for: a path, of a proxy the whole URL; a query a user wrote may need encoding."""
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if is_relayed else ""
    query = f"?{parts.query}" if parts.query else ""
    return quote(f"{host}{parts.path or '/'}{query}", safe=punctuation)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def _is_readable(line: _Line) -> bool:
    """Say whether an idle connection has something to say: that it is over, as a rule."""
    poll = select.poll()
    poll.register(line.sock, select.POLLIN)
    return bool(poll.poll(0))
