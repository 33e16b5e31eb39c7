"""Reads what WebDAV servers list (RFC 4918, PROPFIND)."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from deephpc.data.header import http_time, parse_number
from deephpc.data.manifest import fault_of
from deephpc.data.storage import Entry
from deephpc.data.url_path import Parts, parse_hrefs, parse_url
from deephpc.data.web import version_of
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
    asked = parse_url(url)
    responses = [each for each in root.iter("{DAV:}response") if each.findtext("{DAV:}href")]
    paths = parse_hrefs((each.findtext("{DAV:}href") or "" for each in responses), asked.parts if asked else ())
    top = find_top(paths, asked.parts if asked else ())
    return [_parse_entry(each, path, top) for each, path in zip(responses, paths, strict=True)]


def find_top(paths: Sequence[Parts], asked: Parts) -> Parts:
    """Return the path that a list of its own folder and what is in it begins with.

    That is the one that was asked for, or what a server behind another prefix calls it: the path above all others, or
    where the folder itself is not listed, theirs that ends as the one that was asked for.
    """
    if not paths or any(path[: len(asked)] == asked for path in paths):
        return asked
    shortest = min(paths, key=len)
    if all(path[: len(shortest)] == shortest for path in paths):
        return shortest
    return next((path[:-1] for path in paths if path[-2:-1] == asked[-1:]), asked)


def _parse_entry(response: ET.Element, parts: Parts, top: Parts) -> Entry:
    below = parts[len(top) :]
    path = "/".join(below)
    if parts[: len(top)] != top:
        return Entry("/" + "/".join(parts), left_out="is listed elsewhere than in the folder that was asked for")
    if any("/" in part for part in below):
        return Entry(path, left_out="has a / in its name")
    facts = {}
    for each in response.iter("{DAV:}propstat"):
        if " 200 " in f"{each.findtext('{DAV:}status') or ' 200 '} ":
            facts.update({prop.tag: prop for prop in each.iterfind("{DAV:}prop/*")})
    kind = facts.get("{DAV:}resourcetype")
    is_folder = kind is not None and kind.find("{DAV:}collection") is not None
    modified = _text(facts, "getlastmodified")
    if is_folder:
        return Entry(path, is_folder=True, modified_s=http_time(modified), left_out=path and fault_of(path))
    version = version_of(_text(facts, "getetag"), modified)
    return Entry(path, parse_number(_text(facts, "getcontentlength")), version, http_time(modified))


def _text(facts: Mapping[str, ET.Element], name: str) -> str:
    element = facts.get(f"{{DAV:}}{name}")
    return (element.text or "").strip() if element is not None else ""
