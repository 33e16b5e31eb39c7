"""Metrics as programs write them by themselves, read where they lie; TensorBoard's file is tensorboardX 2.6.5's own."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.run_folder import RunFolder, TaskFolder
from deephpc.workflows.found_metrics import _read_events, found_series, run_series
from tests.fakes.samples import A_TENTH

EVENTS = Path(__file__).parents[1] / "recorded" / "tensorboardX-2.6.5.tfevents"
SCALARS = {"loss/train": [(0, 2.0), (10, 1.0), (20, 0.5)], "accuracy": [(0, 0.25), (10, 0.5), (20, 0.75)]}


@pytest.fixture
def files(tmp_path: Path) -> TaskFolder:
    folder = RunFolder(tmp_path).task(None)
    (folder.output / "models" / "2026").mkdir(parents=True)
    return folder


def test_tensorboards_scalars_are_read(files: TaskFolder) -> None:
    shutil.copy(EVENTS, files.output / "models" / "2026" / "events.out.tfevents.1.c1")
    assert found_series(files) == SCALARS


def test_a_table_of_epochs_is_read(files: TaskFolder) -> None:
    (files.output / "models" / "2026" / "epoch_metrics.csv").write_text(
        "epoch, loss,acc,note\n0,2,0.5,a\n1, 1.5,nan,b\n"
    )
    assert found_series(files) == {"loss": [(0, 2), (1, 1.5)], "acc": [(0, 0.5)]}


@pytest.mark.parametrize(
    ("name", "value", "series"),
    [
        ("stats.json", {"loss": [2, 1], "time": 5.5, "net": "x"}, {"loss": [(0, 2), (1, 1)], "time": [(0, 5.5)]}),
        ("train.json", {"status": "done", "result": {"output": {"acc": 0.9}}}, {"acc": [(0, 0.9)]}),
        ("history.json", {"a": {"b": [1]}}, {"a.b": [(0, 1)]}),
    ],
)
def test_numbers_in_json_are_read(files: TaskFolder, name: str, value: object, series: object) -> None:
    (files.output / name).write_text(json.dumps(value))
    assert found_series(files) == series


def test_what_the_image_had_before_is_not_the_runs(files: TaskFolder) -> None:
    old = files.output / "models" / "2019"
    old.mkdir()
    (old / "epoch_metrics.csv").write_text("epoch,loss\n0,9\n")
    files.shipped_models.write_text("2019\n")
    assert found_series(files) == {}
    (files.path / "claim").touch()
    (files.output / "log.csv").write_text("epoch,loss\n0,9\n")
    os.utime(files.output / "log.csv", (1, 1))
    assert found_series(files) == {}


def test_files_that_cannot_be_read_stop_nobody(files: TaskFolder) -> None:
    (files.output / "log.csv").write_bytes(b"epoch,loss\n0,\0\n" + b"x" * 200_000)
    (files.output / "stats.json").write_text("[" * 100_000)
    (files.output / "history.csv").symlink_to("nowhere")
    (files.output / "metrics.csv").mkdir()
    os.mkfifo(files.output / "losses.csv")
    (files.output / "a.tfevents").write_bytes(b"\xff" * 100)
    assert found_series(files) == {}


def test_a_runs_own_metrics_come_first(files: TaskFolder) -> None:
    (files.output / "stats.json").write_text('{"loss": 9}')
    files.metrics.write_text('{"loss": 1}\n')
    assert run_series(files) == {"loss": [(0, 1)]}


@A_TENTH
@given(st.integers(0, 2000), st.binary(max_size=20))
def test_a_file_that_is_cut_off_or_spoilt_gives_numbers_or_none(cut: int, junk: bytes) -> None:
    spoilt = Path(os.environ.get("TMPDIR", "/tmp")) / f"spoilt-{os.getpid()}.tfevents"
    spoilt.write_bytes(EVENTS.read_bytes()[:cut] + junk)
    try:
        for points in _read_events(spoilt).values():
            assert all(math.isfinite(value) for _, value in points)
    finally:
        spoilt.unlink()
