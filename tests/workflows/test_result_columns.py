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
        ([1, 2], {"result": "[1, 2]"}),
        ({"a": 1, "b": [1, 2], "c": "x", "d": None}, {"result.a": 1, "result.b": "[1, 2]", "result.c": "x"}),
        ({"box": {"width": 2, "corners": [[0, 1]]}}, {"result.box.width": 2, "result.box.corners": "[[0, 1]]"}),
        ([{"a": True}], {"result.a": True}),
        ({"status": "OK", "predictions": [{"a": 1}]}, {"result.a": 1}),
        ({"title": "t", "predictions": {"a": 1}}, {"result.title": "t", "result.a": 1}),
        (
            {"labels": ["a", "b"], "probabilities": [0.1, 0.9]},
            {
                "result.labels": '["a", "b"]',
                "result.probabilities": "[0.1, 0.9]",
                "label": "b",
                "probability": 0.9,
            },
        ),
        (
            {"pred_lab": [["a", "b"]], "pred_prob": [[0.7, 0.3]]},
            {
                "result.pred_lab": '[["a", "b"]]',
                "result.pred_prob": "[[0.7, 0.3]]",
                "label": "a",
                "probability": 0.7,
            },
        ),
        (
            [{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}],
            {
                "result": '[{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}]',
                "label": "b",
                "probability": 0.8,
                "objects": 2,
            },
        ),
        ([], {"result": "[]", "objects": 0}),
        (
            {"labels": ["a", "b"], "probabilities": [0.1]},
            {"result.labels": '["a", "b"]', "result.probabilities": "[0.1]"},
        ),
        ({"image": "x" * 5000, "n": 1}, {"result.n": 1, "left_out": "result.image (5000 characters)"}),
        (
            [{"label": "cell", "score": 0.5}] * 192,
            {"label": "cell", "probability": 0.5, "objects": 192, "left_out": "result (192 items)"},
        ),
        ({"scores": {str(n): n for n in range(400)}}, {"left_out": "result.scores (400 items)"}),
    ],
)
def test_what_is_simple_gets_a_column(result: object, columns: dict[str, object]) -> None:
    assert result_columns(result) == columns  # type: ignore[arg-type]


@A_TENTH
@given(JSON)
def test_any_answer_gives_cells(result: object) -> None:
    assert all(isinstance(cell, str | int | float | bool) for cell in result_columns(result).values())  # type: ignore[arg-type]
