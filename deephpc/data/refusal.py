"""What a web server, WebDAV or S3 refuses, as errors: by its status, by its own code, and in its own words.

Source: RFC 9110 for status codes and Retry-After; RFC 4918 for those of WebDAV, RFC 4331 for quotas; Amazon S3 API
reference, "Error responses"; MinIO (XMinio…) and Ceph for theirs.
"""

import re
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

from deephpc.data.answer import Answer
from deephpc.data.header import http_time, parse_number
from deephpc.data.storage import Forbidden, Interrupted, Missing, Refused, Unfit, Unwritable, changed, missing
from deephpc.error_body import ErrorBody, parse_error_body
from deephpc.errors import DataError
from deephpc.unpacking import NotUnpackable, coding_of, unpack

_BUSY = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
_SAFE = frozenset({"GET", "HEAD", "PROPFIND", "OPTIONS"})
#: The server knows nothing of the request's method there.
_NO_METHOD = frozenset({405, 501})
_ROOM_HINT = "free space there, or ask for quota"
_NO_ROOM = (Unwritable, "the storage has no room for it", _ROOM_HINT)
_CREDENTIALS_HINT = "check the user and password of the remote (`rclone config`, ~/.netrc)"
_REFUSALS: Mapping[int, tuple[type[DataError], str, str]] = {
    401: (Refused, "the server refuses the credentials", _CREDENTIALS_HINT),
    407: (Refused, "the proxy refuses the credentials", "check HTTPS_PROXY"),
    403: (Forbidden, "the server forbids it", "ask its owner, or check the credentials"),
    405: (Refused, "the server cannot be written there", "is this a WebDAV address?"),
    409: (Missing, "its folder does not exist", "make the folder first"),
    413: _NO_ROOM,
    507: _NO_ROOM,
}
_CLOCK = "requesttimetooskewed"
#: `rclone serve s3` (1.75) has no code of its own for that.
_CLOCK_MESSAGE = re.compile(r"\brequest time and\b.*\btime\b", re.IGNORECASE)
_KEY_HINT = "check the {} of the remote (`rclone config`), of ~/.aws/credentials or {}"
_TOKEN_HINT = "log in again: the token, or the key with its session token, is valid no longer"  # noqa: S105 - a hint
_FEWER_HINT = "wait, or take fewer at once: --parallel 2"
_REGION_HINT = "check endpoint and region"
#: By the server's own code, in small letters: what it is, whatever the status, and what to do.
_BY_CODE: Mapping[str, tuple[type[DataError], str]] = {
    _CLOCK: (Refused, "set this machine's clock, or tell its administrators"),
    "invalidaccesskeyid": (Refused, _KEY_HINT.format("access key", "AWS_ACCESS_KEY_ID")),
    "signaturedoesnotmatch": (Refused, _KEY_HINT.format("secret key", "AWS_SECRET_ACCESS_KEY")),
    **dict.fromkeys(("authorizationheadermalformed", "permanentredirect"), (Refused, _REGION_HINT)),
    **dict.fromkeys(("expiredtoken", "invalidtoken", "tokenrefreshrequired"), (Refused, _TOKEN_HINT)),
    "accessdenied": (Forbidden, "ask its owner for the right to do this, or check which key you use"),
    **dict.fromkeys(("slowdown", "throttling", "toomanyrequests", "serverbusy"), (Interrupted, _FEWER_HINT)),
    **dict.fromkeys(("requesttimeout", "operationaborted"), (Interrupted, "")),
    **dict.fromkeys(("keytoolongerror", "entitytoolarge"), (Unfit, "give it another name, or send it in pieces")),
    "nosuchbucket": (Missing, "check the bucket's name, or make it first"),
    **dict.fromkeys(
        (
            *("quotaexceeded", "quotanotexceeded", "sufficientdiskspace", "insufficientstorage"),
            *("xminiostoragefull", "xminioadminbucketquotaexceeded"),
        ),
        (Unwritable, _ROOM_HINT),
    ),
}


def refusal(method: str, shown: str, answer: Answer, body: bytes, secrets: Iterable[str]) -> DataError:
    """Return the error for an answer that is none of success.

    Parameters
    ----------
    shown
        What was asked for, as people may see it.
    secrets
        What we sent and must not be shown.
    """
    status, found = answer.status, parse_error_body(_unpacked(answer, body), secrets)
    if found.message.lower() == answer.reason.lower():  # it says no more than the status
        found = ErrorBody(found.code)
    is_clock = found.name == _CLOCK or _CLOCK_MESSAGE.search(found.message) is not None
    by_code = _BY_CODE.get(_CLOCK if is_clock else found.name)
    if status in (404, 410) and by_code is None:
        return missing(shown)
    if status == 412:
        return changed(shown)
    said = f"{shown}: the server answers {found.of(status)}" + ("" if found.says else f" {answer.reason}".rstrip())
    kind, hint = (Interrupted, "") if status in _BUSY else (DataError, "check the address with `deephpc data ls`")
    if status in _REFUSALS and not (status == 405 and method in _SAFE):
        kind, reason, hint = _REFUSALS[status]
        if by_code is None or by_code[0] is kind:
            said = f"{shown}: {reason} ({found.of(status)})"
    elif status in _NO_METHOD:
        kind = Forbidden
    elif answer.is_redirect:
        said, hint = f"{said}, which points elsewhere", "use the address it redirects to"
    kind, hint = by_code or (kind, hint)
    if is_clock:
        hint = f"{_clock_told(answer)}{hint}"
    if kind is Interrupted:
        return Interrupted(said, hint, retry_after_s=_retry_after(answer.headers.get("retry-after", "")))
    return kind(said, hint)


def _unpacked(answer: Answer, body: bytes) -> bytes:
    try:
        chunks, _ = unpack(iter([body]), coding_of(answer.headers.get("content-encoding", "")))
        return bytes(next(chunks, b""))
    except NotUnpackable:
        return b""


def _clock_told(answer: Answer) -> str:
    """Return how far this machine's clock is from the server's, where its answer tells the time."""
    theirs = http_time(answer.headers.get("date", ""))
    if theirs is None:
        return ""
    behind = timedelta(seconds=round(theirs - time.time()))
    way = "behind" if behind > timedelta() else "ahead of"
    return f"this machine's clock is {abs(behind)} {way} the server's: "


def _retry_after(text: str) -> float | None:
    seconds = parse_number(text.strip())
    if seconds is not None:
        return float(seconds)
    moment = http_time(text)
    return None if moment is None else max(0.0, moment - time.time())
