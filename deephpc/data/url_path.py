"""Paths of URLs as they are compared: taken apart and decoded, so that two spellings of one path are equal.

Source: RFC 3986, 5.2 (references), 6.2 (spellings); the URL standard of WHATWG for `%2e`, and for white space in links.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_HOST = re.compile(r"(?:.*@)?(\[.*\]|[^:]*?)\.?(?::(\d*))?", re.DOTALL)
_USUAL_PORTS = {"http": "80", "https": "443"}
#: What no server leaves in a URL that encodes at all.
_PLAIN = re.compile(r"[ \n]|%(?![0-9A-Fa-f]{2})")
_DOTS = {"%2e": ".", ".%2e": "..", "%2e.": "..", "%2e%2e": ".."}

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Url:
    """An address, as far as it says where something lies."""

    host: str
    """With its port, where that is not the usual one."""
    parts: Parts
    """Of the path, decoded; bytes that are not UTF-8 become halves of characters (PEP 383)."""
    is_folder: bool
    """Whether the path ends with `/`."""
    has_query: bool = False

    def below(self, top: "Url") -> Parts | None:
        """Return the parts after those of a folder's URL; None for what does not lie in it."""
        if self.host != top.host or self.parts[: len(top.parts)] != top.parts:
            return None
        return self.parts[len(top.parts) :]


def parse_url(text: str, base: Url | None = None) -> Url | None:
    """Read a URL, or a link on the page at `base`; None for what leads to no web server."""
    found = _REFERENCE.fullmatch(re.sub(r"[\t\n\r]", "", text).strip(" \f"))
    scheme, authority, path, query = found.groups() if found else ("", None, "", None)
    if (scheme or "http").lower() not in _USUAL_PORTS or (authority is None and (scheme or base is None)):
        return None
    if authority is not None:
        host = _host(authority, (scheme or "http").lower())
        return None if host is None else _url(host, path, (), query)
    if base is None:
        return None
    if not path:
        return Url(base.host, base.parts, base.is_folder, bool(query))
    above = () if path.startswith("/") else base.parts if base.is_folder else base.parts[:-1]
    return _url(base.host, path, above, query)


def parse_hrefs(hrefs: Iterable[str], asked: Parts) -> list[Parts]:
    """Read the paths in an answer of WebDAV, whatever host they name; a `?` or `#` there is part of a name.

    RFC 4918 (8.3) wants them encoded. A server that leaves a space or a lone `%` as it is encodes none of them.

    Parameters
    ----------
    asked
        The path that was asked for, where those begin that lack their first `/`.
    """
    paths = [_AUTHORITY.sub("", each.strip()) for each in hrefs]
    is_plain = any(_PLAIN.search(path) for path in paths)
    return [_parts(path, () if path.startswith("/") else asked, is_plain=is_plain) for path in paths]


def decode(text: str) -> str:
    """Return percent-encoded text as text; bytes that are not UTF-8 become halves of characters."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _url(host: str, path: str, above: Parts, query: str | None) -> Url:
    is_folder = path.rpartition("/")[2].lower() in ("", ".", "..", *_DOTS)
    return Url(host, _parts(path, above), is_folder, bool(query))


def _parts(path: str, above: Parts, *, is_plain: bool = False) -> Parts:
    found = list(above)
    for each in path.split("/"):
        part = each if is_plain else _DOTS.get(each.lower(), each)
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part if is_plain else decode(part))
    return tuple(found)


def _host(authority: str, scheme: str) -> str | None:
    found = _HOST.fullmatch(authority.lower())
    if found is None or not found[1]:
        return None
    port = found[2] or ""
    return found[1] + (f":{port}" if port not in ("", _USUAL_PORTS[scheme]) else "")
