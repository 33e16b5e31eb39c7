"""What is known of DEEPaaS and its modules, and of the servers that run them; `Client` is for users' own programs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deephpc.serve.client import Client as Client


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as a module's attributes are
    """Import the client when it is asked for: what runs on a node needs no HTTP client."""
    if name == "Client":
        from deephpc.serve.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
