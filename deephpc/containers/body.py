"""Reads the body of an answer: only so much of it, and only for so long, since servers may send without end."""

import time

import httpx

from deephpc.containers.source import Interrupted
from deephpc.errors import EngineError


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
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > limit_bytes:
            raise EngineError(f"{where} answers more than {limit_bytes} bytes", "take another image or registry")
        if time.monotonic() > until:
            raise Interrupted(f"{where} is too slow: {len(content)} bytes in {deadline_s:.0f} s")
    return bytes(content)
