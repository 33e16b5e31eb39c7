"""The module as DEEPaaS uses it: trained, asked. deephpc's own tests run these inside the module's image."""
# ruff: noqa: D103 -- the names of tests are sentences

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deepaas_digits_torch import api, data
from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
DIGITS = {"zero": 0, "one": 1, "three": 3, "four": 4, "seven": 7}


def make_digits(images: int) -> np.ndarray:
    """Return a table of the samples with noise: something to learn in a second, without a data set."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(images):
        name = random.choice(list(DIGITS))
        ink = data.load_picture(SAMPLES / f"{name}.png").numpy().ravel() * data.DEPTH
        rows.append([*np.clip(ink + random.normal(0, 2, ink.size), 0, data.DEPTH), DIGITS[name]])
    return np.array(rows)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep data and models of a test in a folder of its own."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    for name in ("DEEPHPC_CHECKPOINT_DIR", "DEEPHPC_METRICS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "data" / "below").mkdir(parents=True)
    table = make_digits(200)
    np.savetxt(tmp_path / "data" / "first.csv", table[:80], delimiter=",")
    np.savetxt(tmp_path / "data" / "below" / "second.csv.gz", table[80:], delimiter=",")
    return tmp_path


def train(**changes: object) -> dict:
    defaults = {name: field.load_default for name, field in api.get_train_args().items()}
    return api.train(**{**defaults, "epochs": 3, **changes})


def predict(path: Path, **changes: object) -> dict:
    upload = SimpleNamespace(filename=str(path))
    return api.predict(**{"image": upload, "model": "model", "accept": api.JSON, **changes})


def weights(folders: Path, name: str) -> dict:
    return torch.load(folders / "models" / f"{name}.pt", weights_only=True)["network"]


def test_deepaas_finds_the_module() -> None:
    found = {point.name: point.load() for point in entry_points(group="deepaas.v2.model")}
    assert found["deepaas_digits_torch"] is api


def test_it_learns_from_all_tables_and_reads_pictures_of_any_size(tmp_path: Path) -> None:
    assert train()["accuracy"] == 1
    api.warm()
    assert {name: predict(SAMPLES / f"{name}.png")["digit"] for name in DIGITS} == DIGITS
    with Image.open(SAMPLES / "four.png") as picture:
        picture.resize((50, 31)).convert("RGB").save(tmp_path / "four.ppm")
    assert predict(tmp_path / "four.ppm")["digit"] == 4


def test_a_model_that_is_trained_anew_is_read_anew() -> None:
    train(epochs=1)
    before = predict(SAMPLES / "one.png")["probabilities"]
    train(epochs=2)
    assert predict(SAMPLES / "one.png")["probabilities"] != before


def test_an_interrupted_training_ends_as_a_whole_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(model="whole")
    monkeypatch.setenv("DEEPHPC_CHECKPOINT_DIR", str(folders))
    train(epochs=1, model="parts")
    assert train(model="parts")["epochs"] == 3
    whole, parts = weights(folders, "whole"), weights(folders, "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_signal_stops_training_after_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_report", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    assert train(epochs=1000)["epochs"] == 1


def test_every_epoch_is_reported(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPHPC_METRICS", str(folders / "metrics.jsonl"))
    train()
    points = [json.loads(line) for line in (folders / "metrics.jsonl").read_text().splitlines()]
    assert [point["epoch"] for point in points] == [1, 2, 3]


def test_asking_before_training_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match="train one first"):
        predict(SAMPLES / "one.png")


@pytest.mark.parametrize("content", [b"", b"1,2,3\n", b"\x89PNG\r\n\x1a\n", b"P5\n8 8\n255\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    train(epochs=1)
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(ValueError, match="this is no picture"):
        predict(tmp_path / "upload")


@pytest.mark.parametrize("row", ["1,2,3\n", ",".join(["1"] * 64 + ["12"]) + "\n"])
def test_a_table_of_something_else_is_named(folders: Path, row: str) -> None:
    with gzip.open(folders / "data" / "other.csv.gz", "wt") as table:
        table.write(row)
    with pytest.raises(ValueError, match=r"other.csv.gz: 64 pixels and a digit"):
        train()


def test_no_data_at_all_are_missed(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(folders / "models"))
    with pytest.raises(FileNotFoundError, match="no table of digits"):
        train()


def test_a_name_may_not_lead_out_of_its_folder() -> None:
    with pytest.raises(ValueError, match="is not inside"):
        train(model="../../elsewhere")


RANK = """
import json, sys
from deepaas_digits_torch import api
defaults = {name: field.load_default for name, field in api.get_train_args().items()}
print(json.dumps(api.train(**{**defaults, "epochs": 3, "model": sys.argv[1]})), flush=True)
"""


def test_horovod_with_one_rank_gives_what_one_process_gives(folders: Path) -> None:
    pytest.importorskip("horovod.torch", reason="Horovod is missing: tools/build-horovod.sh builds it")
    for name, extra in (("alone", {}), ("ranks", {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1", "HOROVOD_LOCAL_RANK": "0",
                                                  "HOROVOD_LOCAL_SIZE": "1", "HOROVOD_CROSS_RANK": "0",
                                                  "HOROVOD_CROSS_SIZE": "1", "HOROVOD_CONTROLLER": "gloo",
                                                  "HOROVOD_CPU_OPERATIONS": "gloo"})):  # fmt: skip
        subprocess.run([sys.executable, "-c", RANK, name], env={**os.environ, **extra}, check=True, timeout=120)
    alone, ranks = weights(folders, "alone"), weights(folders, "ranks")
    assert all(torch.allclose(alone[name], ranks[name], atol=1e-6) for name in alone)


def test_two_ranks_of_pytorch_give_what_one_process_gives(folders: Path) -> None:
    subprocess.run([sys.executable, "-c", RANK, "alone"], check=True, timeout=120)
    with socket.create_server(("127.0.0.1", 0)) as free:
        joined = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    words = [sys.executable, "-c", RANK, "ranks"]
    ranks = [subprocess.Popen(words, env={**os.environ, **joined, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    alone, shared = weights(folders, "alone"), weights(folders, "ranks")
    assert all(torch.allclose(alone[name], shared[name], atol=1e-4) for name in alone)
