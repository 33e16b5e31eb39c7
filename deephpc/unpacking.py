"""Bodies that servers pack although they were asked not to (RFC 9110, 8.4: Content-Encoding): unpacked, or refused.

Some label what is no packing of theirs: files that are packed themselves, as `a.csv.gz` (Apache's `AddEncoding`), even
plain ones. Therefore the bytes decide, together with the name.
"""

import itertools
import zlib
from collections.abc import Iterator

Piece = bytes | memoryview

_LOOK_BYTES = 4096
_OUT_BYTES = 1 << 17
_GZIP = b"\x1f\x8b"
#: Those of IANA's registry; other words (`utf-8`, `aws-chunked`, `none`) say nothing of the bytes, and are met.
_WORDS = {"x-gzip": "gzip", "x-compress": "compress"} | {
    each: each for each in ("gzip", "deflate", "br", "zstd", "compress", "dcb", "dcz", "exi", "pack200-gzip")
}
#: How files are named that are packed so themselves.
_NAMES = {
    "gzip": (".gz", ".gzip", ".tgz", ".taz", ".svgz", ".bgz"),
    "br": (".br",),
    "zstd": (".zst", ".tzst"),
    "compress": (".z",),
}


class NotUnpackable(Exception):  # noqa: N818 - says what happened
    """A body is packed in a way we do not know, or is not packed as it says."""


class Truncated(NotUnpackable):
    """A body ends in the middle of what is packed."""


def coding_of(header: str) -> str:
    """Return how a Content-Encoding says that a body is packed; empty for not at all."""
    words = [each.strip().lower() for each in header.split(",")]
    return ", ".join(filter(None, map(_WORDS.get, words)))


def unpack(chunks: Iterator[Piece], coding: str, name: str = "") -> tuple[Iterator[Piece], bool]:
    """Return a body as the file it is of, and whether it had to be unpacked for that.

    Parameters
    ----------
    coding
        As `coding_of` returns it.
    name
        The file's: what is called `.gz` ends as gzip data, and is unpacked only where that is packed once more.

    Raises
    ------
    NotUnpackable
        At once or while it is read.
    """
    begin = b""
    while coding and len(begin) < _LOOK_BYTES:
        piece = next(chunks, None)
        if piece is None:
            break
        begin += bytes(piece)
    body: Iterator[Piece] = itertools.chain([begin], chunks) if begin else chunks
    if not begin or _is_named_so(name, coding, begin) or (coding == "gzip" and not begin.startswith(_GZIP)):
        return body, False
    if coding not in ("gzip", "deflate"):
        raise NotUnpackable(f"it comes packed with {coding}, though it was asked for as it is")
    return _unpacked(body, _window(coding, begin)), True


def _is_named_so(name: str, coding: str, begin: bytes) -> bool:
    if not name.lower().endswith(_NAMES.get(coding, ("/",))):
        return False
    return coding != "gzip" or not zlib.decompressobj(31).decompress(begin, 2).startswith(_GZIP)


def _window(coding: str, begin: bytes) -> int:
    """Return zlib's word for it; `deflate` means zlib's format, and to some servers none (RFC 9110, 8.4.1.2)."""
    if coding == "gzip":
        return 31
    is_zlib = len(begin) > 1 and begin[0] & 15 == 8 and int.from_bytes(begin[:2], "big") % 31 == 0
    return 15 if is_zlib else -15


def _unpacked(chunks: Iterator[Piece], window: int) -> Iterator[Piece]:
    """Unpack piece by piece, however much one of them holds; gzip may have several members (RFC 1952, 2.2)."""
    unpacker = zlib.decompressobj(window)
    for chunk in chunks:
        left: Piece = chunk
        while left:
            if unpacker.eof:
                unpacker = zlib.decompressobj(window)
            try:
                piece = unpacker.decompress(left, _OUT_BYTES)
            except zlib.error as error:
                raise NotUnpackable(f"it is not packed as it says ({error})") from error
            if piece:
                yield piece
            left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    while not unpacker.eof:
        piece = unpacker.decompress(b"", _OUT_BYTES)
        if not piece:
            break
        yield piece
    if not unpacker.eof:
        raise Truncated("it ends in the middle of what is packed")
