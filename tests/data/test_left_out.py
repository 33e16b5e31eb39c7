"""One item that cannot be moved is left out and named, all else is done, and the exit code says so."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deephpc.data.storage import Forbidden
from deephpc.errors import DataError
from deephpc.jobs.state import JobState
from deephpc.workflows.collect import carry_out_collect, plan_collect
from deephpc.workflows.data import carry_out_get, carry_out_put
from deephpc.workflows.data_check import list_location, verify_data
from deephpc.workflows.data_staging import carry_out_stage
from tests.fakes.samples import a_job

from . import command, servers
from .conftest import Desk, Server
from .servers import Mood
from .test_faults import ask
from .test_spellings import bucket, in_bucket, read

GOOD = {"a": b"1", "sub/b ü": b"22", "sub/deep/c": b"333"}
ODD = os.fsdecode(b"gr\xfcn")


def lay_out(top: Path) -> None:
    """Make a set of good files among what cannot be moved."""
    for name, content in GOOD.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / ODD).write_bytes(b"x")
    (top / "sub" / f"{ODD}-folder").mkdir()
    (top / "sub" / f"{ODD}-folder" / "in").write_bytes(b"x")
    (top / "nothing").symlink_to("gone")
    (top / "sub" / "up").symlink_to(top)
    os.mkfifo(top / "pipe")


LEFT = {
    "gr\\xfcn": "is not UTF-8",
    "sub/gr\\xfcn-folder": "is not UTF-8",
    "nothing": "is a link to nothing",
    "sub/up": "is a link to a folder, which is not followed",
    "pipe": "is neither a file nor a folder",
}


def test_of_a_folder_here_all_else_is_sent(server: Server, desk: Desk, monkeypatch, capsys):
    lay_out(desk.tmp / "set")
    code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "set", f"{server.place}/set", "--json")
    told = json.loads(out)
    assert (code, told["files"], told["transferred_files"]) == (5, 3, 3)
    assert {each["path"]: each["reason"] for each in told["left_out"]} == LEFT
    assert err.count("note: ") == 5
    assert re.search(r"^error: .*/set: gr.xfcn is not UTF-8; and 4 more$", err, re.MULTILINE)
    code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "set", f"{server.place}/set")
    assert (code, "transferred 0 files" in out) == (5, True)
    assert carry_out_get(ask(f"{server.place}/set", desk.tmp / "back"), desk.places()).left_out == ()
    assert read(desk.tmp / "back") == GOOD
    verdict = verify_data(f"{server.place}/set", desk.places(), against=str(desk.tmp / "back"))
    assert verdict.faults == ()
    verdict = verify_data(str(desk.tmp / "set"), desk.places(), against=str(desk.tmp / "back"))
    assert {each.path: each.reason for each in verdict.faults} == {
        path: f"unreadable: {reason}" for path, reason in LEFT.items()
    }


def test_of_a_folder_on_an_ssh_server_all_else_is_brought(sftp: Server, desk: Desk):
    lay_out(sftp.root / sftp.folder / "set")
    got = carry_out_get(ask(f"{sftp.place}/set", desk.tmp / "back"), desk.places())
    assert read(desk.tmp / "back") == GOOD
    assert {each.path for each in got.left_out} == set(LEFT)
    listing = list_location(f"{sftp.place}/set", desk.places(), recursive=False)
    assert ([each.path for each in listing.left_out], len(listing.entries)) == (["gr\\xfcn"], 2)


def test_of_a_folder_here_that_is_copied_all_else_is_there(desk: Desk):
    lay_out(desk.tmp / "set")
    got = carry_out_get(ask(desk.tmp / "set", desk.tmp / "back"), desk.places())
    assert (read(desk.tmp / "back"), {each.path: each.reason for each in got.left_out}) == (GOOD, LEFT)
    with pytest.raises(DataError, match="and 4 more: a data set is staged whole or not at all"):
        carry_out_stage(str(desk.tmp / "set"), desk.places(), copy=True)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 418])
def test_a_file_and_a_folder_that_a_server_refuses_spare_the_others(
    web: tuple[str, Path, Mood], desk: Desk, monkeypatch, capsys, status: int
):
    url, root, mood = web
    for name in (*GOOD, "secret", "sub/secrets/in"):
        (root / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "set" / name).write_bytes(GOOD.get(name, b"x" * (9 << 20)))
    mood.fail = lambda method, path: status if "secret" in path else 0
    code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "get", f"{url}/set/", "back", "--json")
    told = json.loads(out)
    assert (code, told["files"], told["transferred_files"]) == (5, 3, 3), err
    assert [each["path"] for each in told["left_out"]] == ["sub/secrets", "secret"]
    assert read(desk.tmp / "back") == GOOD
    verdict = verify_data(f"{url}/set/", desk.places(), against=str(desk.tmp / "back"))
    assert sorted(each.path for each in verdict.faults) == ["secret", "sub/secrets"]
    with pytest.raises(DataError, match="whole or not at all"):
        carry_out_stage(f"{url}/set/", desk.places())
    mood.fail = lambda method, path: 0
    assert carry_out_stage(f"{url}/set/", desk.places()).files == 5


def test_what_nginx_forbids_of_a_set_spares_the_others(desk: Desk):
    rules = "autoindex on; location ~ secret { deny all; }"
    with servers.nginx(desk.tmp / "server", rules) as port:
        for name in (*GOOD, "secret", "secrets/in"):
            (desk.tmp / "server" / "root" / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (desk.tmp / "server" / "root" / "set" / name).write_bytes(GOOD.get(name, b"x"))
        got = carry_out_get(ask(f"http://127.0.0.1:{port}/set/", desk.tmp / "back"), desk.places())
    assert read(desk.tmp / "back") == GOOD
    assert [each.path for each in got.left_out] == ["secrets", "secret"]
    assert all("the server forbids it (403)" in each.reason for each in got.left_out)


def test_results_that_apache_forbids_by_name_are_left_out_and_the_others_are_there(desk: Desk):
    job = a_job(desk.tmp, state=JobState.COMPLETED)
    for name in ("model", "secret.ht", "deep/last"):
        (job.folder / "output" / name).parent.mkdir(parents=True, exist_ok=True)
        (job.folder / "output" / name).write_bytes(b"x")
    rules = '<Files "*.ht">\nRequire all denied\n</Files>'
    with servers.apache(desk.tmp / "server", rules) as port:
        sent = carry_out_collect(plan_collect(job, None, f"webdav://127.0.0.1:{port}/"), desk.places())
    assert (sent.files, sent.whole) == (2, True)
    assert [each.path for each in sent.left_out] == ["output/secret.ht"]
    assert sorted(read(desk.tmp / "server" / "root" / job.run_id)) == ["output/deep/last", "output/model"]


@pytest.mark.parametrize("size", [1, 9 << 20])
def test_a_path_too_long_for_this_place_is_left_out(desk: Desk, size: int):
    deep = "/".join(["d" * 203] * 20)
    with bucket({"set/a": b"1", f"set/{deep}": b"2" * size, "set/b": b"3"}, str) as url:
        got = carry_out_get(ask(in_bucket(desk, url), desk.tmp / "back"), desk.places())
    assert read(desk.tmp / "back") == {"a": b"1", "b": b"3"}
    assert [(each.path, "too long" in each.reason) for each in got.left_out] == [(deep, True)]


def test_a_folder_where_a_file_belongs_is_left_out(desk: Desk):
    (desk.tmp / "set").mkdir()
    for name in "abc":
        (desk.tmp / "set" / name).write_bytes(b"1")
    (desk.tmp / "back" / "b" / "in").mkdir(parents=True)
    for move in (carry_out_get, carry_out_put):
        moved = move(ask(desk.tmp / "set", desk.tmp / "back"), desk.places())
        assert (moved.files, [each.path for each in moved.left_out]) == (2, ["b"])


def test_what_may_not_be_read_here_is_left_out(desk: Desk):
    lay_out(desk.tmp / "set")
    (desk.tmp / "set" / "a").chmod(0)
    (desk.tmp / "set" / "sub" / "deep").chmod(0)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may read everything; install util-linux's setpriv, or run the tests as a user")
    plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    program = "import sys; from deephpc.cli import main; main(sys.argv[1:])"
    argv = [*plain, sys.executable, "-c", program, "--json", "data", "put", "set", "back"]
    done = subprocess.run(
        argv, cwd=desk.tmp, env=command.environment(desk), capture_output=True, text=True, check=False
    )
    assert done.returncode == 5, done.stderr
    assert {each["path"] for each in json.loads(done.stdout)["left_out"]} == {*LEFT, "a", "sub/deep"}
    assert read(desk.tmp / "back") == {"sub/b ü": b"22"}


def test_a_server_that_forbids_all_is_not_asked_for_each(web: tuple[str, Path, Mood], desk: Desk):
    url, root, mood = web
    (root / "set").mkdir()
    for number in range(300):
        (root / "set" / str(number)).write_bytes(b"x")
    mood.fail = lambda method, path: 403 if not path.endswith("/") else 0
    with pytest.raises(Forbidden, match="the server forbids it"):
        carry_out_get(ask(f"{url}/set/", desk.tmp / "back"), desk.places())
    assert len(mood.requests) < 200
    mood.fail = lambda method, path: 403 if path.endswith(("1", "3", "7")) else 0
    for _ in range(2):
        got = carry_out_get(ask(f"{url}/set/", desk.tmp / "back"), desk.places())
        assert (got.files, len(got.left_out)) == (210, 90)
