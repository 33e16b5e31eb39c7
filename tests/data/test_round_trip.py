"""Every storage that can be written gives back what it was given, and moves nothing twice."""

import os
import random
from pathlib import Path

import pytest

from deephpc.workflows.data import TransferRequest, carry_out_get, carry_out_put
from deephpc.workflows.data_check import list_location, verify_data

from .conftest import Desk, Server

ODD_NAMES = (
    "a b",
    'quote\'s "both"',
    "Ümlaut 漢字",
    "percent%20 %",
    "hash#mark?query",
    "new\nline",
    "back\\slash",
    "-dash",
)


#: What servers themselves get wrong: WsgiDAV 4.4 decodes the Destination of a MOVE before it takes it apart; the
#: routes of moto 5.2 end at a newline.
NOT_FOR = {"webdav": frozenset("%#?\n"), "s3": frozenset("\n"), "sftp": frozenset()}
#: More than a block; for S3 more than a part.
LARGE_BYTES = {"webdav": 9_000_003, "s3": 17_000_003, "sftp": 9_000_003}


def make_tree(root: Path, server: Server) -> dict[str, bytes]:
    rng = random.Random(1)
    names = [name for name in ODD_NAMES if not NOT_FOR[server.name] & set(name)]
    files = {f"sub/{name}/data.bin": rng.randbytes(rng.randrange(2000)) for name in names}
    files |= {name: rng.randbytes(10) for name in names}
    files |= {"empty": b"", "large.bin": rng.randbytes(LARGE_BYTES[server.name])}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return files


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def ask(source: object, target: object, **more) -> TransferRequest:
    return TransferRequest(source=str(source), target=str(target), **more)


def test_a_folder_comes_back_as_it_was_sent(server: Server, desk: Desk):
    files = make_tree(desk.tmp / "there and back", server)
    sent = carry_out_put(ask(desk.tmp / "there and back", server.place + "/set"), desk.places())
    got = carry_out_get(ask(server.place + "/set", desk.tmp / "back"), desk.places())
    assert read_tree(desk.tmp / "back") == files
    assert sent.digest == got.digest
    assert (sent.files, sent.transferred_files) == (len(files), len(files))
    assert sent.transferred_bytes == got.transferred_bytes == sum(map(len, files.values()))


def test_a_second_time_nothing_is_transferred(server: Server, desk: Desk):
    make_tree(desk.tmp / "set", server)
    first = [
        carry_out_put(ask(desk.tmp / "set", server.place), desk.places()),
        carry_out_get(ask(server.place, desk.tmp / "back"), desk.places()),
    ]
    second = [
        carry_out_put(ask(desk.tmp / "set", server.place), desk.places()),
        carry_out_get(ask(server.place, desk.tmp / "back"), desk.places()),
    ]
    assert [each.transferred_files for each in second] == [0, 0]
    assert [each.digest for each in second] == [each.digest for each in first]


def test_only_what_changed_is_transferred(server: Server, desk: Desk):
    files = make_tree(desk.tmp / "set", server)
    carry_out_put(ask(desk.tmp / "set", server.place), desk.places())
    carry_out_get(ask(server.place, desk.tmp / "back"), desk.places())
    (desk.tmp / "set" / "a b").write_bytes(b"changed")
    (desk.tmp / "set" / "new").write_bytes(b"new")
    sent = carry_out_put(ask(desk.tmp / "set", server.place), desk.places())
    got = carry_out_get(ask(server.place, desk.tmp / "back"), desk.places())
    assert (sent.transferred_files, got.transferred_files) == (2, 2)
    assert read_tree(desk.tmp / "back") == {**files, "a b": b"changed", "new": b"new"}


def test_what_was_spoiled_here_is_brought_again(server: Server, desk: Desk):
    files = make_tree(desk.tmp / "set", server)
    carry_out_put(ask(desk.tmp / "set", server.place), desk.places())
    carry_out_get(ask(server.place, desk.tmp / "back"), desk.places())
    (desk.tmp / "back" / "large.bin").write_bytes(b"spoiled")
    (desk.tmp / "back" / "empty").unlink()
    got = carry_out_get(ask(server.place, desk.tmp / "back"), desk.places())
    assert got.transferred_files == 2
    assert read_tree(desk.tmp / "back") == files


def test_one_file_goes_into_a_folder_or_under_a_new_name(server: Server, desk: Desk):
    (desk.tmp / "one.txt").write_bytes(b"one")
    (desk.tmp / "here").mkdir()
    carry_out_put(ask(desk.tmp / "one.txt", server.place + "/deep/folder/"), desk.places())
    carry_out_put(ask(desk.tmp / "one.txt", server.place + "/deep/two.txt"), desk.places())
    carry_out_get(ask(server.place + "/deep/folder/one.txt", desk.tmp / "here"), desk.places())
    carry_out_get(ask(server.place + "/deep/two.txt", desk.tmp / "here" / "three.txt"), desk.places())
    listing = list_location(server.place + "/deep", desk.places(), recursive=True)
    assert [(each.path, each.size_bytes) for each in listing.entries] == [("folder/one.txt", 3), ("two.txt", 3)]
    assert read_tree(desk.tmp / "here") == {"one.txt": b"one", "three.txt": b"one"}


def test_one_file_is_not_sent_twice_under_its_new_name(server: Server, desk: Desk):
    (desk.tmp / "one.txt").write_bytes(b"one")
    request = ask(desk.tmp / "one.txt", server.place + "/two.txt")
    counts = [carry_out_put(request, desk.places()).transferred_files for _ in range(2)]
    assert counts == [1, 0]


def test_verify_finds_what_is_missing_changed_and_unexpected(server: Server, desk: Desk):
    make_tree(desk.tmp / "set", server)
    manifest = desk.tmp / "manifest.json"
    carry_out_put(ask(desk.tmp / "set", server.place, manifest=manifest), desk.places())
    sound = verify_data(server.place, desk.places(), manifest=manifest)
    (desk.tmp / "other").mkdir()
    (desk.tmp / "other" / "a b").write_bytes(b"0123456789")
    (desk.tmp / "other" / "extra").write_bytes(b"x")
    carry_out_put(ask(desk.tmp / "other", server.place), desk.places())
    faulty = verify_data(server.place, desk.places(), manifest=manifest)
    against = verify_data(server.place, desk.places(), against=str(desk.tmp / "set"))
    assert sound.faults == ()
    assert [(each.path, each.reason) for each in faulty.faults] == [("a b", "content"), ("extra", "unexpected")]
    assert against.faults == faulty.faults


def test_a_dry_run_moves_and_writes_nothing(server: Server, desk: Desk):
    make_tree(desk.tmp / "set", server)
    before = sorted(desk.tmp.rglob("*"))
    plan = carry_out_put(ask(desk.tmp / "set", server.place), desk.places(), dry_run=True)
    assert not plan.done
    assert {each.action for each in plan.planned} == {"transfer"}
    assert list_location(server.place, desk.places(), recursive=True).entries == ()
    assert sorted(desk.tmp.rglob("*")) == before


def test_what_is_read_back_is_what_was_sent(server: Server, desk: Desk):
    make_tree(desk.tmp / "set", server)
    sent = carry_out_put(ask(desk.tmp / "set", server.place, read_back=True), desk.places())
    assert sent.transferred_files == sent.files


@pytest.mark.parametrize("recursive", [False, True])
def test_a_list_tells_sizes_times_and_folders(server: Server, desk: Desk, recursive: bool):
    (desk.tmp / "set" / "sub").mkdir(parents=True)
    (desk.tmp / "set" / "sub" / "b").write_bytes(b"22")
    (desk.tmp / "set" / "a").write_bytes(b"1")
    os.utime(desk.tmp / "set" / "a", (1_000_000_000, 1_000_000_000))
    carry_out_put(ask(desk.tmp / "set", server.place), desk.places())
    listing = list_location(server.place, desk.places(), recursive=recursive)
    found = [(each.path, each.is_folder, each.size_bytes) for each in listing.entries]
    assert found == ([("a", False, 1), ("sub/b", False, 2)] if recursive else [("a", False, 1), ("sub", True, None)])
    assert listing.entries[0].modified is not None
