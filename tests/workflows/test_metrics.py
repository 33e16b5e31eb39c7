"""The metrics a program writes, whatever else stands in their file."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from deephpc.workflows.metrics import last_values, load_series, series_of
from tests.fakes.samples import A_TENTH


def test_each_metric_is_a_series_over_step_epoch_or_line():
    lines = [{"step": 10, "loss": 2}, {"epoch": 3, "loss": 1.5, "accuracy": 0.9}, {"loss": 1}]
    assert series_of(lines) == {"loss": [(10, 2), (3, 1.5), (2, 1)], "accuracy": [(3, 0.9)]}


def test_junk_lines_are_passed_over(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"loss": 1}\nhello\n\xff\xfe\n[1, 2]\n{"loss": "low"}\n{"loss": NaN}\n{"loss": -Infinity}\n{"loss": true}\n'
        b'{"loss": null, "nested": {"a": 1}}\n{"loss": '
        + b"9" * 400
        + b"}\n"
        + b"[" * 100_000
        + b'\n{"loss": 2}\n{"los'
    )
    assert [value for _, value in load_series(path)["loss"]] == [1.0, 2.0]
    assert last_values(load_series(path)) == {"loss": 2.0}


def test_no_file_is_no_metrics(tmp_path: Path):
    assert load_series(tmp_path / "none") == {}


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())


@A_TENTH  # costly, and no text of Slurm's
@given(st.lists(st.dictionaries(st.text(max_size=5) | st.sampled_from(["step", "epoch"]), values)))
def test_every_value_of_every_series_is_a_finite_number(lines: list[dict[str, object]]):
    for points in series_of(lines).values():
        assert all(math.isfinite(x) and math.isfinite(value) for x, value in points)
