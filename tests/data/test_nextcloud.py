"""Large files go to Nextcloud in chunks, against a double of its chunked upload: Nextcloud itself is not to be had."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.data.nextcloud import chunk_bytes, chunks_url
from deephpc.data.obscure import obscure
from deephpc.workflows.data import carry_out_get, carry_out_put
from tests.fakes.waiting import wait_until

from . import command, nextcloud, servers
from .conftest import Desk
from .servers import PASSWORD, USER
from .test_faults import ask, random_file, sha256

MIB = 1 << 20
LARGE = 40 * MIB
CHUNK = chunk_bytes(LARGE)


@dataclass
class Cloud:
    port: int
    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def chunks(self) -> list[Path]:
        return sorted(path for path in (self.folder / "uploads").rglob("*") if path.is_file())

    def know(self, desk: Desk, port: int | None = None) -> None:
        url = f"http://127.0.0.1:{port or self.port}/remote.php/dav/files/{USER}"
        options = {"TYPE": "webdav", "URL": url, "VENDOR": "nextcloud", "USER": USER, "PASS": obscure(PASSWORD)}
        desk.environ = {f"RCLONE_CONFIG_RSHARE_{key}": value for key, value in options.items()}


def has_whole_chunk(cloud: Cloud) -> bool:
    return any(path.stat().st_size == CHUNK for path in cloud.chunks)


@pytest.fixture
def cloud(desk: Desk) -> Iterator[Cloud]:
    with nextcloud.server(desk.tmp / "cloud") as port:
        found = Cloud(port, desk.tmp / "cloud")
        found.know(desk)
        yield found


def test_the_folder_of_the_chunks_is_beside_the_files_of_the_user():
    url = "https://h/next/remote.php/dav/files/a%20b/deep/file"
    assert chunks_url(url, "key") == "https://h/next/remote.php/dav/uploads/a%20b/deephpc-key"


@pytest.mark.parametrize("path", ["remote.php/webdav/file", "remote.php/dav/files/alice", "dav/files/alice/x", "file"])
def test_elsewhere_there_are_no_chunks(path: str):
    assert chunks_url(f"https://h/{path}", "key") is None


@pytest.mark.parametrize("size", [1, 16 * MIB, 160_000 * MIB, 10**12 + 1, 10**13])
def test_no_file_has_more_chunks_than_there_are_names(size: int):
    assert -(-size // chunk_bytes(size)) <= 10_000


@pytest.mark.slow
def test_a_large_file_comes_to_nextcloud_in_chunks(cloud: Cloud, desk: Desk):
    wanted = random_file(desk.tmp / "large", LARGE)
    random_file(desk.tmp / "small", 100)
    os.utime(desk.tmp / "large", (1_500_000_000, 1_500_000_000))
    carry_out_put(ask(desk.tmp / "large", "rshare:deep er/"), desk.places())
    carry_out_put(ask(desk.tmp / "small", "rshare:deep er/"), desk.places())
    arrived = cloud.files / "deep er" / "large"
    assert sha256(arrived) == wanted
    assert arrived.stat().st_mtime == 1_500_000_000
    assert cloud.chunks == []
    assert (cloud.folder / "log").read_text().split() == ["MKCOL", "PUT", "PUT", "PUT", "MOVE"]
    carry_out_get(ask("rshare:deep er/large", desk.tmp / "back"), desk.places())
    assert sha256(desk.tmp / "back") == wanted


@pytest.mark.slow
def test_an_upload_to_nextcloud_that_was_killed_goes_on_chunk_by_chunk(cloud: Cloud, desk: Desk):
    wanted = random_file(desk.tmp / "large", LARGE)
    words = ("data", "put", desk.tmp / "large", "rshare:set/", "--parallel", "1")
    with servers.relay(cloud.port) as relay:
        cloud.know(desk, relay.port)
        relay.stall_after, relay.stalls = 20 * MIB, 1
        with command.start(desk, *words) as process:
            wait_until(lambda: has_whole_chunk(cloud) and relay.stalls == 0, "the second chunk")
            process.kill()
            process.communicate()
        relay.stall_after, relay.to_server = None, 0
        code, _, err = command.run(desk, *words)
    assert code == 0, err
    assert relay.to_server < LARGE - CHUNK + MIB
    assert sha256(cloud.files / "set" / "large") == wanted


@pytest.mark.slow
def test_chunks_that_are_not_as_we_would_send_them_are_thrown_away(cloud: Cloud, desk: Desk):
    wanted = random_file(desk.tmp / "large", LARGE)
    words = ("data", "put", desk.tmp / "large", "rshare:", "--parallel", "1")
    with servers.relay(cloud.port) as relay:
        cloud.know(desk, relay.port)
        relay.stall_after, relay.stalls = 20 * MIB, 1
        with command.start(desk, *words) as process:
            wait_until(lambda: has_whole_chunk(cloud) and relay.stalls == 0, "a chunk")
            process.kill()
            process.communicate()
        relay.stall_after = None
        os.truncate(cloud.chunks[0], 7 * MIB)
        assert command.run(desk, *words)[0] == 0
    assert sha256(cloud.files / "large") == wanted
    assert "DELETE" in (cloud.folder / "log").read_text()


@pytest.mark.slow
def test_a_cloud_whose_answer_to_the_last_request_is_lost_has_the_file(cloud: Cloud, desk: Desk):
    wanted = random_file(desk.tmp / "large", LARGE)
    (cloud.folder / "hang-up-after-move").touch()
    carry_out_put(ask(desk.tmp / "large", "rshare:"), desk.places())
    assert sha256(cloud.files / "large") == wanted
    assert (cloud.folder / "log").read_text().split().count("PUT") == 3


@pytest.mark.slow
def test_a_server_without_chunks_gets_the_file_in_one_piece(cloud: Cloud, desk: Desk):
    wanted = random_file(desk.tmp / "large", LARGE)
    (cloud.folder / "no-chunks").touch()
    carry_out_put(ask(desk.tmp / "large", "rshare:"), desk.places())
    assert sha256(cloud.files / "large") == wanted
    with contextlib.suppress(FileNotFoundError):
        assert "PUT" not in (cloud.folder / "log").read_text()
