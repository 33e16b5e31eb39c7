"""The base of every value that crosses a border: frozen, strict about unknown keys."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value; unknown keys are refused. The docstring under a field is for readers of the code."""

    model_config = ConfigDict(extra="forbid", frozen=True)
