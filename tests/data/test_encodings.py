"""A server that packs what it was asked for as it is: the file comes as it is there, or the refusal says why not."""

import gzip
import hashlib
import random
import zlib

import pytest

from deephpc.data.storage import Changed, Interrupted
from deephpc.errors import DataError
from deephpc.unpacking import NotUnpackable, Truncated, coding_of, unpack
from deephpc.workflows.data import TransferRequest, TransferResult, carry_out_get
from deephpc.workflows.data_check import verify_data
from deephpc.workflows.data_staging import carry_out_stage

from . import servers
from .conftest import Desk
from .servers import Said
from .test_hints import Headers, ranged
from .test_spellings import dav, in_bucket, read

TABLE = b"1;2;3\n" * 5000
LARGE = random.Random(9).randbytes(9 << 20)
TWICE = gzip.compress(gzip.compress(TABLE))


def get(desk: Desk, place: str) -> TransferResult:
    return carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


def server_of(body: bytes, coding: str, kind: str = "text/csv"):
    """Serve one file, however it is called: ranges and lengths are those of the packed body, as RFC 9110 has it."""

    def answer(method: str, path: str, headers: Headers) -> Said:
        del path
        facts = {"Content_Encoding": coding, "Content_Type": kind, "ETag": '"1"'}
        if method == "HEAD":
            said = {name.replace("_", "-"): value for name, value in facts.items()}
            return Said(headers={"Content-Length": str(len(body)), **said})
        return ranged(body, headers, **facts)

    return servers.scripted(answer)


@pytest.mark.parametrize(
    ("body", "coding", "wanted"),
    [
        (gzip.compress(TABLE), "gzip", TABLE),
        (gzip.compress(TABLE), "x-gzip", TABLE),
        (gzip.compress(TABLE) + gzip.compress(b"end"), "GZIP", TABLE + b"end"),
        (zlib.compress(TABLE), "deflate", TABLE),
        (raw_deflate(TABLE), "deflate", TABLE),
        (TABLE, "gzip", TABLE),  # labelled so in vain
        (gzip.compress(b""), "gzip", b""),
        (gzip.compress(LARGE), "gzip", LARGE),
        (TABLE, "identity", TABLE),
        (TABLE, "UTF-8", TABLE),
        (TABLE, "aws-chunked", TABLE),
    ],
    ids=["gzip", "x-gzip", "members", "zlib", "deflate", "plain", "empty", "large", "identity", "utf-8", "aws-chunked"],
)
def test_what_was_packed_on_its_way_comes_as_it_is_there(desk: Desk, body: bytes, coding: str, wanted: bytes):
    with server_of(body, coding) as url:
        got = get(desk, f"{url}/table.csv")
        assert hashlib.sha256((desk.tmp / "back").read_bytes()).digest() == hashlib.sha256(wanted).digest()
        assert (got.size_bytes, got.discrepancies) == (len(wanted), ())
        assert get(desk, f"{url}/table.csv").transferred_files == 0
        staged = carry_out_stage(f"{url}/table.csv", desk.places())
        verdict = verify_data(f"{url}/table.csv", desk.places(), against=str(staged.folder / "table.csv"))
        assert verdict.faults == ()


@pytest.mark.parametrize("name", ["table.csv.gz", "set.tgz", "volume.nii.GZ"])
def test_a_file_that_is_packed_itself_stays_so_whatever_its_label(desk: Desk, name: str):
    """Apache's `AddEncoding x-gzip .gz .tgz` labels files that lie there packed."""
    with server_of(gzip.compress(TABLE), "x-gzip", "application/x-gzip") as url:
        get(desk, f"{url}/{name}")
        assert gzip.decompress((desk.tmp / "back").read_bytes()) == TABLE


@pytest.mark.parametrize("name", ["table.csv.gz", "set.tgz", "a.svgz"])
def test_a_packed_file_that_was_packed_once_more_is_unpacked_once(desk: Desk, name: str):
    with server_of(TWICE, "gzip") as url:
        get(desk, f"{url}/{name}")
        assert gzip.decompress((desk.tmp / "back").read_bytes()) == TABLE


def test_a_large_packed_file_comes_in_ranges_as_it_is_there(desk: Desk):
    packed = gzip.compress(LARGE, 0)
    with server_of(packed, "gzip") as url:
        got = get(desk, f"{url}/large.gz")
    assert hashlib.sha256((desk.tmp / "back").read_bytes()).digest() == hashlib.sha256(packed).digest()
    assert got.size_bytes == len(packed)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br"])
def test_what_we_cannot_unpack_is_refused_and_named(desk: Desk, coding: str):
    with (
        server_of(b"\x1f\x9dpacked", coding) as url,
        pytest.raises(DataError, match=f"packed with {coding}, though it was asked for as it is"),
    ):
        get(desk, f"{url}/table.csv")
    assert not (desk.tmp / "back").exists()


@pytest.mark.parametrize("cut", [20, 100, 1])
def test_a_packed_body_that_ends_too_early_is_no_file(desk: Desk, cut: int):
    body = gzip.compress(random.Random(1).randbytes(300))[:-cut]
    with server_of(body, "gzip") as url, pytest.raises(Interrupted, match="ends in the middle of what is packed"):
        get(desk, f"{url}/table.csv")
    assert not (desk.tmp / "back").exists()


def test_a_packed_body_that_is_spoiled_is_no_file(desk: Desk):
    body = bytearray(gzip.compress(TABLE))
    body[-6] ^= 1
    with server_of(bytes(body), "gzip") as url, pytest.raises(DataError, match="is not packed as it says"):
        get(desk, f"{url}/table.csv")


def test_objects_of_s3_come_as_they_are_stored_whatever_their_label(desk: Desk):
    """Content-Encoding is what whoever put an object said of it; its size, ETag and MD5 are those of its bytes."""
    packed = gzip.compress(TABLE)
    page = f"<ListBucketResult><Contents><Key>set/a</Key><Size>{len(packed)}</Size></Contents></ListBucketResult>"

    def answer(method: str, path: str, headers: Headers) -> Said:
        return Said(page.encode()) if "list-type" in path else ranged(packed, headers, Content_Encoding="gzip")

    with servers.scripted(answer) as url:
        got = get(desk, in_bucket(desk, url))
    assert (read(desk.tmp / "back"), got.discrepancies) == ({"a": packed}, ())


@pytest.mark.parametrize("pack", [gzip.compress, lambda body: body])
def test_lists_that_come_packed_are_read(desk: Desk, pack):
    page, rows = pack(b"<a href='a'>a</a>"), pack(dav(("/set/", None), ("/set/a", 1)))

    def answer(method: str, path: str, headers: Headers) -> Said:
        label = {"Content-Encoding": "gzip"}
        if method == "PROPFIND":
            return Said(rows if headers["Depth"] == "1" else pack(dav(("/set/", None))), label, 207)
        return Said(page, {**label, "Content-Type": "text/html"}) if path == "/set/" else Said(b"1")

    with servers.scripted(answer) as url:
        for scheme in ("http", "webdav"):
            get(desk, f"{url.replace('http', scheme)}/set/")
            assert read(desk.tmp / "back") == {"a": b"1"}
            (desk.tmp / "back" / "a").unlink()


def test_a_file_that_changes_how_it_is_packed_meanwhile_is_no_file(desk: Desk):
    calls: list[str] = []

    def answer(method: str, path: str, headers: Headers) -> Said:
        calls.append(method)
        if method == "HEAD":
            return Said(headers={"Content-Length": str(len(LARGE))})
        return ranged(LARGE, headers, ETag=f'"{min(len(calls), 3)}"', Content_Encoding="" if len(calls) < 3 else "gzip")

    with servers.scripted(answer) as url, pytest.raises(Changed):
        get(desk, f"{url}/file")


@pytest.mark.parametrize(
    ("header", "coding"),
    [("", ""), ("identity", ""), (" X-GZIP ", "gzip"), ("gzip, identity", "gzip"), ("br,gzip", "br, gzip")],
)
def test_codings_have_one_word_each(header: str, coding: str):
    assert coding_of(header) == coding


@pytest.mark.parametrize("step", [1, 7, 5000])
def test_a_body_is_unpacked_however_it_is_cut(step: int):
    packed = gzip.compress(TABLE)
    pieces = iter([memoryview(packed)[at : at + step] for at in range(0, len(packed), step)])
    body, is_unpacked = unpack(pieces, "gzip")
    assert (b"".join(map(bytes, body)), is_unpacked) == (TABLE, True)


def test_a_body_that_is_packed_in_part_alone_is_told():
    with pytest.raises(Truncated):
        list(unpack(iter([gzip.compress(TABLE)[:-1]]), "gzip")[0])
    with pytest.raises(NotUnpackable):
        unpack(iter([b"x"]), "zstd")
