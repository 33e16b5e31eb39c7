"""Bringing and sending data, against `rclone copy` from and to the same servers on this machine."""

import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from bench.row import Row, pairs_ms
from deephpc.data.obscure import obscure
from deephpc.node.gateway_port import bind_port
from tests.data import servers
from tests.data.servers import PASSWORD, USER, clean_environment

ROUNDS = 3
FILES = int(os.environ.get("BENCH_FILES", "2000"))
LARGE_BYTES = int(os.environ.get("BENCH_LARGE_BYTES", "500_000_000"))
_MIB = 1 << 20
_SETS = {"small": f"{FILES} files of 1 to 8 kB", "large": f"a file of {LARGE_BYTES // 1_000_000} MB"}
_PEER = "rclone copy"
_BAR = "≤ 1"
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_Options = dict[str, str]


@dataclass
class _Desk:
    """A user with the remote `there`, and a folder of their own."""

    folder: Path
    environ: Mapping[str, str]
    places: Iterator[int] = field(default_factory=count)

    def ours(self, *words: str) -> None:
        """Say `deephpc data …`, with nothing known of earlier transfers."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self._run(sys.executable, "-m", "deephpc", "--quiet", "data", *words)

    def rclone(self, *words: str) -> None:
        """Say `rclone copy …`."""
        self._run("rclone", "copy", *words)

    def new_place(self) -> str:
        """Return a name that nothing has yet."""
        return f"place{next(self.places)}"

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, env=dict(self.environ), cwd=self.folder, stdout=subprocess.DEVNULL)


def measure() -> list[Row]:
    """Time both ways over each protocol."""
    missing = [name for name in ("rclone", "sshd") if not shutil.which(name, path=_PATH)]
    if missing:
        print(f"no {' and no '.join(missing)}: data are not measured; apt-get install rclone openssh-server")
        return []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        _write_sets(folder / "sets")
        return [row for kind in _SERVERS for row in _of_server(kind, folder)]


def _of_server(kind: str, folder: Path) -> Iterator[Row]:
    place = folder / kind
    (place / "home").mkdir(parents=True)
    with _SERVERS[kind](place) as (top, options):
        said = {f"RCLONE_CONFIG_THERE_{key.upper()}": value for key, value in options.items()}
        around = {"DEEPHPC_CACHE_DIR": str(place / "cache"), "DEEPHPC_STATE_DIR": str(place / "state"), **said}
        around |= {"RCLONE_CONFIG": os.devnull, "DEEPHPC_SITE": "local"}
        desk = _Desk(place, clean_environment(place / "home", **around))
        if kind == "HTTP":
            shutil.copytree(folder / "sets", place / "root", dirs_exist_ok=True)
        for name, what in _SETS.items():
            source = f"there:{top}{name}/"  # a web server may know a folder only with its slash
            if kind != "HTTP":
                desk.rclone(str(folder / "sets" / name), source)
                yield _put(desk, f"{what} sent over {kind}", str(folder / "sets" / name), f"there:{top}")
            yield _get(desk, f"{what} brought over {kind}", source)
    shutil.rmtree(place)


def _put(desk: _Desk, what: str, source: str, top: str) -> Row:
    def send(command: Callable[..., None], *words: str) -> Callable[[], None]:
        return lambda: command(*words, source, top + desk.new_place())

    return Row(what, *_in_turn(send(desk.ours, "put"), send(desk.rclone)))


def _get(desk: _Desk, what: str, source: str) -> Row:
    def bring(command: Callable[..., None], *words: str) -> Callable[[], None]:
        def work() -> None:
            shutil.rmtree(desk.folder / "back", ignore_errors=True)
            command(*words, source, "back")

        return work

    return Row(what, *_in_turn(bring(desk.ours, "get"), bring(desk.rclone)))


def _in_turn(ours: Callable[[], None], peer: Callable[[], None]) -> tuple[float, str, float, str]:
    mine, theirs = pairs_ms(ours, peer, ROUNDS)
    return mine, _PEER, theirs, _BAR


def _write_sets(folder: Path) -> None:
    rng = random.Random(1)
    for number in range(FILES):
        path = folder / "small" / str(number // 100) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(1000, 8000)))
    (folder / "large").mkdir()
    with (folder / "large" / "file").open("wb") as file:
        for at in range(0, LARGE_BYTES, _MIB):
            file.write(rng.randbytes(min(_MIB, LARGE_BYTES - at)))


# --- the servers: rclone's own where it has one, OpenSSH's, and moto for S3 -----------------------------------------


@contextmanager
def _webdav(place: Path) -> Iterator[tuple[str, _Options]]:
    words = ["rclone", "serve", "webdav", "--user", USER, "--pass", PASSWORD]
    with _rclone_serving(words, place) as port:
        url = f"http://127.0.0.1:{port}/"
        yield "", {"type": "webdav", "url": url, "user": USER, "pass": obscure(PASSWORD)}


@contextmanager
def _http(place: Path) -> Iterator[tuple[str, _Options]]:
    with _rclone_serving(["rclone", "serve", "http"], place) as port:
        yield "", {"type": "http", "url": f"http://127.0.0.1:{port}/"}


@contextmanager
def _s3(place: Path) -> Iterator[tuple[str, _Options]]:
    with servers.s3(place) as port:
        endpoint = f"http://127.0.0.1:{port}"
        httpx.put(f"{endpoint}/bucket", trust_env=False).raise_for_status()
        keys = {"access_key_id": "key", "secret_access_key": PASSWORD, "provider": "Other"}
        yield "bucket/", {"type": "s3", "endpoint": endpoint, **keys}


@contextmanager
def _sftp(place: Path) -> Iterator[tuple[str, _Options]]:
    """Run OpenSSH's server as whoever runs this; it takes a key of theirs."""
    (place / "root").mkdir()
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    port = _free_port()
    settings = [
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {place}/host", "PidFile none", "StrictModes no"),
        *(f"AuthorizedKeysFile {place}/mine.pub", "UsePAM no", "Subsystem sftp internal-sftp"),
    ]
    (place / "sshd.conf").write_text("\n".join(settings) + "\n")
    sshd = shutil.which("sshd", path=_PATH) or "sshd"
    Path("/run/sshd").mkdir(exist_ok=True)
    known = place / "known_hosts"
    key = " ".join((place / "host.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{port} {key}\n")
    with _running([sshd, "-D", "-f", str(place / "sshd.conf")], port):
        login = {"host": "127.0.0.1", "port": str(port), "user": getpass.getuser(), "key_file": str(place / "mine")}
        told = {"known_hosts_file": str(known), "disable_hashcheck": "true"}  # else a shell on the server for each file
        yield f"{place}/root/", {"type": "sftp", **login, **told}


_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[tuple[str, _Options]]]] = {
    "WebDAV": _webdav,
    "S3": _s3,
    "SFTP": _sftp,
    "HTTP": _http,
}


@contextmanager
def _rclone_serving(words: list[str], place: Path) -> Iterator[int]:
    (place / "root").mkdir()
    port = _free_port()
    with _running([*words, "--addr", f"127.0.0.1:{port}", str(place / "root")], port):
        yield port


@contextmanager
def _running(words: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words[0]} does not listen")
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
