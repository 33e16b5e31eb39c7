"""What a list or a HEAD says is a hint: the bytes decide, and a list that says otherwise is told."""

import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from deephpc.data.discrepancy import find_discrepancy
from deephpc.data.storage import Changed, Entry, Interrupted
from deephpc.workflows.data import TransferRequest, TransferResult, carry_out_get, carry_out_put
from deephpc.workflows.data_check import verify_data
from deephpc.workflows.data_staging import carry_out_stage

from . import command, servers
from .conftest import Desk
from .servers import Said
from .test_spellings import dav, in_bucket

MIB = 1 << 20
SMALL, LARGE = b"the bytes of it", random.Random(20).randbytes(20 * MIB + 7)
Headers = dict[str, str]


def ranged(content: bytes, headers: Headers, **more: str) -> Said:
    """Answer a GET as servers do."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
    more = {name.replace("_", "-"): value for name, value in more.items()}
    if found is None:
        return Said(content, more)
    start, stop = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
    if start >= len(content):
        return Said(b"", {"Content-Range": f"bytes */{len(content)}"}, 416)
    said = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
    return Said(content[start:stop], {**said, **more}, 206)


def one_file(content: bytes, head: Callable[[], Said], **more: str):
    """Serve a file whose HEAD says what it likes."""
    return servers.scripted(lambda method, _, headers: head() if method == "HEAD" else ranged(content, headers, **more))


def get(desk: Desk, place: str) -> TransferResult:
    return carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


HEADS = {
    "no bytes": {"Content-Length": "0", "ETag": '"1"'},
    "fewer bytes": {"Content-Length": "3", "ETag": '"1"'},
    "more bytes": {"Content-Length": "12582912", "ETag": '"1"'},
    "far more bytes": {"Content-Length": str(30 * MIB), "ETag": '"1"'},
    "another ETag": {"ETag": '"head"'},
    "another time": {"Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"},
    "all of it": {"Content-Length": "5", "ETag": 'W/"x"', "Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"},
}
GETS = {"ETag": '"1"', "Last_Modified": "Sun, 29 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("says", HEADS)
def test_what_head_says_is_told_and_the_bytes_count(desk: Desk, says: str, content: bytes):
    more = {"Last_Modified": GETS["Last_Modified"]} if "time" in says else GETS
    said = {"Content-Length": str(len(content)), **HEADS[says]}
    with one_file(content, lambda: Said(headers=said), **more) as url:
        got = get(desk, f"{url}/file")
        assert (desk.tmp / "back").read_bytes() == content
        assert [each.path for each in got.discrepancies] == ["file"]
        again = get(desk, f"{url}/file")
        assert (again.transferred_files, again.size_bytes, again.digest) == (0, len(content), got.digest)
        staged = carry_out_stage(f"{url}/file", desk.places())
        assert (staged.folder / "file").read_bytes() == content
        verdict = verify_data(f"{url}/file", desk.places(), against=str(staged.folder / "file"))
        assert (verdict.faults, verdict.discrepancies) == ((), got.discrepancies)


def test_a_file_that_head_calls_empty_is_told_as_text_and_as_json(desk: Desk, monkeypatch, capsys):
    with one_file(SMALL, lambda: Said(headers={"Content-Length": "0"})) as url:
        code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "get", f"{url}/file", "--json")
        assert code == 0
        assert '"discrepancies": [{"path": "file", "reason": "was listed with 0 bytes, came with 15"}]' in out
        assert "note: file was listed with 0 bytes, came with 15" in err
        for words in (("verify", f"{url}/file", "--against", "file"), ("stage", f"{url}/file")):
            code, out, err = command.run_here(desk, monkeypatch, capsys, "data", *words)
            assert (code, "came with 15" in err) == (0, True), err


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 500, 501, 503])
def test_a_head_that_is_refused_is_asked_by_get(desk: Desk, status: int):
    with one_file(SMALL, lambda: Said(status=status)) as url:
        assert get(desk, f"{url}/file").discrepancies == ()
        assert (desk.tmp / "back").read_bytes() == SMALL


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_body_that_tells_its_end_in_pieces_may_be_shorter_than_was_said(desk: Desk, content: bytes):
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (content[:7], content[7:])) + b"0\r\n\r\n"
    said = Said(pieces, {"Transfer-Encoding": "chunked", "Content-Length": ""})
    head = Said(headers={"Content-Length": str(len(content) + 9)})
    with servers.scripted(lambda method, *_: head if method == "HEAD" else said) as url:
        got = get(desk, f"{url}/file")
    assert (desk.tmp / "back").read_bytes() == content
    assert got.discrepancies[0].reason == f"was listed with {len(content) + 9} bytes, came with {len(content)}"


def test_a_body_that_ends_with_its_connection_must_not_be_shorter_than_was_said(desk: Desk):
    head = Said(headers={"Content-Length": "100"})
    with (
        servers.scripted(lambda method, *_: head if method == "HEAD" else Said(SMALL, {"Content-Length": ""})) as url,
        pytest.raises(Interrupted, match="broke off after 15 bytes"),
    ):
        get(desk, f"{url}/file")


@pytest.mark.parametrize("differs", ["ETag", "Last-Modified", "length"])
def test_pieces_of_two_files_are_never_put_together(desk: Desk, differs: str):
    calls: list[str] = []

    def answer(method: str, _: str, headers: Headers) -> Said:
        if method == "HEAD":
            return Said(headers={"Content-Length": str(len(LARGE))})
        calls.append(method)
        is_other = len(calls) > 1
        content = LARGE + b"x" if is_other and differs == "length" else LARGE
        facts = {"ETag": '"1"'} if differs == "ETag" else {"Last_Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}
        changes = {"ETag": '"2"'} if differs == "ETag" else {"Last_Modified": "Mon, 30 Nov 2026 10:00:01 GMT"}
        return ranged(content, headers, **(changes if is_other and differs != "length" else facts))

    with servers.scripted(answer) as url, pytest.raises(Changed, match="changed while it was transferred"):
        get(desk, f"{url}/file")
    assert not (desk.tmp / "back").exists()


@pytest.mark.parametrize("size", [0, 3, 12 * MIB, None])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_what_webdav_lists_is_told_and_the_bytes_count(desk: Desk, size: int | None, content: bytes):
    listed = dav(("/set/", None), ("/set/file", size if size is not None else ""))

    def answer(method: str, path: str, headers: Headers) -> Said:
        if method == "PROPFIND":
            folder = dav(("/set/", None))
            return Said(listed if headers["Depth"] == "1" else folder, {"Content-Type": "application/xml"}, 207)
        return ranged(content, headers, ETag='"1"')

    with servers.scripted(answer) as url:
        got = get(desk, f"{url.replace('http', 'webdav')}/set")
        verdict = verify_data(f"{url.replace('http', 'webdav')}/set", desk.places(), against=str(desk.tmp / "back"))
    assert sha256((desk.tmp / "back" / "file").read_bytes()) == sha256(content)
    assert len(got.discrepancies) == len(verdict.discrepancies) == (size is not None)
    assert verdict.faults == ()


@pytest.mark.parametrize("said", ["", "<Size></Size>", "<Size>none</Size>", "<Size>0</Size>", "<Size>99</Size>"])
def test_what_s3_lists_is_told_and_the_bytes_count(desk: Desk, said: str):
    page = f"<ListBucketResult><Contents><Key>set/file</Key>{said}</Contents></ListBucketResult>".encode()

    def answer(method: str, path: str, headers: Headers) -> Said:
        return Said(page) if "list-type" in path else ranged(SMALL, headers)

    with servers.scripted(answer) as url:
        place = in_bucket(desk, url)
        got = get(desk, place)
        assert (desk.tmp / "back" / "file").read_bytes() == SMALL
        assert len(got.discrepancies) == ("0" in said or "99" in said)
        assert verify_data(place, desk.places(), against=str(desk.tmp / "back")).faults == ()
        assert carry_out_stage(place, desk.places()).size_bytes == len(SMALL)


@pytest.mark.parametrize(
    ("listed", "told"), [("2026-11-30T10:00:00.000Z", 0), ("2026-11-30T10:00:01.500Z", 1), ("now", 0)]
)
def test_a_time_is_the_same_however_s3_spells_it(desk: Desk, listed: str, told: int):
    facts = f"<Key>set/file</Key><Size>{len(SMALL)}</Size><LastModified>{listed}</LastModified>"
    page = f"<ListBucketResult><Contents>{facts}</Contents></ListBucketResult>".encode()

    def answer(method: str, path: str, headers: Headers) -> Said:
        del method
        time = "Mon, 30 Nov 2026 10:00:00 GMT"
        return Said(page) if "list-type" in path else ranged(SMALL, headers, Last_Modified=time)

    with servers.scripted(answer) as url:
        assert len(get(desk, in_bucket(desk, url)).discrepancies) == told
    assert (desk.tmp / "back" / "file").read_bytes() == SMALL


@pytest.mark.parametrize("listed", [0, 99, ""])
def test_what_webdav_lists_of_an_upload_is_told_and_its_bytes_count(desk: Desk, listed: int | str):
    kept: dict[str, bytes] = {}

    def answer(method: str, path: str, headers: Headers) -> Said:
        del headers
        if method == "PROPFIND" and path.endswith("file"):
            rows = dav((path, listed)) if kept else None
            return Said(status=404) if rows is None else Said(rows, {"Content-Type": "application/xml"}, 207)
        if method == "PROPFIND":
            return Said(dav((unquote(path), None)), {"Content-Type": "application/xml"}, 207)
        if method == "GET":
            return Said(SMALL)
        kept[path] = b""
        return Said(status=201)

    (desk.tmp / "file").write_bytes(SMALL)
    with servers.scripted(answer) as url:
        place = f"{url.replace('http', 'webdav')}/set/file"
        sent = carry_out_put(TransferRequest(source=str(desk.tmp / "file"), target=place), desk.places())
    assert len(sent.discrepancies) == (listed != "")


@pytest.mark.parametrize(
    ("listed", "came", "reason"),
    [
        (Entry("a", 3, "etag:1"), Entry("", 3, "etag:1"), ""),
        (Entry("a", None, ""), Entry("", 3, "etag:1"), ""),
        (Entry("a", 3, "time:x"), Entry("", None, "etag:1"), ""),
        (Entry("a", 3, "etag:1"), Entry("", 4, "etag:1"), "was listed with 3 bytes, came with 4"),
        (Entry("a", 3, "time:1"), Entry("", 3, "time:2"), "was listed with another time than it came with"),
        (
            Entry("a", 0, "etag:1"),
            Entry("", 4, "etag:2"),
            "was listed with 0 bytes, came with 4 and with another ETag than it came with",
        ),
    ],
)
def test_what_is_not_told_is_no_discrepancy(listed: Entry, came: Entry, reason: str):
    found = find_discrepancy(listed, came)
    assert (found.reason if found else "") == reason


def test_a_part_that_came_under_a_wrong_length_is_gone_on_with(desk: Desk, tmp_path: Path):
    sent: list[int] = []

    def answer(method: str, path: str, headers: Headers) -> Said:
        if method == "HEAD":
            return Said(headers={"Content-Length": str(30 * MIB), "ETag": '"1"'})
        found = ranged(LARGE, headers, ETag='"1"')
        if sum(sent) > 9 * MIB and not (tmp_path / "again").exists():
            return Said(status=403)
        sent.append(len(found.body))
        return found

    with servers.scripted(answer) as url:
        with pytest.raises(Exception, match="forbids"):
            get(desk, f"{url}/file")
        (tmp_path / "again").touch()
        before = sum(sent)
        get(desk, f"{url}/file")
    assert sha256((desk.tmp / "back").read_bytes()) == sha256(LARGE)
    assert sum(sent) - before <= len(LARGE)  # the first 8 MiB are asked for to learn what it is, and not read
