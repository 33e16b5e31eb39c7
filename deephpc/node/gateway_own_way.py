"""The gateway as a client of itself: the first prediction takes the way that all others will take, and warms it."""

import ssl

import aiohttp
from yarl import URL

from deephpc.node.gateway_certificate import Certificate
from deephpc.node.gateway_port import ANYWHERE
from deephpc.node.gateway_proxy import EARLY

NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""The deadline of readiness is the only one: a first prediction may take minutes."""


def open_own_way(
    certificate: Certificate, token: str, early_key: str, address: str, port: int
) -> aiohttp.ClientSession:
    """Return connections to the gateway's own port, with its token and the word that lets one in before it is ready.

    Parameters
    ----------
    address
        Where the gateway listens.
    """
    context = ssl.create_default_context(cadata=certificate.pem)
    context.check_hostname = False  # no other server has the key
    host = "127.0.0.1" if address == ANYWHERE else address
    return aiohttp.ClientSession(
        URL.build(scheme="https", host=host, port=port),
        connector=aiohttp.TCPConnector(ssl=context),
        headers={"Authorization": f"Bearer {token}", EARLY: early_key},
        timeout=NO_TIMEOUT,
    )
