"""Runs shell scripts on a machine reached by SSH as the user's own ssh reaches it; local processes start in `shell.py`.

What banners and start-up files print is told apart from the script's own output by a mark.
"""

import contextlib
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import fabric
import paramiko
from paramiko.config import SSHConfig

from deephpc.errors import InputError, SiteError
from deephpc.shell import run

_CONNECT_S = 20.0
_SSH_PORT = 22
_KEEPALIVE_S = 15
_CHUNK = 1 << 16
_MOST_NOISE = 1 << 20

Emit = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How ssh would reach a machine: what `ssh -G` says of it."""

    host: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    """Files of private keys, whether they exist or not."""
    uses_agent: bool = True
    known_hosts: tuple[str, ...] = ()
    """Files of host keys."""
    known_as: str = ""
    """The name its key stands under, where that is another (HostKeyAlias)."""
    trusts_unknown: bool = False
    jump: str = ""
    """Machines on the way, as ProxyJump has them."""
    proxy_command: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a script ended."""

    code: int
    greeting: str
    """What it said with the mark."""


@dataclass(slots=True)
class MarkedStream:
    """Passes on what comes behind a line that begins with the mark; that line's rest is the greeting."""

    mark: bytes
    emit: Emit
    is_open: bool = False
    greeting: str = ""
    noise: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        if self.is_open:
            self.emit(data)
            return
        self.noise += data
        begin = self.noise.find(self.mark)
        end = self.noise.find(b"\n", begin) if begin >= 0 else -1
        if end < 0:
            if begin < 0:
                del self.noise[:-_MOST_NOISE]
            return
        self.greeting = self.noise[begin + len(self.mark) : end].decode("utf-8", "replace").strip()
        rest = bytes(self.noise[end + 1 :])
        self.is_open = True
        self.noise.clear()
        if rest:
            self.emit(rest)


class RemoteShell:
    """A machine reached by SSH, and a login shell on it.

    Parameters
    ----------
    destination
        `user@host` or a name of the user's ssh configuration.
    config
        Another ssh configuration than the user's.

    Raises
    ------
    InputError
        It is no such word.
    """

    def __init__(self, destination: str, config: Path | None = None) -> None:
        check_destination(destination)
        self.destination = destination
        self._config = config
        self._connection: Any = None

    def __enter__(self) -> "RemoteShell":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what runs through it is told to end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, script: str, out: Emit, err: Emit, *, prepare: str = ":", silence_s: float | None = None) -> Finished:
        """Run a script in a login bash, and pass on what it writes as it comes.

        Parameters
        ----------
        script
            One line of bash. Its standard input ends when the connection does.
        prepare
            One line of bash before the mark, whose output is dropped; it may set `greeting`.
        silence_s
            How long nothing may come before the connection counts as lost; None for ever.

        Raises
        ------
        SiteError
            The machine cannot be reached, its key is not the known one, it refuses us, or the connection breaks.
        """
        mark = f"deephpc-{secrets.token_hex(16)}"
        channel = self._open_channel()
        channel.settimeout(silence_s)
        try:
            channel.exec_command(render_command(script, mark, prepare))
            streams = MarkedStream(mark.encode(), out), MarkedStream(mark.encode(), err)
            _carry(channel, *streams)
            channel.status_event.wait(_CONNECT_S)
            code = channel.recv_exit_status() if channel.exit_status_ready() else -1
        except (paramiko.SSHException, OSError) as error:
            self.close()  # a network that has gone says nothing: the next script gets a connection of its own
            raise self._lost(str(error) or "nothing comes any more") from error
        finally:
            channel.close()
        if code < 0:
            raise self._lost("no exit status came")
        if not streams[0].is_open:
            said = (
                bytes(streams[1].noise or streams[0].noise).decode("utf-8", "replace").strip() or "nothing"
            ).splitlines()
            raise SiteError(
                f"the shell of {self.destination} ends before any command (exit {code}; it said: {said[-1]})",
                f"does `ssh {self.destination} bash -lc true` work? mend its start-up files",
            )
        return Finished(code, streams[0].greeting)

    def _open_channel(self) -> Any:  # noqa: ANN401 - paramiko's
        with _as_site_errors(self.destination):
            if self._connection is not None and not self._connection.is_connected:
                self.close()
            if self._connection is None:
                self._connection = _connect(self.destination, self._config)
            return self._connection.transport.open_session(timeout=_CONNECT_S)

    def _lost(self, reason: object) -> SiteError:
        told = f"the connection to {self.destination} broke off: {reason}"
        return SiteError(told, "try again", transient=True)


def check_destination(text: str) -> None:
    """Refuse what ssh would take for an option, or for several machines.

    Raises
    ------
    InputError
        It is no `user@host`.
    """
    if not text or text.startswith("-") or any(one.isspace() or not one.isprintable() or one in ",:/" for one in text):
        raise InputError(f"{text!r} is no machine for ssh", "write user@host; a port belongs into ~/.ssh/config")


def render_command(script: str, mark: str, prepare: str = ":") -> str:
    """Return the words for the far login shell, whichever it is: single quotes mean the same in all of them (pure).

    Parameters
    ----------
    script, prepare
        One line each, for csh ends a quoted word at the end of a line.
    """
    begin = f"printf '%s %s\\n' {mark} \"${{greeting-}}\"; printf '%s\\n' {mark} >&2"
    return f"exec bash -lc {shlex.quote(f'{prepare}; {begin}; {script}')}"


def parse_ssh_settings(text: str) -> SshSettings:
    """Read what `ssh -G` prints (pure). Source: ssh(1), ssh_config(5) of OpenSSH 9.2."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        said.setdefault(name.lower(), []).append(value.strip())

    def one(name: str) -> str:
        value = said.get(name, [""])[0]
        return "" if value == "none" else value

    return SshSettings(
        host=one("hostname"),
        port=int(one("port") or _SSH_PORT),
        user=one("user"),
        keys=tuple(said.get("identityfile", ())),
        uses_agent=said.get("identityagent", [""])[0] != "none" and one("identitiesonly") != "yes",
        known_hosts=(*one("userknownhostsfile").split(), *one("globalknownhostsfile").split()),
        known_as=one("hostkeyalias"),
        trusts_unknown=one("stricthostkeychecking") in ("no", "off", "false"),
        jump=one("proxyjump"),
        proxy_command=one("proxycommand"),
    )


def _connect(destination: str, config: Path | None) -> Any:  # noqa: ANN401 - Fabric has no types
    """Return an open connection, by way of the machines that ssh's configuration puts in between."""
    asked = run(["ssh", *(("-F", str(config)) if config else ()), "-G", "--", destination], timeout_s=_CONNECT_S)
    if not asked.ok:
        raise InputError(f"ssh does not know how to reach {destination}: {asked.last_words()}", "see ~/.ssh/config")
    settings = parse_ssh_settings(asked.stdout)
    gateway: Any = settings.proxy_command or None
    for hop in settings.jump.split(",") if settings.jump else ():
        gateway = _connect(f"ssh://{hop}" if ":" in hop else hop, config)
    connection = fabric.Connection(
        settings.host,
        user=settings.user,
        port=settings.port,
        gateway=gateway,
        config=fabric.Config(ssh_config=SSHConfig()),  # ssh itself has read the files: with Include and Match
        connect_timeout=int(_CONNECT_S),
        connect_kwargs={
            "key_filename": [str(path) for path in map(_expanded, settings.keys) if path.exists()],
            "allow_agent": settings.uses_agent,
            "look_for_keys": False,
        },
    )
    _trust_known_hosts(connection.client, settings)
    connection.open()
    connection.transport.set_keepalive(_KEEPALIVE_S)
    return connection


def _trust_known_hosts(client: paramiko.SSHClient, settings: SshSettings) -> None:
    """Have the client refuse machines as ssh would; Fabric's own habit is to take any key of an unknown one."""
    known = paramiko.HostKeys()
    for name in settings.known_hosts:
        with contextlib.suppress(OSError):
            known.load(str(_expanded(name)))
    place = settings.host if settings.port == _SSH_PORT else f"[{settings.host}]:{settings.port}"
    for kind, key in (known.lookup(settings.known_as or place) or {}).items():
        client.get_host_keys().add(place, kind, key)
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy() if settings.trusts_unknown else paramiko.RejectPolicy())


@contextlib.contextmanager
def _as_site_errors(destination: str) -> Iterator[None]:
    """Turn what may go wrong on the way to a machine into one line and what to do."""
    works = f"`ssh {destination}` must work without asking anything"
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise SiteError(
            f"{destination} has another key than your known_hosts says ({error.key.get_name()})",
            f"refused: somebody may listen in; if the site changed it, `ssh-keygen -R {error.hostname}`",
        ) from error
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            raise SiteError(
                f"{destination} is not in your known_hosts", f"`ssh {destination}` once, and compare its key"
            ) from error
        if isinstance(error, paramiko.AuthenticationException) or "authentication methods" in str(error):
            hint = f"{works}: is your key there, or in ssh-agent?"
            raise SiteError(f"{destination} refuses you: {error}", hint) from error
        raise SiteError(f"{destination} cannot be reached: {error}", works, transient=True) from error
    except (OSError, EOFError) as error:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SiteError(f"{destination} cannot be reached: {told}", works, transient=True) from error


def _carry(channel: Any, out: MarkedStream, err: MarkedStream) -> None:  # noqa: ANN401 - paramiko's
    """Pass on both streams until they end."""

    def carry_errors() -> None:
        with contextlib.suppress(OSError):  # the other stream tells
            while data := channel.recv_stderr(_CHUNK):
                err.feed(data)

    errors = threading.Thread(target=carry_errors, daemon=True)
    errors.start()
    while data := channel.recv(_CHUNK):
        out.feed(data)
    errors.join()


def _expanded(path: str) -> Path:
    return Path(path.strip('"')).expanduser()
