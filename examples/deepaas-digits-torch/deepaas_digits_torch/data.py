"""Reads images: tables of digits to learn from, and pictures to recognise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 8
"""Pixels of a digit's side."""
DEPTH = 16
"""The value of black ink in a table; paper is 0."""
CLASSES = 10


def load_labelled(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the images, shape (n, 1, 8, 8), ink between 0 and 1, and the digit each shows, shape (n,).

    They come from all tables (`*.csv`, `*.csv.gz`) in a folder and in those below, in the order of their names. A row
    has 64 pixels, then the digit: the form in which scikit-learn ships the UCI optical digits.
    """
    tables = sorted(path for path in _files(folder) if path.name.endswith((".csv", ".csv.gz")))
    if not tables:
        raise FileNotFoundError(f"there is no table of digits (*.csv, *.csv.gz) in {folder}")
    rows = [np.loadtxt(table, delimiter=",", ndmin=2) for table in tables]
    for table, found in zip(tables, rows, strict=True):
        if found.shape[1] != SIDE * SIDE + 1 or not np.isin(found[:, -1], range(CLASSES)).all():
            raise ValueError(f"{table}: {SIDE * SIDE} pixels and a digit from 0 to 9 are wanted in every row")
    whole = torch.from_numpy(np.concatenate(rows))
    return whole[:, :-1].float().reshape(-1, 1, SIDE, SIDE) / DEPTH, whole[:, -1].long()


def load_picture(path: Path) -> Tensor:
    """Return a picture of one digit, black on white, of any size and in any format Pillow reads, shape (1, 1, 8, 8)."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's, for what is broken in one way or another
        raise ValueError(f"this is no picture: {error}") from error
    return 1 - torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).reshape(1, 1, SIDE, SIDE)


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, also through links to folders: data that were brought for a job may be such."""
    return [Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names]
