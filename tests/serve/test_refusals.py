"""What a server's refusal means to whoever asked."""

import httpx
import pytest

from deephpc.errors import DeephpcError, InputError, ProgramError, SiteError
from deephpc.serve.refusals import check_answer


@pytest.mark.parametrize(
    ("status", "said", "error", "told", "hint"),
    [
        (422, {"error": "{'top': ['Not a valid integer.']}"}, InputError, "Not a valid integer", "module show TARGET"),
        (422, {"json": {"threshold": ["Must be at most 1."]}}, InputError, "Must be at most 1.", "module show TARGET"),
        (422, "ü <b>no</b>", InputError, "refuses the arguments: ü <b>no</b>", "module show TARGET"),
        (413, {"message": "too large"}, InputError, "refuses the upload: too large", "send less"),
        (401, {}, SiteError, "refuses the token", "serve list"),
        (503, "", SiteError, "the server answers 503", "serve status"),
        (500, {"error": "no\nweights"}, ProgramError, "the prediction failed (500): no weights", "serve logs"),
    ],
)
def test_who_can_mend_it_is_told(status: int, said: object, error: type[DeephpcError], told: str, hint: str) -> None:
    answer = httpx.Response(status, text=said) if isinstance(said, str) else httpx.Response(status, json=said)
    with pytest.raises(error) as caught:
        check_answer(answer)
    assert told in caught.value.message
    assert hint in (caught.value.hint or "")


def test_an_answer_is_no_refusal() -> None:
    check_answer(httpx.Response(200, json={"status": "OK"}))
