"""Reads what WebDAV servers list (RFC 4918, PROPFIND)."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from deephpc.data.storage import Entry
from deephpc.data.web import http_time, parse_number, version_of
from deephpc.errors import DataError

#: What we ask for.
FIELDS = (
    b'<?xml version="1.0"?><d:propfind xmlns:d="DAV:"><d:prop><d:resourcetype/><d:getcontentlength/>'
    b"<d:getetag/><d:getlastmodified/></d:prop></d:propfind>"
)


def parse_listing(content: bytes, url: str, shown: str) -> list[Entry]:
    """Read a multistatus answer; the resource itself has an empty path.

    Raises
    ------
    DataError
        It is none.
    """
    try:
        root = ET.fromstring(content)  # noqa: S314 - expat since 2.4.1 bounds entities; no external ones are followed
    except ET.ParseError as error:
        raise DataError(f"{shown}: the server's listing is not XML ({error})", "check the address") from error
    top = unquote(urlsplit(url).path).rstrip("/")
    found = []
    for each in root.iter("{DAV:}response"):
        href = each.findtext("{DAV:}href") or ""
        path = unquote(urlsplit(href).path).rstrip("/")
        if path != top and not path.startswith(f"{top}/"):
            continue
        found.append(_parse_entry(each, path[len(top) :].lstrip("/")))
    return found


def _parse_entry(response: ET.Element, path: str) -> Entry:
    facts = {}
    for each in response.iter("{DAV:}propstat"):
        if " 200 " in f"{each.findtext('{DAV:}status') or ' 200 '} ":
            facts.update({prop.tag: prop for prop in each.iterfind("{DAV:}prop/*")})
    kind = facts.get("{DAV:}resourcetype")
    is_folder = kind is not None and kind.find("{DAV:}collection") is not None
    modified = _text(facts, "getlastmodified")
    if is_folder:
        return Entry(path, is_folder=True, modified_s=http_time(modified))
    version = version_of(_text(facts, "getetag"), modified)
    return Entry(path, parse_number(_text(facts, "getcontentlength")), version, http_time(modified))


def _text(facts: Mapping[str, ET.Element], name: str) -> str:
    element = facts.get(f"{{DAV:}}{name}")
    return (element.text or "").strip() if element is not None else ""
