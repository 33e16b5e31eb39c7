"""A module that tells its errors in the body of a good answer, and takes one of two optional inputs."""

from pathlib import Path

from webargs import fields, validate


def get_metadata():
    return {"name": "errors in the body", "version": "1"}


def get_predict_args():
    return {
        "image": fields.Field(
            required=False, metadata={"type": "file", "location": "form", "description": "A picture"}
        ),
        "archive": fields.Field(
            data_key="zip_data",
            required=False,
            metadata={"type": "file", "location": "form", "description": "A ZIP of pictures"},
        ),
        "how": fields.Str(load_default="well", validate=validate.OneOf(["well", "status", "wrapped", "only", "list"])),
        "note": fields.Str(load_default=""),
    }


get_train_args = get_predict_args


def predict(**args):
    if args["how"] == "only":
        return {"error": "the picture is too dark"}
    if args["how"] == "list":
        return {"status": "failed", "errors": ["the picture is too dark", "and too small"]}
    if args["how"] == "wrapped":
        return {"status": "error", "error": "the picture is too dark"}
    if args["how"] == "status":
        return {"status": "error", "message": "the picture is too dark"}
    given = [name for name in ("image", "archive") if args.get(name) is not None]
    if len(given) != 1:
        return {"status": "error", "message": "give either image or zip_data"}
    file = args[given[0]]
    found = {"input": given[0], "name": file.original_filename, "size": Path(file.filename).stat().st_size}
    return dict(found, note=args["note"])


train = predict
