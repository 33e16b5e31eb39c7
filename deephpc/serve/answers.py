"""What an answer of a module is: whether its body tells of an error, and which form it has (pure).

The same rules hold inside images (`jobscripts/deepaas_answers.py`), which cannot import deephpc; `tests/oracle` binds
the two.
"""

import json
import mimetypes
from collections.abc import Mapping

from pydantic import JsonValue

_BAD = frozenset(
    {"error", "err", "fail", "failed", "failure", "ko", "nok", "not ok", "exception", "invalid", "unsuccessful"}
)
_GOOD = frozenset({"ok", "success", "successful", "done", "completed", "finished"})
#: What stands beside a status where nothing but an error is told; the first of them that says something is shown.
_TELLING = ("error", "message", "errors", "detail", "reason", "title", "exception", "traceback", "description", "type")
_BESIDE = frozenset({"status", "code", "success", "ok", "predictions", *_TELLING})
_EXTENSIONS = {"application/json": ".json", "text/plain": ".txt", "text/csv": ".csv", "image/jpeg": ".jpg"}
_STARTS = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"BM", "image/bmp"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (4, b"ftyp", "video/mp4"),
    (8, b"WAVE", "audio/x-wav"),
)
START_BYTES = 16
"""How much of a content tells its form."""
_HTTP_BAD = 400


def body_error(answer: JsonValue) -> str:
    """Return what an answer in JSON says went wrong although its status was 200; nothing for a result.

    It is an error when it says so (`status`, `success`, a lone `error`) and holds nothing else, itself or in
    `predictions`, as DEEPaaS wraps what a module returns.
    """
    if not isinstance(answer, dict):
        return ""
    status = answer.get("status")
    if "predictions" in answer:
        inner = body_error(answer["predictions"])
        if inner or _says_bad(status):
            return inner or _told(answer)
    if any(value for name, value in answer.items() if name.lower() not in _BESIDE):
        return ""
    is_bad = _says_bad(status) or answer.get("success") is False or answer.get("ok") is False
    has_error = not _says_good(status) and bool(answer.get("error") or answer.get("errors"))
    return _told(answer) if is_bad or has_error else ""


def fits(asked: str, content_type: str) -> bool:
    """Whether an answer has the form that was asked for; a family such as `image/*` has many."""
    family, _, member = asked.partition("/")
    is_member = member == "*" and content_type.startswith(f"{family}/")
    return is_member or "*" in content_type or asked in (content_type, "*/*")


def extension_of(content_type: str, content: bytes = b"") -> str:
    """Return a file's extension for a content type, none where there is no usual one.

    Parameters
    ----------
    content
        How the content begins (`START_BYTES`); decides for a family such as `image/*`.
    """
    if not content_type or "*" in content_type:
        content_type = next((kind for at, start, kind in _STARTS if content[at : at + len(start)] == start), "")
    return _EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type) or ""


def _says_bad(status: JsonValue) -> bool:
    if isinstance(status, int) and not isinstance(status, bool):
        return status >= _HTTP_BAD
    return isinstance(status, str) and status.strip().lower() in _BAD


def _says_good(status: JsonValue) -> bool:
    return status is True or (isinstance(status, str) and status.strip().lower() in _GOOD)


def _told(answer: Mapping[str, JsonValue]) -> str:
    """Return the words of an error, on one line."""
    said = next((answer[name] for name in _TELLING if answer.get(name)), dict(answer))
    return " ".join((said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)).split())
