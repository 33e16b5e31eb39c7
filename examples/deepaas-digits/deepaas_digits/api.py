"""What DEEPaaS calls. All of these functions must exist: `deepaas-cli` fails for modules that lack one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
from webargs import fields, validate

from deepaas_digits.data import load_images, load_labelled, render_pgm
from deepaas_digits.model import ACTIVATIONS, Model

JSON = "application/json"
CSV = "text/csv"
PGM = "image/x-portable-graymap"

_HOME = Path(__file__).resolve().parent.parent


def get_metadata() -> dict[str, str]:
    """Return what the installed package says of itself."""
    about = metadata("deepaas-digits")
    return {"name": about["Name"], "version": about["Version"], "description": about["Summary"]}


def warm() -> None:
    """Get ready for the first request; this model loads in no time."""


def get_train_args() -> dict[str, fields.Field]:
    """Return the arguments of `train`; each has a default, which `deepaas-cli` needs."""
    return {
        "data": fields.Str(
            load_default="digits.csv.gz", metadata={"description": "Table of digits in the data folder"}
        ),
        "epochs": fields.Int(
            load_default=15, validate=validate.Range(min=1), metadata={"description": "Passes over the data"}
        ),
        "learning_rate": fields.Float(load_default=0.2, metadata={"description": "Length of each step"}),
        "units": fields.Int(
            load_default=32, validate=validate.Range(min=1, max=4096), metadata={"description": "Hidden units"}
        ),
        "activation": fields.Str(
            load_default="relu",
            validate=validate.OneOf(ACTIVATIONS),
            metadata={"description": "What a hidden unit does with its sum", "enum": list(ACTIVATIONS)},
        ),
        "digits": fields.List(
            fields.Int(), load_default=list(range(10)), metadata={"description": "Which digits to tell apart"}
        ),
        "augment": fields.Bool(
            load_default=False, metadata={"description": "Learn from shifted copies of the images as well"}
        ),
        "seed": fields.Int(load_default=1, metadata={"description": "The same seed gives the same model"}),
        "model": fields.Str(load_default="model", metadata={"description": "Name to keep the model under"}),
    }


def train(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 -- whatever the fields above give
    """Train, or go on from the checkpoint of an interrupted run, and keep the model."""
    images, digits = load_labelled(_inside(_folder("DATA_DIR", "data"), arguments["data"]))
    classes = np.unique(arguments["digits"])
    images, digits = images[np.isin(digits, classes)], digits[np.isin(digits, classes)]
    kept = np.arange(len(images)) % 5 == 0  # every fifth image is for testing
    learnt, answers = _with_shifted(images[~kept], digits[~kept], augment=arguments["augment"])
    print(f"deepaas-digits: {len(learnt)} images to learn from, {kept.sum()} to test with", file=sys.stderr, flush=True)
    checkpoint = _checkpoint()
    if checkpoint and checkpoint.exists():
        model = Model.load(checkpoint)
        print(f"deepaas-digits: going on after epoch {model.epoch}", file=sys.stderr, flush=True)
    else:
        chosen = {name: arguments[name] for name in ("units", "activation", "seed")}
        model = Model.fresh(images.shape[1], classes, **chosen)
    loss = None
    with _told_to_stop() as stop:
        while model.epoch < arguments["epochs"] and not stop.is_set():
            loss = round(model.train_epoch(learnt, answers, arguments["learning_rate"]), 6)  # BLAS differ beyond
            accuracy = _accuracy(model, images[kept], digits[kept])
            print(
                f"epoch {model.epoch}: η = {arguments['learning_rate']:g}, ℓ = {loss:.4f}, ✓ {accuracy:.4f}", flush=True
            )
            _report({"epoch": model.epoch, "loss": loss, "accuracy": accuracy, "time": time.time()})
            if checkpoint:
                model.save(checkpoint)
    path = _model_path(arguments["model"])
    model.save(path)
    accuracy = _accuracy(model, images[kept], digits[kept])
    return {"model": str(path), "epochs": model.epoch, "loss": loss, "accuracy": accuracy, "seed": model.seed}


def get_predict_args() -> dict[str, fields.Field]:
    """Return the arguments of `predict`."""
    return {
        "image": fields.Field(
            required=True,
            metadata={
                "description": "A PGM image, black on white, or a CSV file with an image in each row",
                "type": "file",
                "location": "form",
            },
        ),
        "model": fields.Str(load_default="model", metadata={"description": "Name of the model"}),
        "top": fields.Int(
            load_default=1, validate=validate.Range(min=1, max=10), metadata={"description": "Likeliest digits to name"}
        ),
        "accept": fields.Str(
            load_default=JSON,
            validate=validate.OneOf([JSON, CSV, PGM]),
            metadata={"description": "Form of the answer; a graymap shows what the model sees", "location": "headers"},
        ),
    }


def predict(**arguments: Any) -> list[dict[str, Any]] | io.BytesIO | io.BufferedReader:  # noqa: ANN401 -- as above
    """Return the likeliest digits of each image with their probabilities, in the form asked for."""
    path = _model_path(arguments["model"])
    if not path.exists():
        raise FileNotFoundError(f"there is no model {arguments['model']!r} in {path.parent}: train one first")
    model = Model.load(path)
    images = load_images(Path(arguments["image"].filename))
    if arguments["accept"] == PGM:
        return _as_file(render_pgm(images[0]))
    found = [_likeliest(model.classes, row, arguments["top"]) for row in model.probabilities(images)]
    print(f"deepaas-digits: {len(found)} read → {' '.join(str(each[0]['digit']) for each in found)}", flush=True)
    if arguments["accept"] == CSV:
        lines = [f"{place},{one['digit']},{one['probability']}\n" for place, each in enumerate(found) for one in each]
        return io.BytesIO("".join(["image,digit,probability\n", *lines]).encode())
    return [{**each[0], "likeliest": each} for each in found]


def _likeliest(classes: np.ndarray, row: np.ndarray, count: int) -> list[dict[str, Any]]:
    best = np.argsort(-row, kind="stable")[:count]
    return [{"digit": int(classes[place]), "probability": round(float(row[place]), 6)} for place in best]


def _as_file(content: bytes) -> io.BufferedReader:
    """Return an open file: DEEPaaS sends it; whoever runs the server removes its TMPDIR."""
    handle, name = tempfile.mkstemp(suffix=".pgm")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return Path(name).open("rb")


def _with_shifted(images: np.ndarray, digits: np.ndarray, *, augment: bool) -> tuple[np.ndarray, np.ndarray]:
    if not augment:
        return images, digits
    square = images.reshape(len(images), 8, 8)
    moved = [np.roll(square, step, axis=axis).reshape(images.shape) for axis in (1, 2) for step in (-1, 1)]
    return np.concatenate([images, *moved]), np.tile(digits, 5)


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or _HOME / name)


def _model_path(name: str) -> Path:
    return _inside(_folder("MODELS_DIR", "models"), f"{name}.npz")


def _inside(folder: Path, name: str) -> Path:
    """Return a file in a folder; names come from strangers and may not lead out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} is not inside {folder}")
    return path


def _checkpoint() -> Path | None:
    """Return where an interrupted batch job finds its checkpoint; None outside of one."""
    folder = os.environ.get("DEEPHPC_CHECKPOINT_DIR")
    return Path(folder) / "checkpoint.npz" if folder else None


def _accuracy(model: Model, images: np.ndarray, digits: np.ndarray) -> float:
    best = model.classes[model.probabilities(images).argmax(axis=1)]
    return round(float((best == digits).mean()), 6)


def _report(point: dict[str, Any]) -> None:
    """Append a line to the metrics of a batch job."""
    file = os.environ.get("DEEPHPC_METRICS")
    if file:
        with Path(file).open("a", encoding="utf-8") as metrics:
            metrics.write(json.dumps(point) + "\n")


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Yield what SIGUSR1 sets: a batch job gets it shortly before its time is up."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGUSR1, before)
