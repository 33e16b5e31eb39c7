"""Values in the headers of HTTP (RFC 9110): numbers and dates."""

from email.utils import parsedate_to_datetime


def parse_number(text: str) -> int | None:
    """Read a length, an offset or seconds; None where it is none of these, or beyond the size of any file."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def http_time(text: str) -> float | None:
    """Read an HTTP date; None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, OverflowError):
        return None
