"""Real servers on loopback: WebDAV, S3, SFTP in processes of their own; a web server with moods for tests; a relay."""

import contextlib
import ipaddress
import os
import re
import selectors
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.fakes.waiting import wait_until

USER, PASSWORD = "alice", "sesam öffne 'dich"

_WEBDAV = """
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp
address, root, user, password = sys.argv[1:]
app = WsgiDAVApp({
    "provider_mapping": {"/": root}, "verbose": 0, "logging": {"enable_loggers": []}, "lock_storage": None,
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}}, "dir_browser": {"enable": False},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
})
server = wsgi.Server((address, 0), app, numthreads=12)
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
"""
_S3 = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server, WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
server = make_server(sys.argv[1], 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
_SFTP = """
import asyncio, os, sys
import asyncssh
address, root, user, password, key = sys.argv[1:]
class Server(asyncssh.SSHServer):
    def begin_auth(self, name): return True
    def password_auth_supported(self): return True
    def validate_password(self, name, word): return (name, word) == (user, password)
class Files(asyncssh.SFTPServer):
    def __init__(self, chan): super().__init__(chan, chroot=root)
async def main():
    server = await asyncssh.create_server(Server, address, 0, server_host_keys=[key], sftp_factory=Files)
    print(server.get_port(), flush=True)
    await server.wait_closed()
asyncio.run(main())
"""


@contextmanager
def process_of(code: str, *arguments: str, folder: Path, at: Sequence[str] = ()) -> Iterator[int]:
    """Run a server until the block ends; it prints its port first.

    Parameters
    ----------
    at
        Words that start it elsewhere than on this machine's loopback, where it listens on all addresses.
    """
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*at, sys.executable, "-c", code, "0.0.0.0" if at else "127.0.0.1", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
        )
        try:
            line = process.stdout.readline()
            assert line, (folder / "server.log").read_text()
            yield int(line)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@contextmanager
def webdav(root: Path, folder: Path, at: Sequence[str] = ()) -> Iterator[int]:
    with process_of(_WEBDAV, str(root), USER, PASSWORD, folder=folder, at=at) as port:
        yield port


@contextmanager
def s3(folder: Path, at: Sequence[str] = ()) -> Iterator[int]:
    with process_of(_S3, folder=folder, at=at) as port:
        yield port


_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {folder}/root; location / {{ {rules} }} }}
}}
"""
_APACHE = """
Listen 127.0.0.1:{port}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dav_module /usr/lib/apache2/modules/mod_dav.so
LoadModule dav_fs_module /usr/lib/apache2/modules/mod_dav_fs.so
DavLockDB {folder}/lock
DocumentRoot {folder}/root
<Directory {folder}/root>
Dav On
{rules}
</Directory>
"""
_PACKAGES = ("nginx", "apache2")
_SITES = "/usr/sbin:/usr/local/sbin"


@contextmanager
def nginx(folder: Path, rules: str) -> Iterator[int]:
    """Run nginx over `folder/root`, with rules for all of it."""
    words = ("nginx", "-p", folder, "-c", folder / "config", "-e", folder / "log")
    with _configured(folder, _NGINX, rules, words) as port:
        yield port


@contextmanager
def apache(folder: Path, rules: str) -> Iterator[int]:
    """Run Apache's mod_dav over `folder/root`, with rules for all of it."""
    # it refuses to be root
    ordinary = ("unshare", "-U", "--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ()
    with _configured(folder, _APACHE, rules, (*ordinary, "apache2", "-X", "-f", folder / "config")) as port:
        yield port


@contextmanager
def _configured(folder: Path, config: str, rules: str, words: Sequence[str | Path]) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("root", "body"):
        (folder / name).mkdir(parents=True)
    (folder / "config").write_text(config.format(folder=folder, port=port, rules=rules))
    environ = {**os.environ, "PATH": f"{os.environ['PATH']}:{_SITES}"}
    program = next(str(word) for word in words if word in _PACKAGES)
    if shutil.which(program, path=environ["PATH"]) is None:
        how = f"missing {program}: as root, apt-get install {program}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(how)
    with (folder / "out").open("wb") as out, subprocess.Popen(words, stdout=out, stderr=out, env=environ) as process:
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "out").read_text() + (folder / "log").read_text()
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def sftp(root: Path, folder: Path) -> Iterator[tuple[int, str]]:
    """Yield the port, and the line of known_hosts without the host."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "host_key")
    with process_of(_SFTP, str(root), USER, PASSWORD, str(folder / "host_key"), folder=folder) as port:
        yield port, key.export_public_key().decode().strip()


@dataclass
class Mood:
    """What the web server does; tests change it while it runs."""

    ranges: bool = True
    etags: bool = True
    times: bool = True
    sizes: bool = True
    fail: Callable[[str, str], int] = lambda method, path: 0
    """Returns a status to answer with instead; 0 for none."""
    break_after: int | None = None
    """Close the connection after so many bytes of a body."""
    breaks: int = 1 << 30
    """How many bodies break."""
    on_chunk: Callable[[str, int], None] = lambda path, at: None
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes handed to the client so far; those it was gone for are taken off again."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    """The Authorization headers that came."""
    under_way: int = 0
    """How many bodies are being sent."""
    turn: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str, size: int) -> None:
        """Note bytes of a body before they are sent: a client that has them all has seen them counted."""
        with self.turn:
            self.sent[path] = self.sent.get(path, 0) + size

    def limit_of(self, size: int) -> int | None:
        """Return after how many bytes this body breaks."""
        with self.turn:
            if self.break_after is None or self.breaks <= 0 or size <= self.break_after:
                return None
            self.breaks -= 1
            return self.break_after


def certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 that signs itself, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return path


@contextmanager
def web(root: Path, tls: Path | None = None) -> Iterator[tuple[str, Mood]]:
    """Serve a folder's files and lists of links; yields the URL and what to change."""
    mood = Mood()

    class Handler(_Handler):
        folder = root

    Handler.mood = mood
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        settings.load_cert_chain(tls)
        server.socket = settings.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}", mood
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Said:
    """What a scripted server answers; nothing is added but a length where none is told."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@contextmanager
def scripted(answer: Callable[[str, str, dict[str, str]], Said]) -> Iterator[str]:
    """Answer each request as a function of its method, its path as it was written, and its headers; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self):
            said = answer(self.command, self.path, dict(self.headers))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                if value:
                    self.send_header(name, value)
            self.close_connection = "Content-Length" in said.headers
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body)

    for method in ("GET", "HEAD", "PROPFIND", "PUT", "MOVE", "MKCOL"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    mood: Mood

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True):
        mood, path = self.mood, unquote(urlsplit(self.path).path)
        mood.requests.append((self.command, path))
        mood.authorized.append(self.headers.get("Authorization", ""))
        status = mood.fail(self.command, path)
        target = self.folder / path.lstrip("/")
        if status:
            return self._empty(status)
        if target.is_dir():
            return self._list(target, path)
        if not target.is_file():
            return self._empty(404)
        content = target.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if mood.ranges else None
        start, stop = (int(match[1]), int(match[2] or len(content) - 1) + 1) if match else (0, len(content))
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}")
        facts = target.stat()
        if mood.etags:
            self.send_header("ETag", f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"')
        if mood.times:
            self.send_header("Last-Modified", self.date_time_string(int(facts.st_mtime)))
        piece = content[start:stop]
        if mood.sizes:
            self.send_header("Content-Length", str(len(piece)))
        else:
            self.close_connection = True
        self.end_headers()
        if body:
            with mood.turn:
                mood.under_way += 1
            try:
                self._send(path, piece, start)
            finally:
                with mood.turn:
                    mood.under_way -= 1
        return None

    def _send(self, path: str, piece: bytes, start: int):
        mood = self.mood
        limit = mood.limit_of(len(piece))
        for at in range(0, len(piece), 65536):
            mood.on_chunk(path, start + at)
            chunk = piece[at : at + 65536]
            if limit is not None and at + len(chunk) > limit:
                self.wfile.write(chunk[: limit - at])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            mood.count(path, len(chunk))
            try:
                self.wfile.write(chunk)
            except OSError:  # the client has gone
                mood.count(path, -len(chunk))
                self.close_connection = True
                return

    def _list(self, folder: Path, path: str):
        if not path.endswith("/"):
            self.send_response(301)
            self.send_header("Location", quote(path) + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        links = (f'<a href="{quote(each.name)}{"/" if each.is_dir() else ""}">x</a>' for each in folder.iterdir())
        page = ('<a href="../">up</a><a href="?sort=1">by name</a>' + "\n".join(links)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _empty(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@dataclass
class Relay:
    """A relay to a server that counts what passes and can cut or stall connections."""

    port: int
    accepted: int = 0
    to_server: int = 0
    to_client: int = 0
    cut_after: int | None = None
    """Cut each connection after so many bytes in one direction."""
    cuts: int = 1 << 30
    stall_after: int | None = None
    """Pass nothing on after so many bytes of a connection."""
    stalls: int = 1 << 30
    released: threading.Event = field(default_factory=threading.Event)
    """Cuts the connections that are stalled."""
    nap_s: float = 0.0
    """Wait so long after each piece."""
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def passed(self) -> int:
        return self.to_server + self.to_client

    def breaks_off(self, passed: int) -> bool:
        """Say whether a connection is to be cut now; where it is to stall, wait until that is over."""
        with self.turn:
            is_cut = self.cut_after is not None and passed > self.cut_after and self.cuts > 0
            stalls = not is_cut and self.stall_after is not None and passed > self.stall_after and self.stalls > 0
            self.cuts -= is_cut
            self.stalls -= stalls
        if stalls:
            self.released.wait()
        return is_cut or stalls

    def count(self, way: str, size: int) -> None:
        """Note bytes before they are passed on: who has them all has seen them counted."""
        with self.turn:
            if way == "up":
                self.to_server += size
            else:
                self.to_client += size


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    listener = socket.create_server(("127.0.0.1", 0))
    found = Relay(listener.getsockname()[1])
    over = threading.Event()

    def accept():
        while not over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            found.accepted += 1
            threading.Thread(target=_pass_on, args=(client, port, found, over), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        found.released.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _pass_on(client: socket.socket, port: int, found: Relay, over: threading.Event) -> None:
    passed = {"up": 0, "down": 0}
    with client, socket.create_connection(("127.0.0.1", port)) as server, selectors.DefaultSelector() as both:
        both.register(client, selectors.EVENT_READ, (server, "up"))
        both.register(server, selectors.EVENT_READ, (client, "down"))
        while not over.is_set():
            for key, _ in both.select(0.1):
                other, way = key.data
                try:
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        return
                    passed[way] += len(data)
                    if found.breaks_off(passed[way]):
                        return
                    found.count(way, len(data))
                    other.sendall(data)
                    time.sleep(found.nap_s)
                except OSError:
                    return


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without anything of the one tests run in."""
    return {"HOME": str(home), "USER": "tester", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **more}
