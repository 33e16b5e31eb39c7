"""Reads images: the digits to learn from, and those to recognise (PGM or CSV)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np

SIDE = 8
"""Pixels of a digit's side."""
DEPTH = 16
"""The value of black ink in the learning set; paper is 0."""
_PGM = re.compile(rb"P([25])\s(?:\s*#.*\n)*\s*(\d+)\s+(\d+)\s+(\d+)\s")


def load_labelled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, shape (n, 64), ink between 0 and 1, and the digit each shows, shape (n,).

    The file is a table of numbers (CSV, gzip or not): 64 pixels, then the digit, as scikit-learn ships it. Where `path`
    does not exist, an installed scikit-learn's own copy is read.
    """
    source = path if path.exists() else _installed_copy(path)
    table = np.loadtxt(source, delimiter=",", ndmin=2)
    if table.shape[1] != SIDE * SIDE + 1:
        raise ValueError(f"{source}: {SIDE * SIDE} pixels and a digit in every row, not {table.shape[1]} columns")
    return table[:, :-1] / DEPTH, table[:, -1].astype(int)


def load_images(path: Path) -> np.ndarray:
    """Return the images in a file, shape (n, 64), ink between 0 and 1.

    A PGM file holds one image, black on white, of any size from 8 x 8; all else is read as CSV, an image in each row.
    """
    content = path.read_bytes()
    if content.startswith((b"P2", b"P5")):
        return _shrink(parse_pgm(content)).reshape(1, -1)
    try:
        rows = np.array([[float(cell) for cell in line.split(",")] for line in content.decode().split()])
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError("the file is neither a PGM image nor a CSV table of numbers") from error
    if rows.ndim != 2 or rows.shape[1] != SIDE * SIDE:
        raise ValueError(f"every row of the CSV file must have {SIDE * SIDE} pixels, not {rows.shape[-1]}")
    return rows / DEPTH


def parse_pgm(content: bytes) -> np.ndarray:
    """Return the ink of an image in the portable graymap format (pgm(5)), shape (rows, columns), between 0 and 1."""
    header = _PGM.match(content)
    if not header:
        raise ValueError("the header of the PGM image cannot be read")
    kind, columns, rows, white = map(int, header.groups())
    body = content[header.end() :]
    if kind == 2:
        pixels = np.array(body.split()[: rows * columns], dtype=float)
    else:
        pixels = np.frombuffer(body, dtype=np.uint8 if white < 256 else ">u2", count=-1)[: rows * columns].astype(float)
    if pixels.size != rows * columns or not white:
        raise ValueError(f"the PGM image ends after {pixels.size} of its {rows * columns} pixels")
    return 1 - pixels.reshape(rows, columns) / white


def render_pgm(ink: np.ndarray) -> bytes:
    """Return one image, shape (64,), as an ASCII portable graymap."""
    pixels = np.rint((1 - ink.reshape(SIDE, SIDE)) * 255).astype(int)
    rows = "\n".join(" ".join(f"{pixel:3d}" for pixel in row) for row in pixels)
    return f"P2\n{SIDE} {SIDE}\n255\n{rows}\n".encode()


def _shrink(image: np.ndarray) -> np.ndarray:
    """Return an image of 8 x 8: each pixel the mean of those it covers."""
    if min(image.shape) < SIDE:
        raise ValueError(f"an image of {image.shape[1]} x {image.shape[0]} pixels is smaller than {SIDE} x {SIDE}")
    for axis, length in enumerate(image.shape):
        edges = np.arange(SIDE + 1) * length // SIDE
        sums = np.add.reduceat(image, edges[:-1], axis=axis)
        image = sums / np.expand_dims(np.diff(edges), 1 - axis)
    return image


def _installed_copy(path: Path) -> Path:
    """Return scikit-learn's copy of the digits, without importing it (that takes a second)."""
    found = importlib.util.find_spec("sklearn")
    for folder in found.submodule_search_locations or () if found else ():
        copy = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.name == copy.name and copy.exists():
            return copy
    raise FileNotFoundError(f"there is no {path}: put it there, or install scikit-learn, which brings digits.csv.gz")
