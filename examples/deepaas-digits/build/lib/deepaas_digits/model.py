"""A network with one hidden layer, trained by plain gradient descent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ACTIVATIONS = ("relu", "tanh")
_BATCH = 32


@dataclass
class Model:
    """The parameters, and what is needed to go on training them."""

    classes: np.ndarray
    """The digits it tells apart, shape (classes,)."""
    activation: str
    seed: int
    hidden: np.ndarray
    """Shape (pixels + 1, units); the last row is the bias."""
    output: np.ndarray
    """Shape (units + 1, classes); the last row is the bias."""
    epoch: int = 0
    """Epochs trained so far."""

    @classmethod
    def fresh(cls, pixels: int, classes: np.ndarray, *, units: int, activation: str, seed: int) -> Model:
        """Return an untrained model; its weights follow from the seed alone."""
        random = np.random.default_rng(seed)
        hidden = random.normal(0, np.sqrt(2 / pixels), (pixels + 1, units))
        output = random.normal(0, np.sqrt(2 / units), (units + 1, len(classes)))
        return cls(classes, activation, seed, hidden, output)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, shape (n, classes)."""
        return _softmax(_with_bias(self._inner(images)) @ self.output)

    def train_epoch(self, images: np.ndarray, digits: np.ndarray, learning_rate: float) -> float:
        """Go through all images once, in an order that follows from seed and epoch, and return the mean loss."""
        wanted = np.searchsorted(self.classes, digits)
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(images))
        loss = 0.0
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            loss += self._step(images[chosen], wanted[chosen], learning_rate)
        self.epoch += 1
        return loss / len(images)

    def save(self, path: Path) -> None:
        """Write the model in one step: a reader sees the old one or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            np.savez(file, **vars(self))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model that `save` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            numbers = {name: int(kept[name]) for name in ("seed", "epoch")}
            arrays = {name: kept[name] for name in ("classes", "hidden", "output")}
            return cls(activation=str(kept["activation"]), **numbers, **arrays)

    def _step(self, images: np.ndarray, wanted: np.ndarray, learning_rate: float) -> float:
        """Go one step down the gradient and return the summed loss before it."""
        inner = self._inner(images)
        found = _softmax(_with_bias(inner) @ self.output)
        rows = np.arange(len(wanted))
        loss = float(-np.log(found[rows, wanted] + 1e-12).sum())
        found[rows, wanted] -= 1
        back = found @ self.output[:-1].T * (inner > 0 if self.activation == "relu" else 1 - inner**2)
        self.output -= learning_rate / len(wanted) * _with_bias(inner).T @ found
        self.hidden -= learning_rate / len(wanted) * _with_bias(images).T @ back
        return loss

    def _inner(self, images: np.ndarray) -> np.ndarray:
        sums = _with_bias(images) @ self.hidden
        return np.maximum(sums, 0) if self.activation == "relu" else np.tanh(sums)


def _with_bias(rows: np.ndarray) -> np.ndarray:
    return np.hstack([rows, np.ones((len(rows), 1))])


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
