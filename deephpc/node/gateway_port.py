"""Binds the gateway's port: above the ports the kernel hands out, where no client's own port can be in the way."""

import contextlib
import errno
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from deephpc.errors import SiteError

ANYWHERE = "0.0.0.0"  # noqa: S104 - the token guards it
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 61000
_HIGHEST = 65535
_TRIES = 64


def bind_port(address: str = ANYWHERE, chance: random.Random | None = None) -> socket.socket:
    """Return a socket bound to a free port of an address; several tries, for other users bind there too.

    Raises
    ------
    SiteError
        None of the ports that were tried is free.
    """
    first = _first_port()
    candidates = (chance or random.SystemRandom()).sample(range(first, _HIGHEST + 1), min(_TRIES, _HIGHEST + 1 - first))
    for port in candidates:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            bound.bind((address, port))  # without SO_REUSEADDR: one that somebody else binds as well is refused
            return bound
        except OSError as error:
            bound.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise SiteError(f"cannot bind {address}: {error.strerror}", "is it an address of this node?") from error
    raise SiteError(f"{len(candidates)} ports from {first} on are all in use", "try another node", transient=True)


def choose_own_port() -> int:
    """Return a port of loopback that is free now, for the server behind the gateway.

    Raises
    ------
    SiteError
        None of the ports that were tried is free.
    """
    with bind_port("127.0.0.1") as bound:
        port: int = bound.getsockname()[1]
    return port


def listening_user(port: int) -> int | None:
    """Return the user who listens on a port of loopback, or of all addresses; None when nobody does.

    Between our choosing a port and the server's binding it anybody may take it, and would be sent what is ours.
    Source: proc_net(5) /proc/net/tcp: local address in hexadecimal, state 0A is LISTEN, then the user.
    """
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[1].endswith(f":{port:04X}") and row[3] == "0A":
                return int(row[7])
    return None


def listening_ports(pids: Iterable[int]) -> tuple[int, ...]:
    """Return the TCP ports on which some processes listen.

    Source: proc_net(5), as above, the tenth field is the inode; proc_pid_fd(5), a socket is `socket:[INODE]`.
    """
    inodes: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
            inodes |= {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    ports: set[int] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    return tuple(sorted(ports))


def _first_port() -> int:
    """Return the first port above the ephemeral range. Source: ip(7), ip_local_port_range."""
    try:
        highest = int(_EPHEMERAL.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return _LOWEST
    return highest + 1 if _LOWEST <= highest < _HIGHEST - _TRIES else _LOWEST
