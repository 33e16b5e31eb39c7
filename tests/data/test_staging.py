"""Staged once, a data set is transferred no more, is read-only, and is named by what is in it."""

import os
import stat
import threading
from pathlib import Path

import pytest

from deephpc.errors import DataError, InputError
from deephpc.workflows.data import TransferRequest, carry_out_put
from deephpc.workflows.data_check import check_verdict, verify_data
from deephpc.workflows.data_staging import carry_out_stage, plan_stage

from . import command
from .conftest import Desk, Server
from .servers import Mood

Web = tuple[str, Path, Mood]


def fill(root: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_a_second_run_transfers_nothing(server: Server, desk: Desk):
    fill(desk.tmp / "set", a=b"one", sub__b=b"two", empty=b"")
    carry_out_put(TransferRequest(source=str(desk.tmp / "set"), target=server.place + "/set"), desk.places())
    first = carry_out_stage(server.place + "/set", desk.places())
    second = carry_out_stage(server.place + "/set", desk.places())
    assert (first.transferred_files, first.transferred_bytes) == (3, 6)
    assert (second.transferred_files, second.transferred_bytes) == (0, 0)
    assert (second.folder, second.digest, second.name) == (first.folder, first.digest, "set")
    assert (first.folder / "sub" / "b").read_bytes() == b"two"


def test_a_staged_set_is_read_only_and_private(web: Web, desk: Desk):
    url, root, _ = web
    fill(root / "set", a=b"one", sub__b=b"two")
    staged = carry_out_stage(f"{url}/set/", desk.places())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (staged.folder, *staged.folder.rglob("*"))}
    assert modes == {"data": 0o555, "a": 0o444, "sub": 0o555, "b": 0o444}
    assert stat.S_IMODE(desk.places().cache.root.stat().st_mode) == 0o700


def test_equal_data_from_elsewhere_is_the_same_set(web: Web, desk: Desk):
    url, root, _ = web
    fill(root / "one", a=b"same")
    fill(root / "two", a=b"same")
    staged = [carry_out_stage(f"{url}/{name}/", desk.places()) for name in ("one", "two")]
    assert staged[0].folder == staged[1].folder
    assert [each.name for each in staged] == ["one", "two"]


def test_only_the_changed_file_is_staged_again_and_the_old_set_stays(web: Web, desk: Desk):
    url, root, _ = web
    fill(root / "set", a=b"one", b=b"two")
    old = carry_out_stage(f"{url}/set/", desk.places())
    fill(root / "set", b=b"three")
    new = carry_out_stage(f"{url}/set/", desk.places())
    assert new.transferred_files == 1
    assert new.folder != old.folder
    assert (old.folder / "b").read_bytes() == b"two"
    assert (new.folder / "b").read_bytes() == b"three"
    assert (new.folder / "a").stat().st_ino == (old.folder / "a").stat().st_ino


def test_two_at_once_transfer_it_once(web: Web, desk: Desk):
    url, root, mood = web
    fill(root / "set", a=os.urandom(3_000_000), b=os.urandom(1000))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(carry_out_stage(f"{url}/set/", desk.places()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.transferred_files for each in found) == [0, 2]
    assert sum(mood.sent.values()) == 3_001_000


def test_an_object_that_vanished_is_brought_again(web: Web, desk: Desk):
    url, root, _ = web
    fill(root / "set", a=b"one", b=b"two")
    carry_out_stage(f"{url}/set/", desk.places())
    cache = desk.places().cache
    next(path for path in (cache.root / "objects").rglob("*") if path.is_file()).unlink()
    again = carry_out_stage(f"{url}/set/", desk.places())
    assert again.transferred_files == 1


def test_a_local_folder_is_used_in_place_unless_copied(desk: Desk):
    fill(desk.tmp / "set", a=b"one")
    in_place = carry_out_stage(str(desk.tmp / "set"), desk.places())
    copied = carry_out_stage(f"{desk.tmp / 'set'}:mine", desk.places(), copy=True)
    assert (in_place.folder, in_place.digest, in_place.name) == (desk.tmp / "set", None, "set")
    assert (copied.folder / "a").read_bytes() == b"one"
    assert copied.name == "mine"


def test_one_file_is_a_set_of_one(web: Web, desk: Desk):
    url, root, _ = web
    fill(root, **{"one.csv": b"1,2"})
    staged = carry_out_stage(f"{url}/one.csv:table", desk.places())
    assert command.here(staged.folder) == ["one.csv"]
    assert staged.name == "table"


def test_a_plan_needs_no_network_and_tells_no_secret(desk: Desk):
    plan = plan_stage("https://me:secret@127.0.0.1:9/set?sig=hidden", desk.places())
    assert (plan.source, plan.name, plan.in_place) == ("https://127.0.0.1:9/set", "set", False)
    assert not (desk.tmp / "cache").exists()


def test_a_root_needs_a_name(desk: Desk):
    with pytest.raises(InputError, match="no name"):
        plan_stage("https://127.0.0.1:9/", desk.places())


def test_verify_tells_a_sound_set_from_a_spoiled_one(web: Web, desk: Desk):
    url, root, _ = web
    fill(root / "set", a=b"one", b=b"two")
    staged = carry_out_stage(f"{url}/set/", desk.places())
    assert verify_data(staged.digest, desk.places()).faults == ()
    assert verify_data(str(staged.folder), desk.places()).faults == ()
    (staged.folder / "a").chmod(0o644)
    (staged.folder / "a").write_bytes(b"ONE")
    verdict = verify_data(staged.digest[:20], desk.places())
    assert [(fault.path, fault.reason) for fault in verdict.faults] == [("a", "content")]
    with pytest.raises(DataError, match="1 file is not as in"):
        check_verdict(verdict)


def test_the_command_prints_the_folder_and_its_json(web: Web, desk: Desk):
    import json

    url, root, _ = web
    fill(root / "set", a=b"one")
    code, out, err = command.run(desk, "data", "stage", f"{url}/set/")
    assert (code, err) == (0, "")
    assert (Path(out.strip()) / "a").read_bytes() == b"one"
    facts = json.loads(command.run(desk, "--json", "data", "stage", f"{url}/set/")[1])
    assert (facts["schema"], facts["folder"], facts["transferred_bytes"]) == ("deephpc.data-stage/1", out.strip(), 0)
