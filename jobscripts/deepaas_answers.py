"""What a module's answer is: whether its body tells of an error, which form it has, what an exception says.

Runs inside the image: Python 3.6 or later, standard library only. deephpc reads answers by the same rules
(`serve/answers.py`); the tests of the oracle bind the two.
"""

import json
import mimetypes
import traceback

_BAD = ("error", "err", "fail", "failed", "failure", "ko", "nok", "not ok", "exception", "invalid", "unsuccessful")
_GOOD = ("ok", "success", "successful", "done", "completed", "finished")
#: What stands beside a status where nothing but an error is told; the first of them that says something is shown.
_TELLING = ("error", "message", "errors", "detail", "reason", "title", "exception", "traceback", "description", "type")
_BESIDE = ("status", "code", "success", "ok", "predictions", *_TELLING)
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
#: Errors of urllib, requests, aiohttp, httpx and Hugging Face where nothing can be reached.
_OF_THE_NETWORK = (
    *("URLError", "gaierror", "NewConnectionError", "MaxRetryError", "NameResolutionError", "ClientConnectorError"),
    *("ClientConnectorDNSError", "ConnectionError", "ConnectError", "ConnectTimeout"),
    *("LocalEntryNotFoundError", "OfflineModeIsEnabled"),
)
#: How multiprocessing and concurrent.futures call the traceback of another process, which stands as a cause.
_ANOTHERS = "RemoteTraceback"
_NO_NETWORK = "; nodes often have no internet: bring what it wants to load with --data, --models or --bind"


def body_error(answer):
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
    if any(value for name, value in answer.items() if str(name).lower() not in _BESIDE):
        return ""
    is_bad = _says_bad(status) or answer.get("success") is False or answer.get("ok") is False
    has_error = not _says_good(status) and (answer.get("error") or answer.get("errors"))
    return _told(answer) if is_bad or has_error else ""


def _says_bad(status):
    if isinstance(status, bool) or not isinstance(status, (str, int)):
        return False
    return status >= 400 if isinstance(status, int) else status.strip().lower() in _BAD


def _says_good(status):
    return status is True or (isinstance(status, str) and status.strip().lower() in _GOOD)


def _told(answer):
    """Return the words of an error, on one line."""
    said = next((answer[name] for name in _TELLING if answer.get(name)), answer)
    return " ".join((said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str)).split())


def extension_of(content_type, content=b""):
    """Return a file's extension for a content type; of a family such as `image/*`, by how the content begins."""
    if not content_type or "*" in content_type:
        content_type = next((kind for at, start, kind in _STARTS if content[at : at + len(start)] == start), None)
    return _EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type or "") or ".bin"


def fits(asked, content_type):
    """Return whether an answer has the form that was asked for."""
    family, _, member = asked.partition("/")
    return (
        asked in (content_type, "*/*")
        or "*" in content_type
        or (member == "*" and content_type.startswith(family + "/"))
    )


def told_error(error):
    """Return an exception as Python ends its traceback, with the first of the chain that it was raised from."""
    chain = []
    while error is not None and all(error is not each for each in chain):
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    root = [each for each in chain if not type(each).__name__.endswith(_ANOTHERS)][-1]
    text, cause = _last_line(chain[0]), _last_line(root)
    whole = text if cause in text else "%s (first cause: %s)" % (text, cause)
    is_of_network = any(name in _last_line(each) for each in chain for name in _OF_THE_NETWORK)
    return whole + (_NO_NETWORK if is_of_network else "")


def _last_line(error):
    return "".join(traceback.format_exception_only(type(error), error)).strip()
