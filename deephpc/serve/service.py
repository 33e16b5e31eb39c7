"""What a run serves: the decisions of the login node that the gateway on the compute node follows."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from deephpc.errors import InputError
from deephpc.model import Model
from deephpc.serve.endpoint import ServiceKind

SERVICE = "service.json"


class Service(Model):
    """One server, as it was asked for: part of its request, and `service.json` in its run folder."""

    schema_name: Literal["deephpc.service/1"] = Field(
        "deephpc.service/1", serialization_alias="schema", validation_alias="schema"
    )
    kind: ServiceKind = "deepaas"
    model: str | None = None
    """The DEEPaaS module that must be served; None takes whichever it is, but never DEEPaaS's own test model."""
    sample: tuple[tuple[str, str], ...] = ()
    """Arguments of the first prediction, by name; of a file argument, the file's path, which may count from the run
    folder."""
    predicts_first: bool = True
    """Whether the server counts as ready only once a prediction has succeeded."""
    ready_within_s: float = Field(900.0, gt=0)
    """How long it may take to get ready before it counts as failed."""
    idle_stop_s: float | None = Field(None, gt=0)
    """After how long without a request the server ends; None for never."""
    port_variable: str | None = Field(None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """Variable that tells the server which port of loopback is its own; None for one that listens on a socket."""
    largest_upload_bytes: int = Field(16 << 30, gt=0)


def render_service(service: Service) -> str:
    """Return the text of `service.json`."""
    return service.model_dump_json(by_alias=True, indent=1) + "\n"


def load_service(run_folder: Path) -> Service:
    """Read what a run serves.

    Raises
    ------
    InputError
        The file is missing or not what this version reads.
    """
    path = run_folder / SERVICE
    try:
        return Service.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"cannot read {path}: {error}", "start the server anew") from error
