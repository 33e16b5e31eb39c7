"""What `--data SRC[:NAME]` takes, and how a run finds it."""

from pathlib import Path

import pytest

from deephpc.data.data_source import (
    DataSource,
    StagedData,
    modules_own,
    read_data_sources,
    read_destination,
    write_links,
)
from deephpc.errors import InputError
from deephpc.workflows.run_data import bring_data, foresee_data, showing_data
from tests.containers.test_container import a_container

from .conftest import Desk
from .servers import Mood

RSHARE = {"RCLONE_CONFIG_RSHARE_TYPE": "webdav", "RCLONE_CONFIG_RSHARE_URL": "https://x/"}


def read(desk: Desk, *texts: str) -> tuple[DataSource, ...]:
    return read_data_sources(texts, desk.places(**RSHARE).around)


def test_a_place_is_kept_as_it_can_be_read_again_from_anywhere(desk: Desk):
    (desk.tmp / "with:colon").mkdir()
    places = [each.place for each in read(desk, "cells", "~/more:home", "rshare:/plankton", "./with:colon/:odd")]
    assert places == [f"{desk.tmp}/cells", f"{desk.home}/more", "rshare:/plankton", f"{desk.tmp}/with:colon/"]
    assert [each.name for each in read(desk, "cells", "https://x/a/b/:set")] == ["cells", "set"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "rshare:", "rshare:/", "nowhere:/x", "/", "rshare:/a:.hidden", "rshare:/a:two words", "rshare:/a,b"),
        *("rshare:/ä b", "/tmp/x\ny", "rshare:/a/../b", "rshare:/-x", f"rshare:/x:{'n' * 101}"),
    ],
)
def test_what_names_no_data_set_is_refused_before_anything_is_done(desk: Desk, text: str):
    with pytest.raises(InputError):
        read(desk, text)


@pytest.mark.parametrize(
    "text",
    ["https://me:secret@x/set", "https://x/set?sig=secret", "s3://key:secret@bucket/set", "sftp://me:secret@x/set",
     "ftp://me:secret@x/set", "gs://bucket/set?token=secret"],
)  # fmt: skip
def test_credentials_in_a_url_are_refused_since_a_plan_would_keep_them(desk: Desk, text: str):
    with pytest.raises(InputError, match="credentials") as refused:
        read(desk, text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "http://x/y", "https://me:secret@x/y", "webdavs://me:secret@x/y", "nowhere:/y"])
def test_results_go_to_no_place_that_is_none_takes_nothing_or_tells_a_secret(desk: Desk, text: str):
    with pytest.raises(InputError) as refused:
        read_destination(text, desk.places(**RSHARE).around)
    assert "secret" not in str(refused.value)


def test_results_go_to_a_folder_by_its_full_path(desk: Desk):
    assert read_destination("far", desk.places().around) == f"{desk.tmp}/far"


def test_two_sets_of_one_name_are_refused(desk: Desk):
    with pytest.raises(InputError, match="two data sets are named 'cells'"):
        read(desk, "rshare:/cells", "./cells")


def test_a_run_finds_folders_and_single_files_by_name(web: tuple[str, Path, Mood], desk: Desk):
    url, root, _ = web
    (root / "set").mkdir()
    (root / "set" / "a").write_text("one")
    (desk.tmp / "here").mkdir()
    sources = read(desk, f"{url}/set/", f"{url}/set/a:table.csv", "here")
    said: list[str] = []
    staged = bring_data(sources, desk.places(), said.append)
    write_links(desk.tmp / "data", staged)
    write_links(desk.tmp / "data", staged)  # again, as a submission that is gone on with does
    assert sorted(each.name for each in (desk.tmp / "data").iterdir()) == ["here", "set", "table.csv"]
    assert (desk.tmp / "data" / "set" / "a").read_text() == (desk.tmp / "data" / "table.csv").read_text() == "one"
    assert (desk.tmp / "data" / "here").resolve() == desk.tmp / "here"
    assert [each.digest is None for each in staged] == [False, False, True]
    bring_data(sources, desk.places(), said.append)
    assert said[-3].endswith("0 of 1 files transferred, 0 bytes")
    assert [each.path for each in foresee_data(sources, desk.places())] == [None, None, desk.tmp / "here"]


def test_inside_an_image_data_lie_at_their_own_paths_read_only_and_hide_nothing():
    container = a_container(binds=("/home/me/work:/home/me/work", "/opt/x:/opt/x"))
    staged = [StagedData(name="all", source="x", path=Path("/home/me")), StagedData(name="later", source="y")]
    shown = showing_data(container, staged)
    assert shown.binds == ("/opt/x:/opt/x", "/home/me:/home/me:ro", "/home/me/work:/home/me/work")
    assert (shown.data, shown.module_data) == (("all=/home/me",), None)
    assert showing_data(container, staged[:1]).module_data == Path("/home/me")
    with pytest.raises(InputError, match="cannot be bound"):
        showing_data(container, [StagedData(name="x", source="x", path=Path("/a:b"))])


def test_a_module_finds_the_only_set_or_the_one_named_data():
    one, two, data = (StagedData(name=name, source=name) for name in ("one", "two", "data"))
    assert modules_own([one]) is one
    assert modules_own([one, two]) is None
    assert modules_own([one, data]) is data
    assert modules_own([]) is None
