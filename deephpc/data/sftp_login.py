"""Logs in to an SSH server as the user's own ssh would, and refuses hosts it does not know."""

import logging
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

from deephpc.account import account_name
from deephpc.data.storage import Interrupted, Refused
from deephpc.data.surroundings import Surroundings
from deephpc.errors import InputError
from deephpc.retries import Patience

_PORT = 22
_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to log in to, and as whom."""

    alias: str
    host: str
    port: int
    user: str
    password: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    key_files: tuple[str, ...] = ()
    known_hosts: Path = Path("/nonexistent")
    jump: "Login | None" = None
    """The host on the way to it."""

    @classmethod
    def of(cls, settings: Mapping[str, str], around: Surroundings) -> "Login":
        """Return the login that settings and the user's ssh configuration make together; the settings win."""
        said = _ssh_config(settings["host"], around.home)
        keys = settings.get("key_file", "")
        known = settings.get("known_hosts", "") or said.get("userknownhostsfile", "").split(" ")[0]
        jump = said.get("proxyjump", "none")
        if said.get("proxycommand", "none") != "none":
            raise InputError(
                f"ssh reaches {settings['host']} by a ProxyCommand, which is not run here",
                "use ProxyJump in ~/.ssh/config",
            )
        return cls(
            alias=settings["host"],
            host=said.get("hostname", settings["host"]),
            port=int(settings.get("port") or said.get("port") or _PORT),
            user=settings.get("user") or said.get("user") or account_name(),
            password=settings.get("password", ""),
            passphrase=settings.get("key_passphrase", ""),
            key_files=_key_files(keys, said, around.home),
            known_hosts=Path(_expand(known, around.home)) if known else around.home / ".ssh" / "known_hosts",
            jump=None if jump == "none" else cls.of(_jump_settings(jump), around),
        )


def connect(login: Login, shown: str, patience: Patience) -> paramiko.SSHClient:
    """Log in.

    Raises
    ------
    Refused
        The host is unknown or has another key, or it refuses the credentials.
    Interrupted
        It cannot be reached.
    """
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what breaks is told by our errors, not on stderr
    client = paramiko.SSHClient()
    if login.known_hosts.is_file():
        client.load_host_keys(str(login.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        with _translated(login, shown):
            _open(client, login, shown, patience)
    except BaseException:
        client.close()
        raise
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(30)
    return client


def _open(client: paramiko.SSHClient, login: Login, shown: str, patience: Patience) -> None:
    client.connect(
        login.host,
        login.port,
        login.user,
        password=login.password or None,
        passphrase=login.passphrase or None,
        key_filename=list(login.key_files) or None,  # type: ignore[arg-type] # a list is documented
        timeout=patience.connect_s,
        banner_timeout=patience.connect_s,
        auth_timeout=patience.stall_s,
        allow_agent=not login.password,
        look_for_keys=not login.password and not login.key_files,
        sock=_through(login, shown, patience),
        transport_factory=_transport,  # type: ignore[arg-type] # its stub asks for what paramiko never passes
    )


def _transport(
    sock: socket.socket, disabled_algorithms: Mapping[str, Iterable[str]] | None = None
) -> paramiko.Transport:
    """Return a transport that prefers ciphers with a MAC of their own; others' are computed in Python.

    They save a quarter of the CPU time; paramiko 5.1 knows them, but asks for them last.
    """
    transport = paramiko.Transport(sock, disabled_algorithms=disabled_algorithms)
    offered = transport.get_security_options()
    offered.ciphers = (*_GCM, *(each for each in offered.ciphers if each not in _GCM))
    return transport


@contextmanager
def _translated(login: Login, shown: str) -> Iterator[None]:
    """Turn paramiko's errors into ours."""
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise Refused(f"{shown}: {login.host} has another host key than you know", "ask its administrators") from error
    except paramiko.AuthenticationException as error:
        hint = f"try `sftp {login.user}@{login.alias}`; then check the remote's password or key"
        raise Refused(f"{shown}: the server refuses the credentials of {login.user}", hint) from error
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            hint = f"log in once by `ssh {login.user}@{login.alias}` and check the key it shows"
            raise Refused(f"{shown}: the host key of {login.host} is not known here", hint) from error
        raise Interrupted(f"{shown}: no SSH connection ({' '.join(str(error).split())})") from error
    except (OSError, EOFError) as error:
        raise Interrupted(f"{shown}: cannot connect ({error})", "check the address and the network") from error


def _ssh_config(alias: str, home: Path) -> Mapping[str, Any]:
    """Return what ~/.ssh/config and the machine's say of a host."""
    config = paramiko.SSHConfig()
    for path in (home / ".ssh" / "config", Path("/etc/ssh/ssh_config")):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                config.parse(file)
        except OSError:
            continue
        except paramiko.ConfigParseError as error:
            raise InputError(
                f"{path} is not read: {error}", "mend it; ssh -G HOST shows what ssh makes of it"
            ) from error
    return config.lookup(alias)


def _key_files(written: str, said: Mapping[str, Any], home: Path) -> tuple[str, ...]:
    """Return the keys to try; of the configured ones those that exist."""
    if written:
        return (_expand(written, home),)
    found = (_expand(each, home) for each in said.get("identityfile", ()))
    return tuple(each for each in found if Path(each).is_file())


def _jump_settings(text: str) -> dict[str, str]:
    """Read `[user@]host[:port]`."""
    match = re.fullmatch(r"(?:(?P<user>[^@,]+)@)?(?P<host>[^@:,]+)(?::(?P<port>\d+))?", text)
    if match is None:
        raise InputError(f"ProxyJump {text!r} is not one host", "name one host in ~/.ssh/config")
    return {key: value for key, value in match.groupdict().items() if value}


def _through(login: Login, shown: str, patience: Patience) -> paramiko.Channel | None:
    """Open the way through the host between; None where there is none."""
    if login.jump is None:
        return None
    transport = connect(login.jump, shown, patience).get_transport()
    if transport is None:
        raise Interrupted(f"{shown}: {login.jump.alias} hung up")
    return transport.open_channel("direct-tcpip", (login.host, login.port), ("", 0), timeout=patience.connect_s)


def _expand(path: str, home: Path) -> str:
    return f"{home}{path[1:]}" if path.startswith("~/") else path
