"""A module that must be told the form of its answer, in the query; it has every form, and large answers."""

import io
import zipfile

from webargs import fields, validate

FORMS = [
    "application/json",
    "image/png",
    "application/pdf",
    "application/zip",
    "text/csv",
    "video/mp4",
    "text/plain",
]


def get_metadata():
    return {"name": "every form"}


def get_predict_args():
    return {
        "accept": fields.Str(required=True, validate=validate.OneOf(list(FORMS)), metadata={"location": "query"}),
        "text": fields.Str(required=True),
        "megabytes": fields.Int(load_default=0),
        "boxes": fields.Int(load_default=-1),
        "day": fields.Date(required=False),
        "more": fields.Str(load_default="", metadata={"location": "query"}),
    }


def get_train_args():
    forms = validate.OneOf(FORMS[:3])
    return {
        "accept": fields.Str(required=True, validate=forms, metadata={"location": "query"}),
        "text": fields.Str(load_default="-"),
    }


def train(accept, text):
    if accept == "application/json":
        return {"accept": accept, "text": text}
    return io.BytesIO(b"%PDF-1.7\n" + text.encode())


def predict(accept, text, megabytes, boxes, more, day=None):
    if accept == "application/json" or accept == "*/*":
        if boxes >= 0:
            return [{"label": "cell", "probability": 0.5, "box": [1, 2, 3, number]} for number in range(boxes)]
        told = {"text": text, "length": len(text), "padding": "x" * (megabytes << 20)}
        return dict(told, day=str(day), kind=type(day).__name__) if day else told
    if accept == "image/png":
        return io.BytesIO(b"\x89PNG\r\n\x1a\n" + text.encode()).getvalue()
    if accept == "application/pdf":
        return b"%PDF-1.7\n" + text.encode()
    if accept == "video/mp4":
        return b"\0\0\0\x18ftypmp42" + text.encode() + b"v" * (megabytes << 20)
    if accept == "application/zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(zipfile.ZipInfo("answer.txt"), text)
        return packed.getvalue()
    return f"text\n{text}{more}\n".encode()
