"""A place that results are to go to is tried with a small file, on real servers, before a run is queued."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deephpc.errors import DataError, InputError
from deephpc.workflows.collect_target import try_target

from . import servers
from .conftest import Desk, Server
from .servers import Relay, Said


def test_a_place_that_takes_files_is_left_as_it_was(server: Server, desk: Desk):
    assert try_target(f"{server.place}/results", desk.places()) is None
    names = [path.name for path in (server.root or Path("/nowhere")).rglob("deephpc-trial*")]
    assert names == []


@pytest.mark.parametrize("server", ["webdav", "sftp"], indirect=True)
def test_a_file_in_the_way_is_an_error(server: Server, desk: Desk):
    (server.root / server.folder / "blocked").write_text("a file")
    with pytest.raises(DataError, match="blocked"):
        try_target(f"{server.place}/blocked/results", desk.places())


def test_a_bucket_that_does_not_exist_is_an_error(s3: Server, desk: Desk):
    with pytest.raises(DataError, match=r"takes no results: .* does not exist"):
        try_target("there:no-such-bucket/results", desk.places())


def test_credentials_that_are_refused_are_an_error(webdav: Server, desk: Desk):
    desk.environ = webdav.remote(password="wrong")
    with pytest.raises(DataError, match=r"takes no results: .*credentials"):
        try_target(webdav.place, desk.places())


@pytest.mark.parametrize("status", [400, 403, 507])
def test_a_server_that_may_be_read_alone_is_an_error(desk: Desk, status: int):
    listing = b'<d:multistatus xmlns:d="DAV:"><d:response><d:href>/</d:href><d:propstat><d:prop><d:resourcetype>'
    listing += b"<d:collection/></d:resourcetype></d:prop></d:propstat></d:response></d:multistatus>"

    def answer(method: str, path: str, headers: dict[str, str]) -> Said:
        return Said(listing, {}, 207) if method == "PROPFIND" else Said(status=status)

    with servers.scripted(answer) as url, pytest.raises(DataError):
        try_target(url.replace("http", "webdav"), desk.places())


def test_a_plain_web_server_takes_no_files(desk: Desk):
    with pytest.raises(InputError, match="takes no files"):
        try_target("http://127.0.0.1:9/results", desk.places())


def test_a_server_that_cannot_be_reached_is_no_refusal(desk: Desk):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "cannot connect" in (try_target(f"webdav://127.0.0.1:{port}/results", desk.places()) or "")


def test_a_server_that_is_busy_is_no_refusal(desk: Desk):
    with servers.scripted(lambda *_: Said(status=503)) as url:
        assert "503" in (try_target(url.replace("http", "webdav"), desk.places()) or "")


@pytest.mark.slow
def test_a_silent_server_is_waited_for_five_seconds(webdav: Server, desk: Desk, relayed: Callable[[Server], Relay]):
    relayed(webdav).stall_after = 0
    began = time.monotonic()
    assert "did not answer within 5 s" in (try_target(webdav.place, desk.places()) or "")
    assert time.monotonic() - began < 7
