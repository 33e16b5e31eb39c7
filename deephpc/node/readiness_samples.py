"""Makes up inputs for a server's first prediction, where its user gave none (pure)."""

import io
import math
import struct
import wave
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from deephpc.serve.argument_values import render_value
from deephpc.serve.module_description import Argument

_SIDE = 64
"""Pixels of a made-up image's side."""
_SOUND = ("audio", "sound", "speech", "voice", "wav", "music")
_GREY = ("pgm", "graymap", "greyscale", "grayscale")
_TEXT = ("csv", "text", "table", "json")


@dataclass(frozen=True)
class Sample:
    """Arguments of one prediction: plain values, and files by name and content."""

    values: dict[str, JsonValue] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asks_nothing: bool = False
    """Whether the module takes files, and was given none."""

    def __str__(self) -> str:
        files = [f"{name}={file}" for name, (file, _) in self.files.items()]
        values = [f"{name}={render_value(value)}" for name, value in self.values.items()]
        return " ".join([*files, *values]) or "no input"


def made_up_samples(arguments: Sequence[Argument]) -> Iterator[Sample]:
    """Yield inputs that might do, the likeliest first: required arguments alone, the others keep their defaults.

    A module that takes a file may understand an image, a sound or text: its own words decide what is tried first. Where
    no file is required they may exclude each other, so each is tried alone, and none at last.
    """
    required = [one for one in arguments if one.required]
    values = {one.name: _value(one) for one in required if one.type != "file"}
    files = [one for one in required if one.type == "file"]
    optional = [] if files else [one for one in arguments if one.type == "file"]
    for together in [files] if files else [[one] for one in optional]:
        for turn in range(len(_FILES)):
            chosen = [(one.name, _FILES[_kinds(one)[turn]]) for one in together]
            yield Sample(values, {name: (file, make()) for name, (file, make) in chosen})
    if not files:
        yield Sample(values, asks_nothing=bool(optional))


def _kinds(argument: Argument) -> list[str]:
    words = f"{argument.name} {argument.description}".lower()
    if any(word in words for word in _SOUND):
        return ["sound", "image", "grey image", "table"]
    if any(word in words for word in _GREY):
        return ["grey image", "image", "sound", "table"]
    if any(word in words for word in _TEXT) and "image" not in words:
        return ["table", "image", "grey image", "sound"]
    return ["image", "grey image", "sound", "table"]


def _value(argument: Argument) -> JsonValue:
    if argument.default is not None:
        return argument.default
    if argument.choices:
        return [argument.choices[0]] if argument.type == "list" else argument.choices[0]
    least: float = argument.min if argument.min is not None else 1.0
    made: Mapping[str, JsonValue] = {
        "int": math.ceil(least),
        "float": float(least),
        "bool": False,
        "list": [1] if argument.items in ("int", "float") else ["a"],
        "dict": {},
    }
    return made.get(argument.type, "a")


def _png() -> bytes:
    """Return a picture with some contrast, RGB. Source: PNG (third edition), 5 and 11.2."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x * 4 % 256, y * 4 % 256, (x ^ y) * 4 % 256)) for x in range(_SIDE))
        for y in range(_SIDE)
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _pgm() -> bytes:
    """Return a grey picture in the portable graymap format (pgm(5))."""
    return b"P5\n%d %d\n255\n" % (_SIDE, _SIDE) + bytes((x + y) * 2 % 256 for y in range(_SIDE) for x in range(_SIDE))


def _wav() -> bytes:
    """Return a second of 440 Hz, 16 kHz, mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        samples = (int(8000 * math.sin(2 * math.pi * 440 * n / 16000)) for n in range(16000))
        sound.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return file.getvalue()


def _csv() -> bytes:
    return b"a,b,c\n1,2,3\n"


_FILES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "image": ("sample.png", _png),
    "grey image": ("sample.pgm", _pgm),
    "sound": ("sample.wav", _wav),
    "table": ("sample.csv", _csv),
}
