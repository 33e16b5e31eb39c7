"""Tells what a server's refusal means, and who can mend it."""

from collections.abc import Mapping

import httpx

from deephpc.errors import DeephpcError, InputError, ProgramError, SiteError

LOGS = "its log may say more (`deephpc serve logs ID`)"
LOOK = "`deephpc serve status` tells how it stands; from elsewhere it takes a `deephpc tunnel`"


def check_answer(answer: httpx.Response) -> None:
    """Raise what a bad answer means; the answer is still open.

    Raises
    ------
    SiteError
        The token is wrong, or the server is not there.
    InputError
        The module or the gateway refuses what was sent.
    ProgramError
        The module failed.
    """
    if answer.status_code == httpx.codes.OK:
        return
    answer.read()
    raise _error_of(answer.status_code, _said(answer))


def _error_of(status: int, said: str) -> DeephpcError:
    if status == httpx.codes.UNAUTHORIZED:
        return SiteError("the server refuses the token", "is it still the same run? `deephpc serve list`")
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return InputError(
            f"the module refuses the arguments: {said}",
            "`deephpc module show TARGET` of its module or image says what it takes",
        )
    if status in (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.REQUEST_TIMEOUT):
        return InputError(f"the server refuses the upload: {said}", "send less at once")
    if status in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.BAD_GATEWAY):
        return SiteError(said or f"the server answers {status}", LOOK, transient=status != httpx.codes.BAD_GATEWAY)
    return ProgramError(f"the prediction failed ({status}): {said}", LOGS)


def _said(answer: httpx.Response) -> str:
    """Return what an answer says went wrong, on one line."""
    try:
        value = answer.json()
    except ValueError:
        value = None
    if isinstance(value, Mapping):
        value = value.get("error") or value.get("message") or value
    return " ".join(str(value if value is not None else answer.text).split())[:1000]
