"""Opens connections to a run's gateway: they trust its one certificate and carry its token."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from deephpc.errors import InputError
from deephpc.serve.endpoint import Endpoint, load_endpoint, load_token

_CONNECT_S = 10.0
_KEPT = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60.0)
"""The gateway keeps a quiet connection for 75 s; httpx would connect anew after 5."""


@dataclass(frozen=True)
class Address:
    """Where a gateway is reached from here, and what proves who is who; the token stays out of its text."""

    endpoint: Endpoint
    token: str
    host: str = ""
    """Where a tunnel begins; the node itself when empty."""
    port: int = 0

    def __repr__(self) -> str:
        return f"Address({self.url})"

    @property
    def url(self) -> str:
        """The gateway's URL, as seen from here."""
        return f"https://{self.host or self.endpoint.host}:{self.port or self.endpoint.port}"

    def through(self, port: int) -> "Address":
        """Return the address behind a tunnel that begins at a port of this machine."""
        return Address(self.endpoint, self.token, "localhost", port)


def load_address(run_folder: Path) -> Address:
    """Return where the server of a run is reached.

    Raises
    ------
    InputError
        The run has no server now.
    SiteError
        Its files are not safe, or not what this version reads.
    """
    endpoint, token = load_endpoint(run_folder), load_token(run_folder)
    if endpoint is None or token is None:
        raise InputError(f"{run_folder.name} has no server now", "`deephpc serve list` shows those that run")
    return Address(endpoint, token)


def pinned_context(certificate: str) -> ssl.SSLContext:
    """Return the TLS side of a client that trusts one certificate and nothing else in the world.

    Names are not compared: behind a tunnel the gateway is called localhost, and no other server has the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    return context


def open_session(address: Address, timeout_s: float) -> httpx.Client:
    """Return an HTTP client for the gateway; no proxy of the environment comes in between.

    Parameters
    ----------
    timeout_s
        How long the server may be silent.
    """
    return httpx.Client(
        base_url=address.url,
        verify=pinned_context(address.endpoint.certificate),
        headers={"Authorization": f"Bearer {address.token}"},
        timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
        limits=_KEPT,
        trust_env=False,
    )
