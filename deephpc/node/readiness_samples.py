"""Makes up inputs for a server's first prediction, where its user gave none (pure)."""

import io
import math
import re
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

from pydantic import JsonValue

from deephpc.serve.argument_values import render_value
from deephpc.serve.module_description import Argument

_SIDE = 64
"""Pixels of a made-up image's side."""
_SOUND = ("audio", "sound", "speech", "voice", "wav", "music")
_GREY = ("pgm", "graymap", "greyscale", "grayscale")
_TEXT = ("csv", "text", "table", "json")
_COMMON = ("png", "jpg", "jpeg", "bmp")
_CHANNELS = re.compile(r"(?<![\w.])([1-9]|1[0-6])[ -](?:channel|band)")
_File = tuple[str, Callable[[], bytes]]


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

    A module that takes a file may understand an image, a sound or text: its own words decide what is tried first, and
    whether archives, arrays and the like are tried at all. Where no file is required they may exclude each other, so
    each is tried alone, and none at last.
    """
    required = [one for one in arguments if one.required]
    values = {one.name: _value(one) for one in required if one.type != "file"}
    files = [one for one in required if one.type == "file"]
    optional = [] if files else [one for one in arguments if one.type == "file"]
    for together in [files] if files else [[one] for one in optional]:
        tries = [[(one.name, file, make) for file, make in _files(one)] for one in together]
        for turn in zip_longest(*tries):
            chosen = [each or own[-1] for each, own in zip(turn, tries, strict=True)]
            yield Sample(values, {name: (file, make()) for name, file, make in chosen})
    if not files:
        yield Sample(values, asks_nothing=bool(optional))


def _files(argument: Argument) -> list[_File]:
    """Return what may be a file of an argument: what its words name comes first, unless they name an image as well."""
    words = f"{argument.name} {argument.description}".lower()
    likely = [_FILES[kind] for kind in _kinds(words)]
    named = [
        each
        for name, pick in _NAMED.items()
        if re.search(rf"(?<![a-z])(?:{name})(?![a-z])", words)
        for each in pick(words)
    ]
    if any(word in words for word in _COMMON) and "zip" not in words:
        return [*likely, *named]
    return [*named, *likely]


def _kinds(words: str) -> list[str]:
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


def _json() -> bytes:
    return b'{"a": 1}\n'


def _tiff() -> bytes:
    """Return a picture with some contrast, RGB, in one strip. Source: TIFF 6.0, sections 2 and 6."""
    pixels = bytes(value * 4 % 256 for y in range(_SIDE) for x in range(_SIDE) for value in (x, y, x ^ y))
    short, long, at = 3, 4, 8 + 2 + 9 * 12 + 4
    tags = (  # tag, type, count, value or where it stands
        *((256, short, 1, _SIDE), (257, short, 1, _SIDE), (258, short, 3, at), (259, short, 1, 1), (262, short, 1, 2)),
        *((273, long, 1, at + 6), (277, short, 1, 3), (278, short, 1, _SIDE), (279, long, 1, len(pixels))),
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return head + struct.pack("<IHHH", 0, 8, 8, 8) + pixels


def _npy(*shape: int) -> bytes:
    """Return an array of 32 bit numbers from 0 to 1. Source: NEP 1, format version 1.0 (numpy.lib.format)."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(10 + len(head) + 1) % 64) + "\n"
    numbers = struct.pack(f"<{math.prod(shape)}f", *(n % 97 / 96 for n in range(math.prod(shape))))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + numbers


def _zip(name: str, make: Callable[[], bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), make())  # of 1980, not of now
    return file.getvalue()


def _arrays(words: str) -> list[_File]:
    """Return a picture, rows first and as many channels as words tell, as modules for segmentation read; one digit.

    28 by 28 grey pixels are the data that demonstrations are made with, whose models take several at once.
    """
    found = _CHANNELS.search(words)
    channels = int(found[1]) if found else 3
    return [("sample.npy", partial(_npy, _SIDE, _SIDE, channels)), ("digit.npy", partial(_npy, 1, 28, 28))]


def _archived_arrays(words: str) -> list[_File]:
    """Return arrays as `numpy.savez` keeps them, under the name it gives to one without."""
    return [(f"{file[:-1]}z", partial(_zip, "arr_0.npy", make)) for file, make in _arrays(words)]


_FILES: Mapping[str, _File] = {
    "image": ("sample.png", _png),
    "grey image": ("sample.pgm", _pgm),
    "sound": ("sample.wav", _wav),
    "table": ("sample.csv", _csv),
}
#: What is tried only where an argument's words name it (regular expressions), since hardly any other module reads it.
_NAMED: Mapping[str, Callable[[str], list[_File]]] = {
    "zip|zipped": lambda words: [("sample.zip", partial(_zip, *_FILES[_kinds(words)[0]]))],
    "npz": _archived_arrays,
    r"npy|numpy|np\.arrays?|ndarrays?": _arrays,
    "(?:geo)?tiffs?|tif": lambda _words: [("sample.tif", _tiff)],
    "json": lambda _words: [("sample.json", _json)],
}
