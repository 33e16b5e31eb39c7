"""What of a prediction fits into a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.workflows.result_columns import result_columns
from tests.fakes.samples import A_TENTH

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["label", "prob", "x"]), inner),
)


@pytest.mark.parametrize(
    ("result", "columns"),
    [
        (None, {}),
        (5, {"result": 5}),
        ("cat", {"result": "cat"}),
        ([0.5], {"result": 0.5}),
        ([1, 2], {}),
        ({"a": 1, "b": [1, 2], "c": "x", "d": None}, {"result.a": 1, "result.c": "x"}),
        ([{"a": True}], {"result.a": True}),
        ({"status": "OK", "predictions": [{"a": 1}]}, {"result.a": 1}),
        ({"title": "t", "predictions": {"a": 1}}, {"result.title": "t", "result.a": 1}),
        ({"labels": ["a", "b"], "probabilities": [0.1, 0.9]}, {"label": "b", "probability": 0.9}),
        ({"pred_lab": [["a", "b"]], "pred_prob": [[0.7, 0.3]]}, {"label": "a", "probability": 0.7}),
        ([{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}], {"label": "b", "probability": 0.8}),
        ({"labels": ["a", "b"], "probabilities": [0.1]}, {}),
        ({"image": "x" * 5000}, {}),
    ],
)
def test_what_is_simple_gets_a_column(result: object, columns: dict[str, object]) -> None:
    assert result_columns(result) == columns  # type: ignore[arg-type]


@A_TENTH
@given(JSON)
def test_any_answer_gives_cells(result: object) -> None:
    assert all(isinstance(cell, str | int | float | bool) for cell in result_columns(result).values())  # type: ignore[arg-type]
