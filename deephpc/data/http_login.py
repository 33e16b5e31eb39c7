"""As whom a web server is asked: a password, a token, a program that makes tokens, and headers of the user's own.

Source: rclone 1.75, https://rclone.org/webdav/ (bearer_token_command, headers) and https://rclone.org/http/ (headers);
tests/data/test_rclone_client.py holds rclone itself to the same.
"""

import base64
import csv
import netrc
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from deephpc.data.storage import Refused
from deephpc.errors import InputError
from deephpc.shell import run

_MAKES_TOKENS_WITHIN_S = 60.0


class HttpLogin:
    """As whom a server is asked, which may change while it is.

    Parameters
    ----------
    settings
        `url`, and what there is of `user`, `password`, `bearer_token`, `bearer_token_command` (a line of words) and
        `headers` (a line of names and values by turns).

    Raises
    ------
    InputError
        The headers are no names and values.
    """

    def __init__(self, settings: Mapping[str, str], home: Path) -> None:
        self._more = parse_headers(settings.get("headers", ""))
        self._command = settings.get("bearer_token_command", "")
        self._turn = threading.Lock()
        self._known = _bearer(settings.get("bearer_token", "")) or ("" if self._command else _basic(settings, home))

    def headers(self) -> dict[str, str]:
        """Return the headers to send; runs the program that makes tokens, where one is needed first.

        Raises
        ------
        Refused
            It makes none.
        """
        with self._turn:
            if self._command and not self._known:
                self._known = self._make_token()
            return {**({"Authorization": self._known} if self._known else {}), **self._more}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Have a new token made after one was refused; say whether the headers are others now.

        Raises
        ------
        Refused
            None was made.
        """
        if not self._command:
            return False
        with self._turn:
            if self._known == refused.get("Authorization"):  # and no other thread had it renewed
                self._known = self._make_token()
            return self._known != refused.get("Authorization")

    def _make_token(self) -> str:
        words = next(csv.reader([self._command], delimiter=" "))
        done = run([word for word in words if word], timeout_s=_MAKES_TOKENS_WITHIN_S)
        token = done.stdout.strip()
        if done.ok and token:
            return _bearer(token)
        said = (done.stderr.strip().splitlines() or [""])[-1]  # never stdout, which may be a token
        how = (
            "takes too long" if done.timed_out else f"ends with {done.returncode}" if done.returncode else "prints none"
        )
        raise Refused(
            f"the bearer_token_command {how}" + (f": {said}" if said else ""),
            "run it yourself, or `rclone lsf REMOTE:`",
        )


def _bearer(token: str) -> str:
    return f"Bearer {token}" if token else ""


def _basic(settings: Mapping[str, str], home: Path) -> str:
    user, password = settings.get("user", ""), settings.get("password", "")
    if not user and not password:
        user, password = find_login(settings["url"], home)
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user or password else ""


def parse_headers(line: str) -> dict[str, str]:
    """Read `name,value,name,value`, quoted as in CSV.

    Raises
    ------
    InputError
        It is no such line; the message quotes no value.
    """
    if not line:
        return {}
    try:
        words = next(csv.reader([line], strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"`headers` of a remote is no line of CSV: {error}", "write it as name,value,…") from None
    if len(words) % 2:
        raise InputError(
            f"`headers` of a remote has {len(words)} parts, not pairs", "write it as name,value,name,value"
        )
    return dict(zip(words[::2], words[1::2], strict=True))


def find_login(url: str, home: Path) -> tuple[str, str]:
    """Return the user and password that ~/.netrc has for a host; empty texts for none."""
    host = urlsplit(url).hostname or ""
    try:
        found = netrc.netrc(str(home / ".netrc")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return "", ""
    return (found[0] or "", found[2] or "") if found else ("", "")
