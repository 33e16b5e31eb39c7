"""Both sides of an image's wall read an answer by the same rules."""

from collections.abc import Callable
from urllib.request import ProxyHandler, build_opener

import deepaas_answers
import pytest
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


def download() -> None:
    build_opener(ProxyHandler({})).open("http://weights.invalid/best.pt")  # RFC 6761: no resolver knows it


def download_late() -> None:
    try:
        download()
    except OSError as error:
        raise RuntimeError("the weights cannot be loaded") from error


@pytest.mark.parametrize(
    ("fails", "told"),
    [(download, True), (download_late, True), (lambda: int("x"), False), (lambda: open("/nowhere"), False)],  # noqa: PTH123, SIM115
)
def test_what_cannot_be_loaded_from_the_internet_is_told_with_what_to_do(
    fails: Callable[[], object], told: bool
) -> None:
    with pytest.raises(Exception) as caught:
        fails()
    said = deepaas_answers.told_error(caught.value)
    assert ("nodes often have no internet" in said) is told, said
