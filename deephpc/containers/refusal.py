"""What a registry or its token server refuses, as errors: by its status, by its own code, and in its own words.

Source: OCI distribution specification 1.1, "Error codes"; Docker Hub's documentation, "Pull usage and limits".
"""

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

from deephpc.containers.auth import Credentials
from deephpc.containers.body import read_error
from deephpc.containers.source import Interrupted
from deephpc.errors import EngineError

CHECK_THE_NAME = "check the name and the tag"
CHECK_THE_REPOSITORY = "check the name: the registry has no such repository, or does not show it to you"
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOG_IN = "log in with docker, podman, apptainer or udocker"


def refusal(host: str, response: httpx.Response, credentials: Credentials | None, name: str) -> EngineError:
    """Return the error for an answer that is none of success; reads its body.

    Parameters
    ----------
    host
        Who answers.
    name
        The image that was asked for; empty where a token was.
    """
    status, found = response.status_code, read_error(response)
    told = found.of(status)
    wanted = f" for {name}" if name else ""
    if status in _BUSY:
        hint = "try again later"
        if found.name == "toomanyrequests":
            hint = "wait, or take another registry" if credentials else f"{_LOG_IN} for more pulls, or wait"
        wait_s = _retry_after(response.headers.get("retry-after"))
        return Interrupted(f"{host} is busy ({told})", hint, retry_after_s=wait_s)
    if status in (401, 403):
        who = f"the credentials from {credentials.origin}" if credentials else "an anonymous pull"
        hint = f"check the image's name; for a private one {_LOG_IN}"
        if credentials:
            hint = "log in again, or check the image's name"
            if found.name == "denied":
                hint = "ask its owner for the right to pull it, or check the image's name"
        return EngineError(f"{host} refuses {who}{wanted} ({told})", hint)
    if status == 404 and name:
        hint = CHECK_THE_REPOSITORY if found.name == "nameunknown" else CHECK_THE_NAME
        return EngineError(f"{name} is not there ({host} says {told})", hint)
    return EngineError(f"{host} answers {told}{wanted or ' to a request for a token'}", "try again later")


def _retry_after(text: str | None) -> float | None:
    """Read Retry-After: seconds or a date (RFC 9110, 10.2.3)."""
    if not text:
        return None
    if re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        return float(text.strip())
    try:
        at = parsedate_to_datetime(text).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
