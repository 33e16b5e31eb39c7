"""Both sides of an image's wall read an answer by the same rules."""

import asyncio
import os
import pickle
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import ExceptionWithTraceback
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import aiohttp
import deepaas_answers
import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from deephpc.serve import answers
from tests.fakes.samples import A_TENTH

ERRORS = [
    ({"status": "OK", "predictions": {"status": "error", "message": "too dark"}}, "too dark"),
    ({"status": "error", "message": "too dark"}, "too dark"),
    ({"status": "Failed ", "errors": ["a", "b"]}, '["a", "b"]'),
    ({"status": "OK", "predictions": {"error": "too dark"}}, "too dark"),
    ({"error": {"code": 3, "text": "too dark"}}, '{"code": 3, "text": "too dark"}'),
    ({"success": False, "message": "too\ndark"}, "too dark"),
    ({"status": 500, "detail": "too dark"}, "too dark"),
    ({"status": "error", "predictions": []}, '{"status": "error", "predictions": []}'),
    ({"status": "error", "message": "too dark", "predictions": None}, "too dark"),
    ({"status": "error", "predictions": {"label": "cell"}}, '{"status": "error", "predictions": {"label": "cell"}}'),
]
RESULTS = [
    {"status": "OK", "predictions": {"status": "failed", "probability": 0.9}},  # of a machine, say
    {"status": "OK", "predictions": {"label": "error", "probability": 0.9}},
    {"status": "OK", "predictions": []},
    {"status": "done", "message": "trained"},
    {"status": "OK", "predictions": {"status": "ok", "message": "3 cells found", "error": ""}},
    {"status": 200, "predictions": {"error": 0.25, "mean": 3}},
    {"predictions": {"errors": [0.1], "labels": ["a"]}},
    {"success": True, "error": None, "label": "a"},
    {},
    [],
    "error",
    None,
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["error", "OK", "failed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "error", "message", "predictions", "success", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("answer, told", ERRORS)
def test_an_error_in_a_body_is_found(answer: object, told: str) -> None:
    assert answers.body_error(answer) == deepaas_answers.body_error(answer) == told  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", RESULTS)
def test_a_result_is_no_error(answer: object) -> None:
    assert answers.body_error(answer) == deepaas_answers.body_error(answer) == ""  # type: ignore[arg-type]


@A_TENTH
@given(ANY_JSON)
def test_both_sides_read_any_answer_alike(answer: object) -> None:
    assert answers.body_error(answer) == deepaas_answers.body_error(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind, content, ending",
    [
        ("image/*", b"\x89PNG\r\n\x1a\n...", ".png"),
        ("image/*", b"\xff\xd8\xff\xe0", ".jpg"),
        ("video/*", b"\0\0\0\x18ftypmp42", ".mp4"),
        ("application/zip", b"anything", ".zip"),
        ("text/csv", b"", ".csv"),
    ],
)
def test_a_family_of_forms_gets_its_ending_from_the_content(kind: str, content: bytes, ending: str) -> None:
    assert answers.extension_of(kind, content) == deepaas_answers.extension_of(kind, content) == ending


@pytest.mark.parametrize(
    "asked, came, does",
    [
        ("application/zip", "application/json", False),
        ("image/*", "image/png", True),
        ("image/png", "image/*", True),
        ("image/*", "text/csv", False),
        ("text/csv", "text/csv", True),
    ],
)
def test_an_answer_in_another_form_is_noticed(asked: str, came: str, does: bool) -> None:
    assert answers.fits(asked, came) is deepaas_answers.fits(asked, came) is does


AWAY = "http://weights.invalid/best.pt"  # RFC 6761: no resolver knows it
SHUT = "http://127.0.0.1:9/best.pt"  # nobody listens


def by_urllib(address: str) -> None:
    build_opener(ProxyHandler({})).open(address)


def by_requests(address: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(address)


def by_httpx(address: str) -> None:
    httpx.get(address, trust_env=False)


def by_aiohttp(address: str) -> None:
    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(address):
            pass

    asyncio.run(get())


def by_the_hub(name: str, text: str) -> Callable[[], object]:
    """Raise what huggingface_hub raises, as public tracebacks of its releases 0.2x and 1.x have it."""

    def fail() -> None:
        raise type(name, (OSError,), {"__module__": "huggingface_hub.errors"})(text)

    return fail


def late(fails: Callable[[], object], text: str = "the weights cannot be loaded") -> Callable[[], object]:
    def fail() -> None:
        try:
            fails()
        except Exception as error:
            raise RuntimeError(text) from error

    return fail


OFFLINE = by_the_hub(
    "OfflineModeIsEnabled", "Cannot reach https://huggingface.co/api/models/a/b: offline mode is enabled."
)
NOT_HERE = by_the_hub(
    "LocalEntryNotFoundError",
    "An error happened while trying to locate the file on the Hub and we cannot find the requested files in the local "
    "cache. Please check your connection and try again or make sure your Internet connection is on.",
)


@pytest.mark.parametrize("way", [by_urllib, by_requests, by_httpx, by_aiohttp])
@pytest.mark.parametrize("address", [AWAY, SHUT], ids=["no name", "no way"])
def test_a_download_without_a_network_is_told_with_what_to_do(way: Callable[[str], None], address: str) -> None:
    for fails in (partial(way, address), late(partial(way, address)), late(late(partial(way, address)), "no model")):
        assert "nodes often have no internet" in told_by(fails)


@pytest.mark.parametrize(
    "fails", [OFFLINE, NOT_HERE, late(NOT_HERE, "We couldn't connect to 'https://huggingface.co'")]
)
def test_what_the_hub_says_without_a_network_is_told_with_what_to_do(fails: Callable[[], object]) -> None:
    assert "nodes often have no internet" in told_by(fails)


@pytest.mark.parametrize(
    "fails",
    [lambda: int("x"), lambda: Path("/nowhere").read_text(), late(lambda: {}["internet"]), lambda: os.write(99, b"")],
)
def test_what_else_fails_has_nothing_to_do_with_the_network(fails: Callable[[], object]) -> None:
    assert "internet:" not in told_by(fails)


def test_the_traceback_of_another_process_is_no_cause() -> None:
    """As multiprocessing and concurrent.futures bring an exception home."""

    def fail() -> None:
        try:
            int("x")
        except ValueError as error:
            brought = pickle.loads(pickle.dumps(ExceptionWithTraceback(error, error.__traceback__)))
        raise brought

    assert told_by(fail) == "ValueError: invalid literal for int() with base 10: 'x'"
    assert told_by(late(fail)).endswith("(first cause: ValueError: invalid literal for int() with base 10: 'x')")


def told_by(fails: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:
        fails()
    told: str = deepaas_answers.told_error(caught.value)
    assert "\n" not in told
    return told
