"""What a server says itself in the body of an error: its code and its words, out of XML, JSON, HTML or plain text.

Source: Amazon S3 API reference, "Error responses" (`Code`, `Message`); sabre/dav 4 (`s:exception`, `s:message`);
RFC 4918, 16 (a condition below `D:error`); OCI distribution specification 1.1, "Error codes"; RFC 6749, 5.2 (`error`).
"""

import base64
import binascii
import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: How much of a body is looked at.
MAX_ERROR_BYTES = 64 << 10
_LONGEST = 300
_SHORTEST_SECRET = 4
_CODES = ("code", "exception", "error")
_MESSAGES = ("message", "error_description", "details", "detail", "title")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a server says with an error; empty where it says nothing."""

    code: str = ""
    """A word of the server's own: `AccessDenied`, `TOOMANYREQUESTS`."""
    message: str = ""

    @property
    def name(self) -> str:
        """The code as one word in small letters: `invalid_token` and `InvalidToken` are one."""
        return re.sub(r"[^a-z0-9]", "", self.code.lower())

    @property
    def says(self) -> bool:
        """Whether it says anything."""
        return bool(self.code or self.message)

    def of(self, status: int) -> str:
        """Return a status and what is said with it: `403 AccessDenied: Access Denied`."""
        said = f"{self.code}: {self.message}" if self.code and self.message else self.code or self.message
        return f"{status} {said}".rstrip()


def parse_error_body(content: bytes, secrets: Iterable[str] = ()) -> ErrorBody:
    """Read the body of an error, on one line without control characters and secrets of ours.

    Parameters
    ----------
    secrets
        What we sent and nobody may read, as `secrets_of` returns it.
    """
    text = content[:MAX_ERROR_BYTES].decode("utf-8", "replace").strip("\ufeff \t\r\n")
    code, message = _read(text)
    hidden = sorted(secrets, key=len, reverse=True)
    return ErrorBody(_clean(code.rpartition("\\")[2], hidden), _clean(message, hidden).removesuffix("."))


def secrets_of(url: str, headers: Iterable[str]) -> frozenset[str]:
    """Return what of a request must not be shown, should a server repeat it: passwords, tokens, signatures.

    Parameters
    ----------
    headers
        The values of those that tell who we are.
    """
    parts = urlsplit(url)
    found = {parts.password or "", parts.query, *(value for _, value in parse_qsl(parts.query))}
    for value in headers:
        scheme, _, token = value.partition(" ")
        found |= {value, token}
        if scheme.lower() == "basic":
            found |= set(_login(token))
    return frozenset(each for each in found if len(each) >= _SHORTEST_SECRET)


def _login(token: str) -> tuple[str, ...]:
    try:
        login = base64.b64decode(token).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ()
    return login, login.partition(":")[2]


def _read(text: str) -> tuple[str, str]:
    """Return code and message as they are written."""
    if text.startswith(("{", "[")):
        try:
            return _read_json(json.loads(text))
        except (ValueError, RecursionError):
            return "", ""
    if not text.startswith("<"):
        return "", text.partition("\n")[0]
    title = _TITLE.search(text)
    if title is not None:  # a page; that of most servers says its status alone
        said = html.unescape(title[1])
        return "", "" if re.search(r"\b[45]\d\d\b", said) else said
    try:
        return _read_xml(ET.fromstring(text))  # noqa: S314 - expat since 2.4.1 bounds entities; no external ones are followed
    except ET.ParseError:
        return "", ""


def _read_xml(root: ET.Element) -> tuple[str, str]:
    found = {_local(each).lower(): (each.text or "").strip() for each in reversed(list(root.iter()))}
    condition = next((_local(each) for each in root if not len(each) and not each.text), "")
    return _first(found, _CODES) or condition, _first(found, _MESSAGES)


def _read_json(said: Any) -> tuple[str, str]:  # noqa: ANN401 - whatever JSON holds
    if isinstance(said, list):
        return _read_json(said[0]) if said else ("", "")
    if not isinstance(said, dict):
        return "", said if isinstance(said, str) else ""
    for inner in (said.get("error"), said.get("errors")):
        if inner and isinstance(inner, list | dict):
            return _read_json(inner)
    found = {str(name).lower(): value for name, value in said.items() if isinstance(value, str)}
    return _first(found, _CODES), _first(found, _MESSAGES)


def _first(found: dict[str, str], names: Iterable[str]) -> str:
    return next((found[name] for name in names if found.get(name)), "")


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _clean(text: str, hidden: Iterable[str]) -> str:
    for each in hidden:
        text = text.replace(each, "***")
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
