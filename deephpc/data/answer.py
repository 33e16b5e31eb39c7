"""What an HTTP server answers; its body is read by few calls of the system into one buffer."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_BUFFER_BYTES = 1 << 17  # all threads' fit the processor's cache, between socket and disk: half the system time
_DRAINED_WITHIN_S = 5.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Broken(Exception):  # noqa: N818 - says what happened
    """A connection broke; the cause says how."""


class Silent(Broken):
    """The other side said nothing for too long."""


class Answer(http.client.HTTPResponse):
    """An answer, whose body is read once, by `chunks` or `drain`."""

    url = ""
    """Where it came from in the end."""
    was_redirected = False

    @property
    def is_success(self) -> bool:
        """Say whether the status is one of success."""
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        """Say whether it points elsewhere."""
        return self.status in _REDIRECTS and "location" in self.headers

    def begin(self) -> None:
        """Read the head; what comes before a final one (RFC 9110, 15.2) is passed over, not only 100."""
        super().begin()
        while 100 < self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()

    def chunks(self) -> Iterator[memoryview]:
        """Return the body piece by piece; a piece is good until the next one is asked for.

        Raises
        ------
        Broken
            The body ends too early, or says nothing for too long.
        """
        size = _BUFFER_BYTES if self.length is None else min(self.length, _BUFFER_BYTES)
        buffer = memoryview(bytearray(size))
        while True:
            with translated():
                count = self.readinto1(buffer)
            if not count:
                return
            yield buffer[:count]

    def drain(self) -> bytes:
        """Read a short body that is not what was asked for, so that the connection can be used again, and return it.

        Of a longer one its beginning is returned.
        """
        content, until = bytearray(), time.monotonic() + _DRAINED_WITHIN_S
        with suppress(Broken):
            for chunk in self.chunks():
                content += chunk
                if len(content) >= _BUFFER_BYTES or time.monotonic() > until:
                    break
        return bytes(content)

    def readinto1(self, buffer: Any) -> int:  # noqa: ANN401 - as the standard library has it
        """Read with at most one call of the system; the standard library's would make new bytes and copy them."""
        if self.isclosed():
            return 0
        if self.chunked:
            return super().readinto1(buffer)
        view = memoryview(buffer)[: self.length]
        count = self.fp.readinto1(view)
        if self.length is not None:
            if view.nbytes and not count:
                raise http.client.IncompleteRead(b"", self.length)
            self.length -= count
        if not count or self.length == 0:
            self.close()
        return count


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the standard library raises into `Broken`."""
    try:
        yield
    except TimeoutError as error:
        raise Silent from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken from error
