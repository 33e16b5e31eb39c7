"""One file over HTTP: asked for conditionally, with a deadline for the whole answer and a bound on its size."""

import random
import time
from dataclasses import dataclass

import httpx

from deephpc.catalogue.document import MAX_BYTES, UnreadableError, decode
from deephpc.errors import DataError

_LONGEST_PAUSE_S = 5.0
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


class UnreachableError(DataError):
    """A file could not be had; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What a server said: a new text, the same as before, or that there is no such file."""

    text: str | None = None
    """None when the file is as before, or missing."""
    etag: str = ""
    last_modified: str = ""
    is_missing: bool = False


@dataclass(frozen=True)
class Web:
    """Fetches small text files; usable from many threads at once."""

    client: httpx.Client
    deadline_s: float
    """For one file, however slowly it trickles in."""

    def fetch(self, url: str, etag: str = "", last_modified: str = "") -> Answer:
        """Get a file unless it is still the one with these validators (RFC 9110, section 13).

        Raises
        ------
        UnreachableError
            No answer in time, an error of the server, or no text.
        """
        end = time.monotonic() + self.deadline_s
        headers = {"If-None-Match": etag} if etag else {"If-Modified-Since": last_modified} if last_modified else {}
        for last_try in (False, True):
            try:
                return self._fetch_once(url, headers, end)
            except _Again as error:
                pause = error.pause_s if error.pause_s is not None else random.uniform(0.1, 0.5)  # noqa: S311 - jitter
                if last_try or time.monotonic() + pause >= end:
                    raise UnreachableError(f"{url}: {error}", "try again later") from error
                time.sleep(pause)
        raise AssertionError("the last try answers or raises")

    def _fetch_once(self, url: str, headers: dict[str, str], end: float) -> Answer:
        left = max(0.1, end - time.monotonic())
        try:
            with self.client.stream("GET", url, headers=headers, timeout=left) as response:
                return self._read(url, response, end)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise UnreachableError(f"{url}: {error}", "check the address") from error
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{url}: no answer within {self.deadline_s:g} s", "try again later") from error
        except httpx.HTTPError as error:
            raise _Again(str(error) or type(error).__name__) from error

    def _read(self, url: str, response: httpx.Response, end: float) -> Answer:
        status = response.status_code
        if status == httpx.codes.NOT_MODIFIED:
            return Answer()
        if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return Answer(is_missing=True)
        if status in _TRANSIENT:
            raise _Again(f"HTTP {status}", _retry_after(response))
        if status != httpx.codes.OK:
            raise UnreachableError(f"{url}: HTTP {status}", "check the address")
        raw = bytearray()
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > MAX_BYTES:
                raise UnreachableError(f"{url}: larger than {MAX_BYTES} bytes", "metadata is small: check the address")
            if time.monotonic() > end:
                raise UnreachableError(f"{url}: not complete within {self.deadline_s:g} s", "try again later")
        try:
            text = decode(bytes(raw))
        except UnreadableError as error:
            raise UnreachableError(f"{url}: {error.reason}", "check the address") from error
        return Answer(text, response.headers.get("etag", ""), response.headers.get("last-modified", ""))


def open_web(deadline_s: float, connections: int) -> httpx.Client:
    """Open the connections of one update; use it in `with`. Proxies are taken from the usual variables."""
    return httpx.Client(
        follow_redirects=True,
        max_redirects=5,
        timeout=deadline_s,
        limits=httpx.Limits(max_connections=connections),
        headers={"User-Agent": "deephpc"},
    )


class _Again(Exception):  # noqa: N818 - a moment's trouble, never seen outside
    """The same request may work in a moment."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds a server asks us to wait; None when it does not say, or says a date."""
    text = response.headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isascii() and text.isdecimal() else None
