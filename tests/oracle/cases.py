"""What is asked of the modules of the oracle: all forms, all arguments, refusals, errors."""

import json

from tests.oracle.plain import Case

_LONG = "wort " * 30_000
_RATES = [(("rates", str(number / 4)), number / 4) for number in range(2000)]
_BODY, _FORM, _OWN, _CHAIN = "errors_in_the_body", "every_form", "own_fields", "errors_from_errors"
_TEXT = ("text", "ψ & ? = #")

GOOD = [
    Case(_BODY, files=[("image", "cell.png")]),
    Case(_BODY, files=[("zip_data", "cells.zip")]),
    Case(_BODY, [("how", "well")], [("image", "ü (1).png")]),
    Case(_FORM, [_TEXT], accept="application/json"),
    Case(_FORM, [_TEXT], accept="image/png"),
    Case(_FORM, [_TEXT], accept="application/pdf"),
    Case(_FORM, [_TEXT], accept="application/zip"),
    Case(_FORM, [_TEXT], accept="text/csv"),
    Case(_FORM, [_TEXT], accept="text/plain"),
    Case(_FORM, [_TEXT, ("megabytes", "5")], accept="video/mp4"),
    Case(_FORM, [_TEXT, ("megabytes", "5")], accept="application/json"),
    Case(_FORM, [_TEXT, ("boxes", "192")], accept="application/json"),
    Case(_FORM, [_TEXT, ("boxes", "0")], accept="application/json"),
    Case(_FORM, [_TEXT, ("day", "2026-11-30")], accept="application/json"),
    Case(_OWN),
    Case(_OWN, [("batch-size", "64"), ("strict", "no"), ("steps", "5")]),
    Case(_OWN, [("words", "a,b,ψ"), ("share", "20%"), ("start", "2026-01-02T03:04:05")]),
    Case(_OWN, [("rates", "1"), ("rates", "2.5"), ("layers", "[1, 2]"), ("epoch_count", "7")]),
    Case(_OWN, [("layers", '{"a": "b c"}'), ("site", "https://example.org/?a=b&c=d")]),
    Case(_OWN, [("words", "")]),
    Case(_CHAIN),
]
#: Longer than an address may be for a plain server: what it answers to a short text, ours answers to a long one.
LONG = {
    **{
        name: (Case(_FORM, [("text", text)], accept="text/plain"), text)
        for name, text in (
            ("9 kB", _LONG[:9_000]),
            ("100 kB", _LONG[:100_000]),
            ("3000 ψ", "ψ" * 3000),
            ("1 MB", "größe " * 150_000),
        )
    },
    "9 kB in the address alone": (
        Case(_FORM, [("text", "-"), ("more", _LONG[:9_000])], accept="text/plain"),
        _LONG[:9_000],
    ),
    "9 kB beside a file": (Case(_BODY, [("note", _LONG[:9_000])], [("image", "cell.png")]), _LONG[:9_000]),
    "2000 values": (Case(_OWN, [said for said, _ in _RATES]), json.dumps([value for _, value in _RATES])),
}
#: A plain server says 200, and in the body that it did not work.
IN_THE_BODY = [
    Case(_BODY),
    Case(_BODY, [("how", "status")]),
    Case(_BODY, [("how", "wrapped")]),
    Case(_BODY, [("how", "only")]),
    Case(_BODY, [("how", "list")]),
    Case(_BODY, files=[("image", "cell.png"), ("zip_data", "cells.zip")]),
]
REFUSED = [
    Case(_BODY, [("how", "nicely")]),
    Case(_FORM, [], accept="application/json"),
    Case(_FORM, [_TEXT, ("day", "tomorrow")], accept="application/json"),
    Case(_FORM, [_TEXT, ("boxes", "many")], accept="application/json"),
    Case(_OWN, [("batch-size", "0")]),
    Case(_OWN, [("share", "much")]),
    Case(_OWN, [("site", "nowhere")]),
    Case(_OWN, [("rates", "fast")]),
]
FAILED = [
    (Case(_CHAIN, [("how", "other")]), "the weights have 3 classes"),
    (Case(_CHAIN, [("how", "reason")]), "the weights have 3 classes"),
    (Case(_CHAIN, [("how", "from")]), "the prediction did not work (first cause: ValueError: the weights"),
    (Case(_CHAIN, [("how", "while")]), "KeyError: 'model' (first cause: ValueError: the weights"),
    (Case(_CHAIN, [("how", "hidden")]), "RuntimeError: say no more"),
]
#: The module needs a form; deephpc names it.
NOT_TOLD = [
    Case(_FORM, [_TEXT]),
    Case(_FORM, [_TEXT, ("boxes", "3")]),
    Case(_FORM, [("text", ""), ("day", "2026-11-30")]),
]
#: Modules without a choice of forms answer in JSON, whatever they are asked for.
ALWAYS_JSON = [
    Case(_OWN, accept="application/zip"),
    Case(_OWN, accept="image/*"),
    Case(_BODY, files=[("image", "cell.png")], accept="text/csv"),
]
#: A plain server never answers: its worker's exception cannot be unpickled. Ours says what the module said.
HANGS = [(Case(_CHAIN, [("how", "bad request")]), "the weights have 3 classes")]
#: Without a date: a plain server answers 500 to one, since it cannot be written as JSON; ours trains.
TRAININGS = [
    Case(_OWN),
    Case(_OWN, [("batch-size", "64"), ("words", "a,b"), ("share", "20%"), ("steps", "5")]),
    Case(_OWN, [("rates", "1"), ("rates", "2.5"), ("layers", "[1, 2]"), ("epoch_count", "7"), ("strict", "no")]),
    Case(_OWN, [("words", "-x --y"), ("site", "https://example.org/?a=b&c=d")]),
    Case("every_form", [("text", "ψ")], accept="application/json"),  # ours is not told the form
]
#: A plain server cannot train with a file, which is not sent to its worker; ours hands it over as in a prediction.
TRAININGS_WITH_FILES = [
    (Case(_BODY, files=[("zip_data", "cells.zip")]), {"input": "archive", "name": "cells.zip", "size": 4, "note": ""}),
    (
        Case(_BODY, [("note", "ψ")], [("image", "ü (1).png")]),
        {"input": "image", "name": "ü (1).png", "size": 7, "note": "ψ"},
    ),
]
