"""The module as DEEPaaS uses it: found by its entry point, trained, asked. scikit-learn brings the digits."""
# ruff: noqa: D103 -- the names of tests are sentences

import io
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from deepaas_digits import api, data
from deepaas_digits.model import Model

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
DIGITS = {"zero": 0, "one": 1, "three": 3, "four": 4, "seven": 7}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every model of a test in a folder of its own."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def train(**changes: object) -> dict:
    defaults = {name: field.load_default for name, field in api.get_train_args().items()}
    return api.train(**{**defaults, **changes})


def predict(path: Path, **changes: object) -> object:
    upload = SimpleNamespace(filename=str(path))
    return api.predict(**{"image": upload, "model": "model", "top": 1, "accept": api.JSON, **changes})


def test_deepaas_finds_the_module() -> None:
    found = {point.name: point.load() for point in entry_points(group="deepaas.v2.model")}
    assert found["deepaas_digits"] is api


def test_it_reads_more_than_nine_of_ten_unseen_digits() -> None:
    assert train()["accuracy"] > 0.95


def test_it_reads_digits_that_were_drawn_by_hand() -> None:
    train()
    assert {name: predict(SAMPLES / f"{name}.pgm")[0]["digit"] for name in DIGITS} == DIGITS


def test_the_same_seed_gives_the_same_model_and_another_one_does_not() -> None:
    def bits(seed: int) -> bytes:
        train(epochs=2, seed=seed)
        return Model.load(Path(os.environ["MODELS_DIR"]) / "model.npz").output.tobytes()

    assert bits(7) == bits(7) != bits(8)


@pytest.mark.parametrize("changes", [{"activation": "tanh"}, {"augment": True}, {"digits": [3, 5, 8]}])
def test_every_choice_trains(changes: dict) -> None:
    assert train(**changes)["accuracy"] > 0.9


def test_a_table_gives_an_answer_for_each_row_and_in_csv_when_asked(tmp_path: Path) -> None:
    train()
    table = tmp_path / "table"
    rows = [data.load_images(SAMPLES / f"{name}.pgm")[0] * data.DEPTH for name in ("one", "seven")]
    np.savetxt(table, rows, delimiter=",")
    assert [each["digit"] for each in predict(table)] == [1, 7]
    answer = predict(table, accept=api.CSV, top=2)
    assert isinstance(answer, io.BytesIO)
    assert [line.split(b",")[:2] for line in answer.getvalue().splitlines()[1::2]] == [[b"0", b"1"], [b"1", b"7"]]


def test_a_picture_of_what_the_model_sees_comes_as_an_open_file() -> None:
    train(epochs=1)
    with predict(SAMPLES / "one.pgm", accept=api.PGM) as picture:
        seen = data.parse_pgm(picture.read())
    Path(picture.name).unlink()
    np.testing.assert_allclose(seen, data.load_images(SAMPLES / "one.pgm").reshape(8, 8), atol=1 / 255)


@pytest.mark.parametrize("rows, columns, white", [(8, 8, 255), (16, 24, 15), (31, 9, 255), (12, 12, 65535)])
def test_images_of_any_size_and_depth_are_read(tmp_path: Path, rows: int, columns: int, white: int) -> None:
    image = tmp_path / "image"
    kind = np.uint8 if white < 256 else ">u2"
    image.write_bytes(
        b"P5\n# a comment\n%d %d\n%d\n" % (columns, rows, white) + np.zeros((rows, columns), kind).tobytes()
    )
    assert data.load_images(image).tolist() == [[1.0] * 64]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"", b"1,2,3\n", b"P5\n8 8\n255\n", b"P2\n4 4\n1\n" + b"0 " * 16])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    train(epochs=1)
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"PGM|CSV|smaller"):
        predict(path)


def test_asking_before_training_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match="train one first"):
        predict(SAMPLES / "one.pgm")


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(epochs=6, model="whole")
    monkeypatch.setenv("DEEPHPC_CHECKPOINT_DIR", str(tmp_path))
    train(epochs=2, model="parts")
    assert train(epochs=6, model="parts")["loss"] == whole["loss"]


def test_a_signal_stops_training_after_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_report", lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    assert train(epochs=1000)["epochs"] == 1


def test_a_name_may_not_lead_out_of_its_folder() -> None:
    with pytest.raises(ValueError, match="is not inside"):
        train(epochs=1, model="../../elsewhere")


def test_deepaas_trains_and_predicts_from_the_command_line(tmp_path: Path) -> None:
    deepaas = [sys.executable, "-c", "import sys; from deepaas.cmd.cli import main; sys.exit(main())"]
    environment = {**os.environ, "DEEPAAS_V2_MODEL": "deepaas_digits"}
    for words in (["train", "--digits", "[1, 7]"], ["predict", "--image", str(SAMPLES / "seven.pgm")]):
        output = tmp_path / f"{words[0]}.json"
        command = [*deepaas, "--deepaas_method_output", str(output), *words]
        subprocess.run(command, env=environment, check=True, timeout=120)
    assert json.loads((tmp_path / "train.json").read_text())["result"]["output"]["accuracy"] > 0.95
    assert json.loads((tmp_path / "predict.json").read_text())[0]["digit"] == 7
