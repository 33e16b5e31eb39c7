"""Sends HTTP requests for the storages that speak it, and turns what goes wrong into errors without credentials.

Source: RFC 9110 for ranges and redirects.
"""

import ipaddress
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from deephpc import __version__
from deephpc.data.answer import Answer, Broken, Silent
from deephpc.data.connections import Connections, Message, Misled, Unreachable
from deephpc.data.discrepancy import same_version
from deephpc.data.header import http_time, parse_number
from deephpc.data.http_login import HttpLogin
from deephpc.data.refusal import refusal
from deephpc.data.storage import ENDLESS, ByteStream, Entry, Interrupted, Limits, changed
from deephpc.error_body import secrets_of
from deephpc.errors import DataError
from deephpc.unpacking import NotUnpackable, Truncated, coding_of, unpack

_ALWAYS = {"User-Agent": f"deephpc/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
_SECRET = frozenset({"authorization", "x-amz-security-token"})
_SAFE = frozenset({"GET", "HEAD", "PROPFIND", "OPTIONS"})
_MAX_DOCUMENT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what it is called in messages."""

    method: str
    url: str
    shown: str
    headers: Mapping[str, str]
    content: bytes | Iterator[bytes] | None = None
    follow: bool = True
    """Whether to go where a redirect points, when nothing is written."""


class Web:
    """The connections to one server.

    Parameters
    ----------
    base
        The server's address; decides about proxies.
    login
        As whom it is asked; None where requests say that themselves.
    """

    def __init__(self, base: str, login: HttpLogin | None, limits: Limits) -> None:
        self._login = login
        # no proxy between us and ourselves
        self._connections = Connections(limits.patience, trust_proxies=not is_loopback(base))

    def close(self) -> None:
        """End the connections."""
        self._connections.close()

    @contextmanager
    def send(self, request: Request, also_fine: frozenset[int] = frozenset()) -> Iterator[Answer]:
        """Send a request; the caller reads the body. A redirect to another host gets no credentials.

        Raises
        ------
        Interrupted
            The connection broke, or the server is busy.
        DataError
            The server refuses: `Missing`, `Refused`, `Unwritable`, `Changed`.
        """
        login = {} if self._login is None else self._login.headers()
        message = Message(request.method, request.url, {**_ALWAYS, **login, **request.headers}, request.content)
        try:
            with self._connections.send(message, follow=request.follow and request.method in _SAFE) as answer:
                if not answer.is_success and answer.status not in also_fine:
                    body = answer.drain()
                    if answer.status == 401 and self._login is not None and self._login.renew(login):
                        raise Interrupted(f"{request.shown}: the server refuses the old token")
                    raise refused(request, answer, body, login.values())
                yield answer
        except Truncated as error:
            raise Interrupted(f"{request.shown}: the server broke off: {error}") from error
        except NotUnpackable as error:
            raise DataError(f"{request.shown}: {error}", "ask its administrators, or take another protocol") from error
        except Silent as error:
            raise Interrupted(f"{request.shown}: the server was silent for too long") from error
        except Misled as error:
            raise DataError(f"{request.shown}: {error}", error.hint) from error
        except Unreachable as error:
            raise _unreachable(request.shown, error) from error
        except Broken as error:
            raise Interrupted(f"{request.shown}: the connection broke ({_words(error)})") from error

    def ask(self, request: Request, also_fine: frozenset[int] = frozenset()) -> tuple[Answer, bytes]:
        """Send a request and read its whole answer."""
        with self.send(request, also_fine) as answer:
            content = bytearray()
            chunks, _ = unpack(answer.chunks(), _coding_of(answer))
            for chunk in chunks:
                content += chunk
                if len(content) > _MAX_DOCUMENT_BYTES:
                    raise DataError(f"{request.shown}: an endless answer", "is this the right address?")
            return answer, bytes(content)

    @contextmanager
    def open_range(
        self, request: Request, entry: Entry, start: int, stop: int, *, as_stored: bool = False
    ) -> Iterator[ByteStream]:
        """Open bytes of a file by a GET; see `Storage.open_range`.

        Parameters
        ----------
        request
            The GET without its Range.
        as_stored
            Whether the bytes are the file's however they are labelled, as those of an object.
        """
        headers = dict(request.headers)
        whole = start == 0 and stop >= (ENDLESS if entry.size_bytes is None else entry.size_bytes)
        if not whole:
            headers["Range"] = f"bytes={start}-{'' if stop >= ENDLESS else stop - 1}"
        ranged = replace(request, headers=headers)
        with self.send(ranged, frozenset({416})) as answer:
            if answer.status == 416:
                raise changed(request.shown)
            part = _part_of(answer)
            begins = _check_answer(answer, part, entry, start, request.shown)
            ends_surely = answer.length is not None or bool(answer.chunked)
            coding = "" if as_stored or begins else _coding_of(answer)  # what begins in the middle began as it is
            chunks, is_unpacked = unpack(answer.chunks(), coding, unquote(urlsplit(request.url).path))
            told = entry_of(answer, as_stored=not is_unpacked)
            if part is not None:
                told = replace(told, size_bytes=None if is_unpacked else part.total)
            ignored = not whole and part is None
            yield ByteStream(begins, chunks, whole=ignored, told=told, ends_surely=ends_surely or is_unpacked)


def refused(request: Request, answer: Answer, body: bytes, login: Iterable[str] = ()) -> DataError:
    """Return the error for an answer that is none of success, with what the server says itself and no secret of ours.

    Parameters
    ----------
    login
        Values of the headers that a login added.
    """
    sent = (value for name, value in request.headers.items() if name.lower() in _SECRET)
    return refusal(request.method, request.shown, answer, body, secrets_of(request.url, (*login, *sent)))


def entry_of(answer: Answer, *, as_stored: bool = False) -> Entry:
    """Return what the headers of an answer tell of a file; a folder, where a server redirected a name to that.

    Parameters
    ----------
    as_stored
        Whether the length is the file's, although the answer says that it is packed.
    """
    headers = answer.headers
    modified = http_time(headers.get("last-modified", ""))
    is_packed = not as_stored and _coding_of(answer) != ""
    return Entry(
        "",
        size_bytes=None if is_packed else parse_number(headers.get("content-length", "")),
        version=version_of(headers.get("etag", ""), headers.get("last-modified", "")),
        modified_s=modified,
        is_folder=answer.was_redirected and answer.url.partition("?")[0].endswith("/"),
    )


def version_of(etag: str, last_modified: str) -> str:
    """Return what tells one content from the next, and of what kind it is; some ETags lack their quotes in listings."""
    tag = etag.strip().removeprefix("W/").strip('"')
    time = last_modified.strip()
    return f"etag:{tag}" if tag else (f"time:{time}" if time else "")


def quote_path(path: str) -> str:
    """Return a path percent-encoded for a URL; what is encoded already is not encoded twice by callers."""
    return "/".join(quote(part, safe="") for part in path.split("/"))


def clean_base(url: str) -> str:
    """Return a base URL with its path encoded, however it was written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{quote_path(unquote(parts.path)).rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Say whether a URL leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _coding_of(answer: Answer) -> str:
    return coding_of(answer.headers.get("content-encoding", ""))


@dataclass(frozen=True)
class _Part:
    """The part of a file that an answer holds, as its Content-Range tells."""

    first: int | None
    """Its first byte; None where that cannot be read."""
    total: int | None
    """The length of the whole file; None where that is not told."""


def _part_of(answer: Answer) -> _Part | None:
    """Return the part that came, None where all of the file did.

    `rclone serve s3` (1.75) answers a range with 200, and Content-Range and Content-Length of the part: those are true.
    """
    unit, _, rest = answer.headers.get("content-range", "").partition(" ")
    said, _, told = rest.partition("/")
    first, last, total = (parse_number(text) if unit == "bytes" else None for text in (*said.partition("-")[::2], told))
    if answer.status == 206:
        return _Part(first, total)
    length = parse_number(answer.headers.get("content-length", ""))
    if first is None or last is None or total is None or length != last - first + 1 or length == total:
        return None
    return _Part(first, total)


def _check_answer(answer: Answer, part: _Part | None, entry: Entry, start: int, shown: str) -> int:
    """Return where the body begins, once it is sure to be of the file that the first answer was of."""
    begins, total = 0, parse_number(answer.headers.get("content-length", ""))
    if part is not None:
        if part.first != start:
            raise Interrupted(f"{shown}: the server sent another range than was asked for")
        begins, total = start, part.total
    if total is not None and entry.size_bytes is not None and total != entry.size_bytes:
        raise changed(shown)
    seen = version_of(answer.headers.get("etag", ""), answer.headers.get("last-modified", ""))
    if not same_version(entry.version, seen):
        raise changed(shown)
    return begins


def _unreachable(shown: str, error: Unreachable) -> DataError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return DataError(
                f"{shown}: its certificate is not trusted ({cause.verify_message})",
                "set SSL_CERT_FILE to your authority's certificate",
            )
        cause = cause.__cause__ or cause.__context__
    return Interrupted(f"{shown}: cannot connect ({_words(error)})", "check the address and the network")


def _words(error: Broken) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split()) or type(cause).__name__
