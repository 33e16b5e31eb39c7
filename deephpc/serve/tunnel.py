"""Brings a server of a compute node to a port of this machine: directly where the node is reached, else through ssh."""

import random
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deephpc.errors import InputError, SiteError
from deephpc.serve.connection import Address
from deephpc.serve.endpoint import AUTHORIZATION, CERTIFICATE, Endpoint
from deephpc.serve.relay import Relay

_CONNECT_S = 5.0
_OPENS_S = 30.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HELD_WELL_S = 60.0
_POLL_S = 0.05
_LOOK_S = 0.5


class Running(Protocol):
    """A process that was started, as `shell.start_child` returns it."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def terminate(self) -> None:
        """End it, if it has not ended by itself."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        ...

    def last_words(self) -> str:
        """Return the last line of its messages."""
        ...


Start = Callable[[Sequence[str]], Running]
"""Starts ssh, which ends when we do."""


@dataclass(frozen=True)
class Way:
    """How a server is reached from here: through these hosts, one behind the other; directly when there are none."""

    hops: tuple[str, ...] = ()

    def describe(self, endpoint: Endpoint) -> str:
        """Return it in words."""
        return f"ssh to {', then '.join(self.hops)}" if self.hops else f"{endpoint.host} itself"


def plan_ways(endpoint: Endpoint, login: str | None = None) -> tuple[Way, ...]:
    """Return the ways worth trying, the cheapest first.

    Parameters
    ----------
    login
        `user@login` where this is a laptop; None on the cluster's own login node, which reaches its nodes or may ssh to
        those that run a job of its user (pam_slurm_adopt).
    """
    if login is None:
        return (Way(), Way((endpoint.host,)))
    user, at, _ = login.rpartition("@")
    return (Way((login,)), Way((login, f"{user}{at}{endpoint.host}")))


def ssh_argv(endpoint: Endpoint, hops: Sequence[str], local_port: int, config: Path | None = None) -> list[str]:
    """Return the ssh that forwards a local port to a gateway.

    It asks nothing (BatchMode), shares no connection with others, which would outlive it, ends when it cannot forward,
    and notices a dead peer within a minute. The last hop connects to the gateway; when that is the compute node itself,
    on its loopback. Source: ssh(1), ssh_config(5) of OpenSSH 9.2.

    Parameters
    ----------
    hops
        Hosts as ssh knows them; at least one.
    config
        Another ssh configuration than the user's.
    """
    *jumps, last = (_checked(hop) for hop in hops)
    target = "127.0.0.1" if last.rpartition("@")[2] == endpoint.host else _bracketed(endpoint.host)
    options = [
        *("BatchMode=yes", "ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes"),
        *("ServerAliveInterval=15", "ServerAliveCountMax=3", "ConnectTimeout=15", "PermitLocalCommand=no"),
        *("RequestTTY=no", "LogLevel=ERROR"),
    ]
    return [
        *("ssh", "-N", "-T"),
        *(("-F", str(config)) if config else ()),
        *(word for option in options for word in ("-o", option)),
        *(("-J", ",".join(jumps)) if jumps else ()),
        *("-L", f"127.0.0.1:{local_port}:{target}:{endpoint.port}"),
        *("--", last),
    ]


def choose_port(asked: int | None = None) -> int:
    """Return a free local port: the one that is asked for, or one the kernel picks.

    Raises
    ------
    InputError
        The one that is asked for is taken, or may not be bound.
    """
    with closing(socket.socket()) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections that ended a moment ago are no hindrance
        try:
            probe.bind(("127.0.0.1", asked or 0))
        except OSError as error:
            raise InputError(f"port {asked} cannot be used: {error.strerror}", "leave --port out") from error
        port: int = probe.getsockname()[1]
        return port


def is_reached(host: str, port: int, timeout_s: float = _CONNECT_S) -> bool:
    """Whether something accepts connections there; who it is, the certificate proves later."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


class Tunnel:
    """One way to a server, kept open: an ssh that ends is started again, with growing pauses.

    Parameters
    ----------
    ways
        Ways to try, in this order.
    port
        Where it begins on this machine. Without one, a node that is reached directly needs no tunnel at all, and ssh
        gets a free port.
    tell
        Takes a line about what happens.
    """

    def __init__(
        self,
        address: Address,
        ways: Sequence[Way],
        start: Start,
        *,
        port: int | None = None,
        config: Path | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._address = address
        self._ways = tuple(ways)
        self._start = start
        self._port = choose_port(port) if port else None
        self._config = config
        self._tell = tell or _say_nothing
        self._way = Way()
        self._ssh: Running | None = None
        self._relay: Relay | None = None

    @property
    def way(self) -> Way:
        """The way that works, or was tried last."""
        return self._way

    def open(self) -> Address:
        """Find a way that works and return where the server is reached now.

        Raises
        ------
        SiteError
            None works.
        """
        endpoint = self._address.endpoint
        reasons = []
        for way in self._ways:
            self._way = way
            trouble = self._connect() if way.hops else self._go_directly()
            if not trouble:
                return self._address.through(self._port) if self._port else self._address
            reasons.append(f"{way.describe(endpoint)}: {trouble}")
            self._tell(f"no way by {reasons[-1]}")
        raise SiteError(
            f"{endpoint.host}:{endpoint.port} cannot be reached (tried {'; '.join(reasons)})",
            "is the node there (`deephpc jobs`)? from your own machine: `deephpc --host user@login tunnel …`",
        )

    def hold(self, stop: Callable[[], bool], sleep: Callable[[float], None] = time.sleep) -> None:
        """Keep the tunnel open until `stop` says so: when ssh ends it is started again."""
        pause = _FIRST_PAUSE_S
        since = time.monotonic()
        while not stop():
            if self._ssh is None or self._ssh.poll() is None:
                sleep(_LOOK_S)
                continue
            pause = _FIRST_PAUSE_S if time.monotonic() - since > _HELD_WELL_S else min(2 * pause, _LONGEST_PAUSE_S)
            self._tell(f"the connection is lost ({_told(self._ssh)}); trying again")
            sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            since = time.monotonic()
            if not self._connect():
                self._tell("connected again")

    def close(self) -> None:
        """End what keeps it open."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        if self._ssh is not None:
            self._ssh.terminate()
            self._ssh.wait(10)

    def _go_directly(self) -> str:
        """Return nothing once the node is reached without ssh, or why it is not."""
        endpoint = self._address.endpoint
        if not is_reached(endpoint.host, endpoint.port):
            return "it does not answer"
        if self._port is not None:
            self._relay = Relay(self._port, endpoint.host, endpoint.port)
        return ""

    def _connect(self) -> str:
        """Start ssh and wait until its port is open; return nothing, or why it did not work."""
        self.close()
        self._port = self._port or choose_port()
        argv = ssh_argv(self._address.endpoint, self._way.hops, self._port, self._config)
        self._ssh = self._start(argv)
        deadline = time.monotonic() + _OPENS_S
        while self._ssh.poll() is None and time.monotonic() < deadline:
            if is_reached("127.0.0.1", self._port, 1.0):
                return ""
            time.sleep(_POLL_S)
        trouble = _told(self._ssh) if self._ssh.poll() is not None else f"not open after {_OPENS_S:g} s"
        self.close()
        return trouble


@dataclass(frozen=True)
class Lines:
    """What a user may copy; the token is in none of them."""

    url: str
    curl: str
    python: str


def render_lines(address: Address, run_folder: Path) -> Lines:
    """Return the URL, and lines for curl and Python.

    Parameters
    ----------
    run_folder
        Where certificate and token lie: the run's, or a copy of those.
    """
    certificate, header = run_folder / CERTIFICATE, run_folder / AUTHORIZATION
    path = "/v2/models/" if address.endpoint.kind == "deepaas" else "/"
    curl = ["curl", "--cacert", str(certificate), "-H", f"@{header}", f"{address.url}{path}"]
    opened = f"Client.of_run({str(run_folder)!r}, port={address.port or None})"
    return Lines(address.url, shlex.join(curl), f"from deephpc.serve import Client; client = {opened}")


def render_laptop_line(endpoint: Endpoint, login: str, port: int, way: Way = Way()) -> str:
    """Return the plain ssh line for a laptop: a port there, by way of the login node.

    Parameters
    ----------
    way
        What works from the login node; a node it reaches by ssh alone is a hop for the laptop too.
    """
    words = ["ssh", "-N"]
    if way.hops:
        user, at, _ = login.rpartition("@")
        words += ["-J", login, "-L", f"{port}:127.0.0.1:{endpoint.port}", f"{user}{at}{endpoint.host}"]
    else:
        words += ["-L", f"{port}:{_bracketed(endpoint.host)}:{endpoint.port}", login]
    return shlex.join(words)


def _told(ssh: Running) -> str:
    return ssh.last_words() or f"ssh ended with {ssh.poll()}"


def _say_nothing(_line: str) -> None:
    pass


def _checked(hop: str) -> str:
    if not hop or hop.startswith("-") or any(character.isspace() or character == "," for character in hop):
        raise InputError(f"{hop!r} is no host for ssh", "write it as user@host")
    return hop


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
