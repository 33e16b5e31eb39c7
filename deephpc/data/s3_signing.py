"""Signs requests to S3: AWS Signature Version 4.

Source: Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)", whose examples are tests here.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlsplit

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """The credentials of an account."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def render_query(query: Mapping[str, str]) -> str:
    """Return a query as both the URL and the signature have it: sorted, percent-encoded."""
    pairs = ((quote(key, safe="~"), quote(value, safe="~")) for key, value in query.items())
    return "&".join(f"{key}={value}" for key, value in sorted(pairs))


def sign(
    method: str, url: str, headers: Mapping[str, str], payload_sha256: str, scope: tuple[Keys, str], now: datetime
) -> dict[str, str]:
    """Return all headers of a request, with those that sign it.

    Parameters
    ----------
    url
        Percent-encoded, its query as `render_query` writes it.
    scope
        The credentials and the region.
    now
        The present, in UTC.
    """
    keys, region = scope
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    signed = {
        "host": parts.netloc,
        **{key.lower(): value.strip() for key, value in headers.items()},
        "x-amz-content-sha256": payload_sha256,
        "x-amz-date": moment,
    }
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(signed.items()))
    canonical = f"{method}\n{parts.path or '/'}\n{parts.query}\n{lines}\n{names}\n{payload_sha256}"
    place = f"{moment[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{place}\n{digest}"
    signature = hmac.new(_signing_key(keys, moment[:8], region), text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.access_key}/{place},SignedHeaders={names},Signature={signature}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _signing_key(keys: Keys, date: str, region: str) -> bytes:
    key = f"AWS4{keys.secret_key}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
