"""A module whose errors are raised from errors, in a way that fails itself with today's aiohttp."""

from aiohttp.web import HTTPBadRequest, HTTPException
from webargs import fields

_BOOM = "the weights have 3 classes, and the labels 5"


def get_metadata():
    return {"name": "errors from errors"}


def get_predict_args():
    return {"how": fields.Str(load_default="well")}


get_train_args = get_predict_args


def _fail(how):
    try:
        raise ValueError(_BOOM)  # noqa: TRY301
    except ValueError as error:
        if how == "reason":
            raise HTTPException(reason=error) from error
        if how == "bad request":
            raise HTTPBadRequest(reason=str(error)) from error
        if how == "from":
            raise RuntimeError("the prediction did not work") from error
        if how == "while":
            {}["model"]
        if how == "hidden":
            raise RuntimeError("say no more") from None
        raise


def predict(how):
    if how != "well":
        _fail(how)
    return {"how": how}


train = predict
