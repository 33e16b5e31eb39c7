"""What DEEPaaS calls. All of these functions must exist: `deepaas-cli` fails for modules that lack one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from webargs import fields, validate

from deepaas_digits_torch.data import SIDE, load_labelled, load_picture
from deepaas_digits_torch.ranks import Ranks, find_ranks
from deepaas_digits_torch.training import Training, load_network

JSON = "application/json"
_HOME = Path(__file__).resolve().parent.parent


def get_metadata() -> dict[str, str]:
    """Return what the installed package says of itself."""
    about = metadata("deepaas-digits-torch")
    return {"name": about["Name"], "version": about["Version"], "description": about["Summary"]}


def warm() -> None:
    """Load the model and use it once, so that the first request waits for neither."""
    if (path := _model_path("model")).exists():
        _read(_network(path, path.stat().st_mtime_ns), torch.zeros(1, 1, SIDE, SIDE))


def get_train_args() -> dict[str, fields.Field]:
    """Return the arguments of `train`; each has a default, which `deepaas-cli` needs."""
    return {
        "epochs": fields.Int(
            load_default=10, validate=validate.Range(min=1), metadata={"description": "Passes over the data"}
        ),
        "batch_size": fields.Int(
            load_default=64, validate=validate.Range(min=1), metadata={"description": "Images in one step of all ranks"}
        ),
        "learning_rate": fields.Float(load_default=0.005, metadata={"description": "Adam's learning rate"}),
        "hidden": fields.Int(
            load_default=64, validate=validate.Range(min=1, max=4096), metadata={"description": "Hidden units"}
        ),
        "seed": fields.Int(
            load_default=1,
            validate=validate.Range(min=0),
            metadata={"description": "First weights, and order of images"},
        ),
        "model": fields.Str(load_default="model", metadata={"description": "Name to keep the model under"}),
    }


def train(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 -- whatever the fields above give
    """Train, alone or with the other ranks of a job, and keep the model; an interrupted job goes on where it was."""
    path = _model_path(arguments["model"])
    images, digits = load_labelled(_folder("DATA_DIR", "data"))
    kept = torch.arange(len(digits)) % 5 == 0  # every fifth image is for testing
    ranks = find_ranks()
    _say(ranks, f"{(~kept).sum()} images to learn from, {kept.sum()} to test with, {ranks.size} ranks")
    checkpoint = _checkpoint()
    chosen = {name: arguments[name] for name in ("hidden", "learning_rate", "seed")}
    training = Training(ranks, checkpoint=checkpoint, **chosen)
    loss = None
    with _told_to_stop() as stop:
        # all ranks stop after the same epoch: one alone would leave the others waiting
        while training.epoch < arguments["epochs"] and not ranks.mean(stop.is_set()):
            loss = training.train_epoch(images[~kept], digits[~kept], arguments["batch_size"])
            _report(training, loss, training.accuracy(images[kept], digits[kept]))
            if checkpoint:
                training.save(checkpoint)
    training.save(path)
    accuracy = training.accuracy(images[kept], digits[kept])
    ranks.leave()
    return {
        "model": str(path),
        "epochs": training.epoch,
        "loss": loss and round(loss, 4),
        "accuracy": round(accuracy, 4),
        "ranks": ranks.size,
    }


def get_predict_args() -> dict[str, fields.Field]:
    """Return the arguments of `predict`."""
    return {
        "image": fields.Field(
            required=True,
            metadata={
                "description": "A picture of one digit, black on white: PNG, PGM, JPEG, ...",
                "type": "file",
                "location": "form",
            },
        ),
        "model": fields.Str(load_default="model", metadata={"description": "Name of the model"}),
        "accept": fields.Str(
            load_default=JSON,
            validate=validate.OneOf([JSON]),
            metadata={"description": "Form of the answer", "location": "headers"},
        ),
    }


def predict(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 -- as above
    """Return the likeliest digit and the probabilities of all ten."""
    path = _model_path(arguments["model"])
    if not path.exists():
        raise FileNotFoundError(f"there is no model {arguments['model']!r} in {path.parent}: train one first")
    picture = load_picture(Path(arguments["image"].filename))
    found = _read(_network(path, path.stat().st_mtime_ns), picture)
    return {"digit": max(range(len(found)), key=found.__getitem__), "probabilities": [round(each, 4) for each in found]}


@functools.lru_cache(maxsize=4)
def _network(path: Path, _changed_ns: int) -> nn.Module:
    """Return a model, read once until its file changes."""
    return load_network(path)


@torch.inference_mode()
def _read(network: nn.Module, picture: torch.Tensor) -> list[float]:
    return network(picture)[0].softmax(dim=0).tolist()


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or _HOME / name)


def _model_path(name: str) -> Path:
    """Return where a model lies; names come from strangers and may not lead out of the folder."""
    folder = _folder("MODELS_DIR", "models").resolve()
    path = (folder / f"{name}.pt").resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{name!r} is not inside {folder}")
    return path


def _checkpoint() -> Path | None:
    """Return where an interrupted batch job finds its checkpoint; None outside of one."""
    folder = os.environ.get("DEEPHPC_CHECKPOINT_DIR")
    return Path(folder) / "checkpoint.pt" if folder else None


def _say(ranks: Ranks, line: str) -> None:
    if ranks.rank == 0:
        print(line, flush=True)


def _report(training: Training, loss: float, accuracy: float) -> None:
    """Print an epoch's line, and append it to the metrics of a batch job; one rank speaks for all."""
    if training.ranks.rank:
        return
    print(f"epoch {training.epoch:2d}   loss {loss:.4f}   test accuracy {accuracy:.4f}", flush=True)
    if file := os.environ.get("DEEPHPC_METRICS"):
        point = {"time": time.time(), "epoch": training.epoch, "loss": loss, "test_accuracy": accuracy}
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
