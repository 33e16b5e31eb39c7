"""A module whose arguments are its own: classes, JSON in strings, dashes, no defaults; it says what came."""

import json

import marshmallow
from webargs import fields, validate


class Words(fields.Field):
    """Words with commas between them."""

    def _deserialize(self, value, attr, data, **kwargs):
        if not isinstance(value, str):
            raise marshmallow.ValidationError("not a text")
        return value.split(",")


class Percent(fields.Float):
    """A number in hundredths."""

    def _deserialize(self, value, attr, data, **kwargs):
        return super()._deserialize(value.rstrip("%") if isinstance(value, str) else value, attr, data, **kwargs) / 100


def _arguments():
    return {
        "batch-size": fields.Int(load_default=16, validate=validate.Range(min=1)),
        "words": Words(),
        "share": Percent(load_default=0.5),
        "layers": fields.Str(load_default=json.dumps([64, 32]), metadata={"description": "JSON: units of each layer"}),
        "start": fields.DateTime(),
        "steps": fields.Int(),
        "rates": fields.List(fields.Float()),
        "renamed": fields.Int(data_key="epoch_count", load_default=3),
        "strict": fields.Bool(load_default=True),
        "site": fields.Url(),
    }


get_train_args = _arguments
get_predict_args = _arguments


def get_metadata():
    return {"name": "own fields"}


def _told(args):
    return {name: [type(value).__name__, json.loads(json.dumps(value, default=str))] for name, value in args.items()}


def train(**args):
    return _told(args)


def predict(**args):
    return _told(args)
