"""The pure parts and those that only touch the disk: plans, manifests, part files, ledgers, signatures, listings."""

import hashlib
import itertools
import random
import threading
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.data.crew import Crew
from deephpc.data.http import parse_links
from deephpc.data.ledger import Ledger, Seen
from deephpc.data.local import entry_of
from deephpc.data.manifest import FileFact, Manifest, parse_manifest, render_manifest
from deephpc.data.part_file import BLOCK_BYTES, PartFile, runs_of
from deephpc.data.plan import Action, plan_transfer
from deephpc.data.s3 import part_bytes
from deephpc.data.s3_signing import EMPTY_SHA256, Keys, render_query, sign
from deephpc.data.source import Source
from deephpc.data.storage import Changed, Entry, Interrupted
from deephpc.data.webdav import parse_listing
from deephpc.errors import DataError, InputError
from deephpc.retries import Patience, persist
from tests.fakes.samples import A_TENTH

EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
FACTS = st.lists(
    st.builds(
        FileFact,
        path=st.text(st.characters(codec="utf-8", exclude_characters="/\0."), min_size=1, max_size=20),
        size_bytes=st.integers(0, 1 << 50),
        sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
    unique_by=lambda fact: fact.path,
)


def test_amazons_own_example_is_signed_as_there():
    """Return of the example "GET Object" of "Signature Calculations for the Authorization Header"."""
    signed = sign(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        {"Range": "bytes=0-9"},
        EMPTY_SHA256,
        (EXAMPLE, "us-east-1"),
        datetime(2013, 5, 24, tzinfo=timezone.utc),
    )
    assert signed["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


@A_TENTH
@given(TEXT, st.dictionaries(TEXT, TEXT, max_size=4))
def test_any_request_is_signed_as_botocore_signs_it(key: str, query: dict[str, str]):
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    from deephpc.data.web import quote_path

    url = f"http://127.0.0.1:5000/bucket/{quote_path(key)}?{render_query(query)}"
    now = datetime.now(timezone.utc)
    ours = sign("GET", url, {}, EMPTY_SHA256, (EXAMPLE, "us-east-1"), now)
    theirs = AWSRequest("GET", url, headers={"X-Amz-Content-SHA256": EMPTY_SHA256})
    theirs.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    auth = S3SigV4Auth(Credentials(EXAMPLE.access_key, EXAMPLE.secret_key), "s3", "us-east-1")
    theirs.headers["X-Amz-Date"] = theirs.context["timestamp"]
    assert ours["authorization"].rpartition("=")[2] == auth.signature(
        auth.string_to_sign(theirs, auth.canonical_request(theirs)), theirs
    )


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 5])
def test_a_part_file_filled_in_any_order_has_the_right_hash(tmp_path: Path, size: int):
    content = random.Random(size).randbytes(size)
    part = PartFile(tmp_path / ".part", size, may_resume=True)
    assert part.open() == 0
    for block in random.Random(1).sample(part.blocks, len(part.blocks)):
        while block.at < block.stop:
            part.write(block, content[block.at : min(block.at + 700_001, block.stop)])
    assert part.finish(5.0, 0o444) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / ".part").read_bytes() == content
    assert (tmp_path / ".part").stat().st_mtime == 5.0


def test_a_part_file_goes_on_with_what_is_sound_and_drops_what_is_not(tmp_path: Path):
    size = 3 * BLOCK_BYTES
    content = random.Random(0).randbytes(size)
    part = PartFile(tmp_path / ".part", size, may_resume=True)
    part.open()
    for block in part.blocks[:2]:
        part.write(block, content[block.start : block.start + 1000])
    part.close()
    with (tmp_path / ".part").open("r+b") as file:  # as a crash of the machine may leave it
        file.seek(BLOCK_BYTES + 5)
        file.write(b"spoiled")
    again = PartFile(tmp_path / ".part", size, may_resume=True)
    assert again.open() == 1000
    for block in again.blocks:
        again.write(block, content[block.at : block.stop])
    assert again.finish(None, None) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("parallel", "longest"), [(1, 16), (8, 4), (64, 1)])
def test_blocks_are_asked_for_in_runs_without_a_gap(tmp_path: Path, parallel: int, longest: int):
    blocks = PartFile(tmp_path / ".part", 40 * BLOCK_BYTES, may_resume=True).blocks
    blocks[5].at += 1000  # as an earlier try left it
    missing = blocks[:11] + blocks[12:]
    runs = runs_of(missing, parallel)
    assert [block for run in runs for block in run] == missing
    assert max(len(run) for run in runs) == longest
    assert all(one.stop == two.at for run in runs for one, two in itertools.pairwise(run))


def test_a_part_file_of_perhaps_other_content_is_thrown_away(tmp_path: Path):
    first = PartFile(tmp_path / ".part", 2 * BLOCK_BYTES, may_resume=True)
    first.open()
    first.write(first.blocks[0], b"old")
    first.close()
    second = PartFile(tmp_path / ".part", 2 * BLOCK_BYTES, may_resume=False)
    assert second.open() == 0
    second.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 5, 5 << 20])
def test_a_file_on_its_way_out_is_hashed_in_whatever_order_it_is_read(tmp_path: Path, size: int):
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    entry = entry_of((tmp_path / "file").stat(), "file", "file")
    with (tmp_path / "file").open("rb") as file, closing(Source(file.fileno(), entry, tmp_path / "file")) as source:
        for at in random.Random(1).sample(range(0, size, 700_001), -(-size // 700_001)):
            count = min(700_001, size - at)
            assert source.read(at, count) == content[at : at + count]
        assert source.sha256() == hashlib.sha256(content).hexdigest()
        (tmp_path / "file").write_bytes(b"other")
        with pytest.raises(Changed):
            source.sha256()


@A_TENTH
@given(FACTS)
def test_a_manifest_reads_back_as_it_was_written(facts: list[FileFact]):
    manifest = Manifest.of(facts)
    again = parse_manifest(render_manifest(manifest), "there")
    assert again == manifest
    assert again.digest == Manifest.of(reversed(facts)).digest


def test_a_manifest_that_somebody_changed_is_refused():
    text = render_manifest(Manifest.of([FileFact(path="a", size_bytes=1, sha256="0" * 64)]))
    with pytest.raises(InputError, match="changed it"):
        parse_manifest(text.replace('"size_bytes": 1', '"size_bytes": 2'), "there")


def test_a_manifest_that_leads_elsewhere_is_refused():
    text = render_manifest(Manifest.of([FileFact(path="../a", size_bytes=1, sha256="0" * 64)]))
    with pytest.raises(DataError, match="cannot lie in a folder here"):
        parse_manifest(text, "there")


def test_a_ledger_passes_over_a_line_that_a_kill_cut_off(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    first, second = (Seen(name, 1, "0" * 64, "s", "t") for name in "ab")
    with Ledger(path) as ledger:
        ledger.note(first)
    with path.open("a") as file:
        file.write('{"path": "cut o')
    with Ledger(path) as ledger:
        ledger.note(second)
    with Ledger(path) as ledger:
        assert ledger.seen == {"a": first, "b": second}


@pytest.mark.parametrize(
    ("target", "seen", "action"),
    [
        (None, Seen("a", 3, "x", "v1", "w1"), Action.TRANSFER),
        (Entry("a", 3, "w1"), Seen("a", 3, "x", "v1", "w1"), Action.SKIP),
        (Entry("a", 3, "w2"), Seen("a", 3, "x", "v1", "w1"), Action.TRANSFER),
        (Entry("a", 3, "w1"), Seen("a", 3, "x", "v0", "w1"), Action.TRANSFER),
        (Entry("a", 3, "w1", 7.0), None, Action.HASH),
        (Entry("a", 3, "w1", 7.5), None, Action.TRANSFER),
        (Entry("a", 4, "w1", 7.0), None, Action.TRANSFER),
        (Entry("a", is_folder=True), None, Action.TRANSFER),
    ],
)
def test_a_plan_brings_what_is_not_certainly_equal(target: Entry | None, seen: Seen | None, action: Action):
    source = Entry("a", 3, "v1", 7.0)
    there = {} if target is None else {"a": target}
    plan = plan_transfer(("s", "t"), [source], there, {} if seen is None else {"a": seen})
    assert [step.action for step in plan.steps] == [action]


@A_TENTH
@given(st.integers(1, 5 << 40))
def test_an_upload_has_no_more_parts_than_s3_takes(size: int):
    assert -(-size // part_bytes(size)) <= 10_000


@A_TENTH
@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=60))
def test_links_stay_below_their_page(names: list[str], rubbish: str):
    page = rubbish + "".join(f'<a href="{name}">x</a>' for name in names)
    for found in parse_links(page, "http://host/folder/").names:
        assert found.strip("/") not in ("", ".", "..")


@A_TENTH
@given(st.binary(max_size=200))
def test_any_answer_is_a_webdav_listing_or_a_data_error(content: bytes):
    try:
        assert isinstance(parse_listing(content, "http://host/x", "there"), list)
    except DataError as error:
        assert "there" in error.message


def test_a_crew_does_all_its_work_and_what_it_adds():
    done: list[int] = []
    crew = Crew(4)

    def work(number: int) -> None:
        done.append(number)
        crew.add_first([lambda: done.append(-number)])

    crew.run([lambda n=n: work(n) for n in range(1, 50)])
    assert len(done) == 98


def test_a_crew_shares_pieces_and_raises_what_failed_first():
    crew, done = Crew(3), []

    def fail() -> None:
        raise Interrupted("broke")

    def share() -> None:
        crew.share([lambda n=n: done.append(n) for n in range(20)])
        crew.share([fail])

    with pytest.raises(Interrupted, match="broke"):
        crew.run([share])
    assert sorted(done) == list(range(20))


def test_patience_ends_and_every_try_counts():
    tries: list[int] = []

    def ask() -> None:
        tries.append(1)
        raise Interrupted("busy")

    with pytest.raises(Interrupted, match="busy"):
        persist(Patience(attempts=4, first_nap_s=0.001), ask, threading.Event())
    assert len(tries) == 4


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for():
    def ask() -> None:
        raise Interrupted("busy", retry_after_s=3600)

    with pytest.raises(Interrupted, match="busy"):
        persist(Patience(attempts=4, deadline_s=1), ask)
