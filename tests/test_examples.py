"""The digits example, run as its users run it: by hand, and by deephpc."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[1] / "examples" / "digits" / "train.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None or importlib.util.find_spec("sklearn") is None,
        reason="PyTorch or scikit-learn is missing: `make test` installs them, or tools/setup-python.sh .venv train",
    ),
]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DEEPHPC_OUTPUT_DIR": str(folder / "output"),
        "DEEPHPC_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "DEEPHPC_METRICS": str(folder / "metrics.jsonl"),
    }


def train(folder: Path, *options: str) -> str:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(TRAIN), *options]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_the_digits_are_read_with_over_95_percent_accuracy(tmp_path):
    said = train(tmp_path)
    summary = json.loads((tmp_path / "output" / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.95
    assert said.splitlines()[-1] == f"test accuracy {summary['test_accuracy']:.4f}"
    assert (tmp_path / "output" / "model.pt").stat().st_size > 10_000
    assert [line["epoch"] for line in metrics(tmp_path)] == list(range(1, 21))
    assert metrics(tmp_path)[-1]["test_accuracy"] == summary["test_accuracy"]


def test_by_hand_everything_lies_in_the_current_folder(tmp_path):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("DEEPHPC_")}
    subprocess.run([sys.executable, TRAIN, "--epochs", "1"], cwd=tmp_path, env=plain, check=True, timeout=300)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "metrics.jsonl", "output"}


def test_the_seed_decides_the_model(tmp_path):
    for name, seed in (("first", "1"), ("again", "1"), ("other", "2")):
        train(tmp_path / name, "--epochs", "2", "--seed", seed)
    assert metrics(tmp_path / "first") == metrics(tmp_path / "again")
    assert metrics(tmp_path / "first") != metrics(tmp_path / "other")


def test_a_training_told_by_sigusr1_asks_to_be_continued_and_ends_as_if_it_had_never_been_interrupted(tmp_path):
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    interrupted.mkdir()
    steady = ("--batch-size", "4")  # long epochs: the signal comes in the midst of one
    with subprocess.Popen(
        [sys.executable, TRAIN, "--epochs", "1000", *steady],
        cwd=interrupted,
        env=environment(interrupted),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        next(line for line in process.stdout if line.startswith("epoch   1 "))
        process.send_signal(signal.SIGUSR1)
        answer = next(line for line in process.stdout if line.startswith("SIGUSR1"))
        assert process.wait(timeout=300) == 75
    step = int(re.search(r"step (\d+)", train(interrupted, "--epochs", "0", *steady))[1])
    assert step == int(re.search(r"step (\d+)", answer)[1])

    epochs = str(metrics(interrupted)[-1]["epoch"] + 2)
    train(interrupted, "--epochs", epochs, *steady)
    train(whole, "--epochs", epochs, *steady)
    assert metrics(interrupted)[-1] == metrics(whole)[-1]


def test_deephpc_trains_the_digits_as_a_local_job(tmp_path):
    places = {f"DEEPHPC_{name.upper()}_DIR": str(tmp_path / name) for name in ("state", "work", "cache")}
    (tmp_path / "config.toml").touch()
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("DEEPHPC_", "SBATCH_", "SLURM_"))}
    venv = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    local = {**plain, **venv, **places, "DEEPHPC_SITE": "local", "DEEPHPC_CONFIG": str(tmp_path / "config.toml")}
    options = ["--cpus-per-task", "2", "--time", "10", "--wait"]

    done = subprocess.run(
        ["deephpc", "train", str(TRAIN), *options, "--", "--epochs", "12"],
        cwd=tmp_path,
        env=local,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    run = tmp_path / "work" / done.stdout.strip()
    assert "test accuracy 0.9" in done.stderr
    assert json.loads((run / "output" / "summary.json").read_text())["test_accuracy"] > 0.95
    assert json.loads((run / "result.json").read_text())["state"] == "COMPLETED"
    assert len(metrics(run)) == 12
