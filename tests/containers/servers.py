"""Registries for tests on loopback: Debian's docker-registry, and a front that counts, asks tokens, misbehaves."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.waiting import DEADLINE_S, wait_until

USER, PASSWORD = "reader", "s3cret:with-colon"
_BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
NEEDS = {"docker-registry": "docker-registry", "skopeo": "skopeo", "htpasswd": "apache2-utils", "umoci": "umoci"}


def need(*programs: str) -> None:
    """Skip a test that lacks programs, and say how to get them; fail where nothing may lack."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        how = f"missing {', '.join(missing)}: as root, apt-get install {' '.join(NEEDS[each] for each in missing)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(how)


def run_tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


@dataclass
class RealRegistry:
    """A running docker-registry."""

    port: int
    folder: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def push(self, layout: Path, name: str, *, credentials: str = "") -> None:
        """Copy the image of a layout here, all bytes as they are."""
        extra = [f"--dest-creds={credentials}"] if credentials else []
        run_tool(
            *("skopeo", "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false", *extra),
            *("--insecure-policy", f"oci:{layout}", f"docker://{self.host}/{name}"),
        )

    def blob_file(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self.folder / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def real_registry(folder: Path, *, basic: bool = False) -> Iterator[RealRegistry]:
    """Run docker-registry on loopback for the block."""
    need("docker-registry", "skopeo")
    folder.mkdir(parents=True)
    port = free_port()
    config = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {folder}}}}}",
        f"http: {{addr: '127.0.0.1:{port}'}}",
    ]
    if basic:
        need("htpasswd")
        users = folder.with_suffix(".htpasswd")
        users.write_text(run_tool("htpasswd", "-nbB", "-C", "4", USER, PASSWORD))
        config.append(f"auth: {{htpasswd: {{realm: test, path: {users}}}}}")
    file = folder.with_suffix(".yml")
    file.write_text("\n".join(config))
    with file.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None)
        assert process.poll() is None, file.with_suffix(".log").read_text()
        yield RealRegistry(port, folder)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Served:
    """One request as the front answered it."""

    path: str
    status: int
    headers: dict[str, str]
    sent: int = 0


#: Decides about one request: None passes it on; a function answers it.
Trick = Callable[["FrontHandler"], bool]


@dataclass
class Front:
    """A server before a registry: passes requests on, counts bytes, asks for tokens, plays tricks."""

    upstream: int
    token_auth: bool = False
    anonymous_tokens: bool = False
    tricks: list[Trick] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    limit: int | None = None
    """Cut every blob after so many bytes."""
    hold_at: int | None = None
    """Stop sending a blob after so many bytes, until `resume` is set."""
    resume: threading.Event = field(default_factory=threading.Event)
    token_requests: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def blob_bytes(self) -> int:
        return sum(each.sent for each in self.served if "/blobs/" in each.path)

    def blob_requests(self) -> list[Served]:
        return [each for each in self.served if "/blobs/" in each.path and each.status in (200, 206)]


class FrontHandler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    front: Front

    def do_GET(self) -> None:
        if any(trick(self) for trick in list(self.front.tricks)):
            return
        if self.path.startswith("/token"):
            self._give_token()
        else:
            self._serve()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer with a body."""
        self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self, status: int) -> Served:
        noted = Served(self.path, status, dict(self.headers.items()))
        with self.front.lock:
            self.front.served.append(noted)
        return noted

    def _give_token(self) -> None:
        said = self.headers.get("Authorization")
        with self.front.lock:
            self.front.token_requests.append(f"{self.path} {'with' if said else 'without'} credentials")
        if said == _BASIC or (self.front.anonymous_tokens and said is None):
            self.answer(200, json.dumps({"token": "the-token", "expires_in": 300}).encode())
        else:
            self.answer(401)

    def _serve(self) -> None:
        if self.front.token_auth and self.headers.get("Authorization") != "Bearer the-token":
            realm = f'Bearer realm="http://{self.front.host}/token",service="front",scope="repository:x:pull"'
            self.answer(401, b"{}", WWW_Authenticate=realm)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.front.upstream, timeout=DEADLINE_S)
        passed = {name: self.headers[name] for name in ("Accept", "Range", "Authorization") if name in self.headers}
        if self.front.token_auth:
            passed.pop("Authorization", None)
        upstream.request("GET", self.path, headers=passed)
        found = upstream.getresponse()
        noted = self._note(found.status)
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in ("date", "server", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self._copy(found, noted)
        upstream.close()

    def _copy(self, found: http.client.HTTPResponse, noted: Served) -> None:
        is_blob = "/blobs/" in self.path
        while chunk := found.read(4096):
            if is_blob and self.front.limit is not None and noted.sent + len(chunk) > self.front.limit:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if is_blob and self.front.hold_at is not None and noted.sent + len(chunk) > self.front.hold_at:
                self.wfile.flush()
                self.front.resume.wait()
            with self.front.lock:  # before they go: a client that has them all has seen them counted
                noted.sent += len(chunk)
            try:
                self.wfile.write(chunk)
            except OSError:
                self.close_connection = True
                with self.front.lock:
                    noted.sent -= len(chunk)
                return


@contextmanager
def front_of(upstream: int, **settings: Any) -> Iterator[Front]:
    """Run a front for the block."""
    front = Front(upstream, **settings)
    handler = type("Handler", (FrontHandler,), {"front": front})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    front.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield front
    finally:
        front.resume.set()
        server.shutdown()
        server.server_close()
