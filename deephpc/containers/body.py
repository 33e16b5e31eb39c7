"""Reads the body of an answer: only so much of it, and only for so long, since servers may send without end."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

import httpx

from deephpc.containers.source import Interrupted
from deephpc.error_body import MAX_ERROR_BYTES, ErrorBody, parse_error_body, secrets_of
from deephpc.errors import EngineError
from deephpc.unpacking import NotUnpackable, Truncated, coding_of, unpack

_ERROR_WITHIN_S = 5.0


def read_body(response: httpx.Response, limit_bytes: int, deadline_s: float) -> bytes:
    """Return the whole body of a small answer.

    Raises
    ------
    EngineError
        It is larger than the limit.
    Interrupted
        It is not here before the deadline, though the connection was never silent.
    """
    where = f"{response.url.host}{response.url.path}"
    until = time.monotonic() + deadline_s
    content = bytearray()
    with translating(where):
        for chunk in unpack(response.iter_raw(), coding_of(response.headers.get("content-encoding", "")))[0]:
            content += chunk
            if len(content) > limit_bytes:
                raise EngineError(f"{where} answers more than {limit_bytes} bytes", "take another image or registry")
            if time.monotonic() > until:
                raise Interrupted(f"{where} is too slow: {len(content)} bytes in {deadline_s:.0f} s")
    return bytes(content)


def read_error(response: httpx.Response) -> ErrorBody:
    """Return what a registry says itself with an error; nothing where it says nothing short that is soon here."""
    request, said = response.request, b""
    sent = request.headers.get_list("authorization")
    if request.method == "POST":  # for a token, with a token
        sent += parse_qs(request.content.decode()).get("refresh_token", [])
    with contextlib.suppress(EngineError, Interrupted, httpx.TransportError, httpx.StreamError):
        said = read_body(response, MAX_ERROR_BYTES, _ERROR_WITHIN_S)
    return parse_error_body(said, secrets_of(str(request.url), sent))


@contextmanager
def translating(where: str) -> Iterator[None]:
    """Say in our words that a body is packed otherwise than it says."""
    try:
        yield
    except Truncated as error:
        raise Interrupted(f"{where} broke off: {error}") from error
    except NotUnpackable as error:
        raise EngineError(f"{where}: {error}", "tell the registry's administrators: no Content-Encoding") from error
