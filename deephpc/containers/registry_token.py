"""How a registry wants to be asked who we are: its challenge, and the tokens its token server hands out.

Source: the OCI distribution specification 1.1 leaves authorisation to RFC 7235 (challenges), RFC 6750 (bearer) and the
token protocol of the CNCF distribution project (`spec/auth/token`, `spec/auth/oauth`).
"""

import base64
import json
import re
import threading
import time
from dataclasses import dataclass, field

import httpx

from deephpc.containers.auth import Credentials
from deephpc.containers.body import read_body
from deephpc.containers.refusal import refusal
from deephpc.errors import EngineError
from deephpc.retries import Patience

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_SCHEME = re.compile(r"(?:^|,\s*)(bearer|basic)\b", re.IGNORECASE)
_SOONEST_S = 60.0
_MAX_TOKEN_BYTES = 1 << 20
_CLIENT_ID = "deephpc"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry's WWW-Authenticate asks for."""

    scheme: str
    """`bearer` or `basic`."""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenge(headers: list[str]) -> Challenge | None:
    """Read WWW-Authenticate; bearer wins over basic; None where neither is offered."""
    found: dict[str, Challenge] = {}
    for text in headers:
        starts = list(_SCHEME.finditer(text))
        for number, start in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
            pairs = {
                match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
                for match in _PARAMETER.finditer(text[start.end() : end])
            }
            found.setdefault(start[1].lower(), Challenge(start[1].lower(), pairs))
    return found.get("bearer") or found.get("basic")


class Authority:
    """Answers challenges for one repository, and remembers the token; safe among threads."""

    def __init__(
        self, credentials: Credentials | None, repository: str, *, plain_allowed: bool, patience: Patience
    ) -> None:
        self._credentials = credentials
        self._patience = patience
        self._scope = f"repository:{repository}:pull"
        self._plain_allowed = plain_allowed
        self._lock = threading.Lock()
        self._header: str | None = None
        self._expires = float("inf")

    def header(self) -> str | None:
        """Return what to send as Authorization; None until a registry has asked."""
        with self._lock:
            return self._header if time.monotonic() < self._expires else None

    def answer(self, client: httpx.Client, challenge: Challenge, refused: str | None) -> str | None:
        """Return the Authorization a challenge asks for.

        Parameters
        ----------
        refused
            What was sent and refused; another thread may have brought a new one meanwhile.

        Returns
        -------
        str or None
            None when there is nothing better to send than what was refused.

        Raises
        ------
        EngineError
            The token server refuses, or may not be trusted with credentials.
        """
        with self._lock:
            if self._header is not None and self._header != refused and time.monotonic() < self._expires:
                return self._header
            if challenge.scheme == "basic":
                self._header = self._basic()
            else:
                self._header = f"Bearer {self._fetch_token(client, challenge)}"
            return None if self._header == refused else self._header

    def _basic(self) -> str | None:
        found = self._credentials
        if found is None or not found.username:
            return None
        return "Basic " + base64.b64encode(f"{found.username}:{found.password}".encode()).decode()  # RFC 7617

    def _fetch_token(self, client: httpx.Client, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm)
        asked = {"service": challenge.parameters.get("service", ""), "scope": self._scope}
        found = self._credentials
        if found is not None and found.refresh_token:
            form = {
                **asked,
                "grant_type": "refresh_token",
                "client_id": _CLIENT_ID,
                "refresh_token": found.refresh_token,
            }
            request = client.build_request("POST", realm, data=form)
        else:
            basic = self._basic()
            headers = {"Authorization": basic} if basic else {}
            params = {name: value for name, value in asked.items() if value}
            request = client.build_request("GET", realm, params=params, headers=headers)
        response = client.send(request, stream=True)
        try:
            return self._read_token(response, realm)
        finally:
            response.close()

    def _check_realm(self, realm: str) -> None:
        """Refuse to carry credentials to a token server in clear text."""
        if realm.startswith("https://") or (self._plain_allowed and realm.startswith("http://")):
            return
        raise EngineError(
            f"the registry sends us for a token to {realm!r}, which is not https",
            "the registry is set up wrongly; --insecure-registry HOST allows it where you trust the network",
        )

    def _read_token(self, response: httpx.Response, realm: str) -> str:
        if response.status_code != 200:
            raise refusal(realm, response, self._credentials, "")
        content = read_body(response, _MAX_TOKEN_BYTES, self._patience.deadline_s)
        try:
            said = json.loads(content)
            token = said.get("token") or said.get("access_token")
            lifetime_s = float(said.get("expires_in") or _SOONEST_S)
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
            raise EngineError(f"{realm} gives no proper token", "tell the registry's administrators") from error
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise EngineError(f"{realm} gives no proper token", "tell the registry's administrators")
        self._expires = time.monotonic() + max(lifetime_s * 0.9, 1.0)
        return token
