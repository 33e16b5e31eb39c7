"""A server that does not take every name gets what it takes, under its own name and whole."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.data.nextcloud import is_own_cloud
from deephpc.data.obscure import obscure
from deephpc.data.storage import Interrupted, Unfit
from deephpc.workflows.data import carry_out_put

from . import command, nextcloud, servers
from .conftest import Desk
from .servers import PASSWORD, USER
from .test_faults import ask, random_file

RECORDED = Path(__file__).parents[1] / "recorded"
#: Where the files lie at a Nextcloud, an ownCloud, a share of theirs, and behind a proxy that hides what it is.
FILES, OLD, SHARE, HIDDEN = f"/remote.php/dav/files/{USER}", "/remote.php/webdav", "/public.php/webdav", "/drive"


@dataclass
class Cloud:
    port: int
    folder: Path
    address: str

    def know(self, desk: Desk, vendor: str = "", port: int | None = None) -> None:
        url = f"http://127.0.0.1:{port or self.port}{self.address}"
        options = {"TYPE": "webdav", "URL": url, "VENDOR": vendor, "USER": USER, "PASS": obscure(PASSWORD)}
        desk.environ = {f"RCLONE_CONFIG_RSHARE_{key}": value for key, value in options.items()}

    def files(self) -> dict[str, bytes]:
        top = self.folder / "files"
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    @property
    def refused(self) -> list[str]:
        log = self.folder / "refused"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def opened(desk: Desk) -> Iterator[Callable[[str], Cloud]]:
    with ExitStack() as stack:

        def open_at(address: str) -> Cloud:
            folder = desk.tmp / "cloud"
            found = Cloud(stack.enter_context(nextcloud.server(folder, address)), folder, address)
            found.know(desk)
            return found

        yield open_at


def lay(folder: Path, **files: bytes) -> dict[str, bytes]:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


@pytest.mark.parametrize(
    ("url", "vendor", "is_one"),
    [
        (f"https://h{FILES}", "", True),
        (f"https://h/next{FILES}/deep/er", "other", True),
        (f"https://h{OLD}", "", True),
        (f"https://h{SHARE}", "", True),
        ("https://h/public.php/dav/files/TOKEN", "", True),
        ("https://h/drive", "nextcloud", True),
        ("https://h/drive", "owncloud", True),
        ("https://h/drive", "", False),
        ("https://h/remote.php/davos", "fastmail", False),
        ("https://h/dav/files/alice", "rclone", False),
    ],
)
def test_an_own_cloud_is_known_by_its_address_or_its_vendor(url: str, vendor: str, is_one: bool):
    assert is_own_cloud(url, vendor) is is_one


def test_the_doubles_errors_look_like_those_of_sabre():
    recorded = (RECORDED / "sabre-dav-1.8.12-errors.txt").read_text().split("\n\n")
    theirs = [re.sub(">[^<\n]+<", "><", body) for body in recorded if body.startswith("<?xml")]
    ours = re.sub(">[^<\n]+<", "><", nextcloud.error_of("A", "b").decode())
    assert {body.replace("  <s:sabredav-version></s:sabredav-version>\n", "").rstrip() for body in theirs} == {
        ours.rstrip()
    }


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("model.pt.part", {}, '".part" is a forbidden file type.'),
        ("A.FilePart", {}, '".filepart" is a forbidden file type.'),
        (".HTaccess", {}, '".htaccess" is a forbidden file or folder name.'),
        ("con.txt", {"forbidden_filename_basenames": ["con"]}, '"con.txt" is a forbidden prefix'),
        ("a:b", {"forbidden_filename_characters": [":"]}, '":" is not allowed'),
        ("a ", {"forbidden_filename_extensions": [" "]}, 'must not end with " "'),
        ("tab\there", {}, "invalid character"),
        ("x" * 251, {}, "too long"),
        ("part", {}, ""),
        ("ü" * 125, {}, ""),
    ],
)
def test_the_double_forbids_the_names_that_nextcloud_does(name: str, config: dict[str, list[str]], said: str):
    found = nextcloud.refusal_of(name, config)
    assert said in found and bool(found) is bool(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "vendor"), [(FILES, ""), (FILES, "nextcloud"), (OLD, ""), (SHARE, ""), (HIDDEN, "owncloud")]
)
def test_files_come_to_an_own_cloud_under_their_own_names(
    opened: Callable[[str], Cloud], desk: Desk, address: str, vendor: str
):
    cloud = opened(address)
    cloud.know(desk, vendor)
    files = lay(desk.tmp / "set", small=b"small", empty=b"", **{"100% sure?#": b"x" * 70_000, ".hidden": b"h"})
    os.utime(desk.tmp / "set" / "small", (1_500_000_000, 1_500_000_000))
    os.utime(desk.tmp / "set" / ".hidden", (0, 0))  # from an archive without times
    carry_out_put(ask(desk.tmp / "set", "rshare:deep er"), desk.places())
    assert cloud.files() == {f"deep er/{name}": content for name, content in files.items()}
    assert (cloud.folder / "files" / "deep er" / "small").stat().st_mtime == 1_500_000_000
    assert cloud.refused == []


@pytest.mark.slow
@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "422 Unprocessable Entity"])
def test_a_server_that_refuses_drafts_gets_files_in_their_place(
    opened: Callable[[str], Cloud], desk: Desk, status: str
):
    cloud = opened(HIDDEN)
    (cloud.folder / "refuses-with").write_text(status)
    files = lay(desk.tmp / "set", first=b"1" * 100_000, second=b"2", third=b"3")
    carry_out_put(ask(desk.tmp / "set", "rshare:set"), desk.places(parallel=1))
    assert cloud.files() == {f"set/{name}": content for name, content in files.items()}
    assert len(cloud.refused) == 1  # asked for once


@pytest.mark.slow
def test_a_put_in_place_that_breaks_off_leaves_nothing_in_part(opened: Callable[[str], Cloud], desk: Desk):
    cloud = opened(HIDDEN)
    (cloud.folder / "files" / "old").write_bytes(b"old")
    random_file(desk.tmp / "old", 4 << 20)
    random_file(desk.tmp / "new", 4 << 20)
    with servers.relay(cloud.port) as relay:
        cloud.know(desk, port=relay.port)
        relay.cut_after = 1 << 20
        for name in ("old", "new"):
            with pytest.raises(Interrupted):
                carry_out_put(ask(desk.tmp / name, "rshare:"), desk.places())
        assert cloud.files() == {}
        relay.cut_after = None
        carry_out_put(ask(desk.tmp / "new", "rshare:"), desk.places())
    assert cloud.files() == {"new": (desk.tmp / "new").read_bytes()}


@pytest.mark.slow
def test_what_nothing_was_sent_over_stays_as_it_was(opened: Callable[[str], Cloud], desk: Desk):
    cloud = opened(HIDDEN)
    (cloud.folder / "files" / "x.part").write_bytes(b"old")
    (desk.tmp / "x.part").write_bytes(b"new")
    with pytest.raises(Unfit):
        carry_out_put(ask(desk.tmp / "x.part", "rshare:"), desk.places())
    assert cloud.files() == {"x.part": b"old"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("model.part", {}),
        (".htaccess", {}),
        ("NUL.txt", {"forbidden_filename_basenames": ["nul"]}),
        ("a:b", {"forbidden_filename_characters": [":"]}),
    ],
)
def test_a_file_whose_name_is_forbidden_is_named_and_the_others_come(
    opened: Callable[[str], Cloud],
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    config: dict[str, list[str]],
):
    cloud = opened(FILES)
    (cloud.folder / "forbidden.json").write_text(json.dumps(config))
    files = lay(desk.tmp / "set", **{name: b"x" * 1000, "large": b"1" * 100_000, "small": b"2"})
    (desk.tmp / "set" / "sub.part").mkdir()
    (desk.tmp / "set" / "sub.part" / "in").write_bytes(b"in")
    code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "set", "rshare:set", "--json")
    assert code == 5, err
    assert {each["path"] for each in json.loads(out)["left_out"]} == {name, "sub.part/in"}
    assert f"note: {name} cannot be sent: rshare:set/{name}: the server answers 400 InvalidPath: " in err
    assert "; and 1 more\n" in err
    files.pop(name)
    assert cloud.files() == {f"set/{path}": content for path, content in files.items()}
