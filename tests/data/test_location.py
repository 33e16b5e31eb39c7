"""What people write becomes a place, and what they see of it holds no secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.data.location import join, read_location, split_data_name
from deephpc.data.obscure import obscure, reveal
from deephpc.data.rclone_config import parse_config, remote_names
from deephpc.data.surroundings import Surroundings
from deephpc.errors import InputError
from tests.fakes.samples import A_TENTH

AROUND = Surroundings({}, Path("/home/me"), Path("/project/here"))
SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda text: text not in (".", "..")
)
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("text", "kind", "shown", "path"),
    [
        ("data", "file", "/project/here/data", "/project/here/data"),
        ("./a/../b/", "file", "/project/here/b/", "/project/here/b/"),
        ("~/x", "file", "/home/me/x", "/home/me/x"),
        ("file:///a%20b", "file", "/a b", "/a b"),
        ("s3://bucket/a b?c#d", "s3", "s3://bucket/a b?c#d", "bucket/a b?c#d"),
        ("s3://bucket", "s3", "s3://bucket", "bucket"),
        ("https://u:p@host:8443/a%20b?sig=1", "http", "https://host:8443/a b", "a b"),
        ("webdavs://u@host/x/", "webdav", "webdavs://host/x/", "x/"),
        ("sftp://u:p@host:2222/abs/file", "sftp", "sftp://host:2222/abs/file", "/abs/file"),
        ("sftp://host/~/rel", "sftp", "sftp://host/~/rel", "rel"),
        ("gs://bucket/x", "fsspec", "gs://bucket/x", "bucket/x"),
        ("http://[::1]:80/x", "http", "http://[::1]:80/x", "x"),
    ],
)
def test_a_text_is_read_as_the_place_it_names(text: str, kind: str, shown: str, path: str):
    found = read_location(text, AROUND)
    assert (found.kind, str(found), found.path) == (kind, shown, path)


def rclone(**options: str) -> Surroundings:
    environ = {f"RCLONE_CONFIG_RSHARE_{name.upper()}": value for name, value in options.items()}
    return Surroundings(environ, Path("/home/me"), Path("/project/here"))


def test_a_nextcloud_remote_of_variables_is_webdav_with_the_password_revealed():
    around = rclone(
        type="webdav",
        url="https://share.example/remote.php/dav/files/me@x",
        vendor="nextcloud",
        user="me@x",
        **{"pass": "YWFhYWFhYWFhYWFhYWFhYXMaGgIlEQ"},
    )
    found = read_location("rshare:/plankton/", around)
    assert (found.kind, str(found), found.path) == ("webdav", "rshare:plankton/", "plankton/")
    assert found.settings["password"] == "potato"
    assert "potato" not in repr(found)


def test_an_alias_leads_on_and_in_a_circle_nowhere():
    environ = {
        "RCLONE_CONFIG_SHORT_TYPE": "alias",
        "RCLONE_CONFIG_SHORT_REMOTE": "store:bucket/deep",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_LOOP_TYPE": "alias",
        "RCLONE_CONFIG_LOOP_REMOTE": "loop:x",
    }
    around = Surroundings(environ, Path("/home/me"), Path("/project/here"))
    found = read_location("short:set", around)
    assert (found.kind, str(found)) == ("s3", "store:bucket/deep/set")
    with pytest.raises(InputError, match="alias of itself"):
        read_location("loop:y", around)


def test_the_environment_wins_over_the_file(tmp_path: Path):
    (tmp_path / "rclone.conf").write_text(
        "[rshare]\ntype = sftp\nhost = old\nuser = me\n[other name]\ntype=local\n", encoding="utf-8"
    )
    environ = {"RCLONE_CONFIG": str(tmp_path / "rclone.conf"), "RCLONE_CONFIG_RSHARE_HOST": "new"}
    found = read_location("rshare:x", Surroundings(environ, tmp_path, tmp_path))
    assert (found.settings["host"], found.settings["user"]) == ("new", "me")
    assert read_location("other name:x", Surroundings(environ, tmp_path, tmp_path)).path == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"type": "drive"}, "'drive', which deephpc does not speak"),
        ({"url": "x", "type": ""}, "without a type"),
        ({"type": "webdav", "url": "ftp://x"}, "no url"),
        ({"type": "sftp"}, "no host"),
        ({"type": "webdav", "url": "http://x", "pass": "not obscured!"}, "not obscured"),
        ({"type": "webdav", "url": "http://x", "pass": "YWFh"}, "too short"),
        ({"type": "alias"}, "alias of nothing"),
    ],
)
def test_a_remote_that_cannot_be_used_says_why_without_its_secrets(options: dict[str, str], says: str):
    with pytest.raises(InputError, match=says) as caught:
        read_location("rshare:x", rclone(**options))
    assert "not obscured!" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["# Encrypted\n\nRCLONE_ENCRYPT_V0:\nabc", "[broken\nx", "no section = 1"])
def test_a_configuration_that_is_none_is_refused_and_not_quoted(text: str):
    with pytest.raises(InputError) as caught:
        parse_config(text, "rclone.conf")
    assert "abc" not in caught.value.message


def test_remotes_are_known_by_the_names_of_both_places():
    assert remote_names({"One": {}}, {"RCLONE_CONFIG_ONE_TYPE": "s3", "RCLONE_CONFIG_TWO_TYPE": "s3"}) == ("One", "two")


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("rshare:/plankton", "rshare:/plankton", None),
        ("rshare:plankton", "rshare:plankton", None),
        ("rshare:/plankton:cells", "rshare:/plankton", "cells"),
        ("s3://bucket/x:cells", "s3://bucket/x", "cells"),
        ("sftp://host:22/x", "sftp://host:22/x", None),
        ("sftp://host:22/x:cells", "sftp://host:22/x", "cells"),
        ("https://host:8443/x", "https://host:8443/x", None),
        ("/local/path:cells", "/local/path", "cells"),
        ("./path", "./path", None),
        ("a folder/x.csv:cells", "a folder/x.csv", "cells"),
        ("folder/x", "folder/x", None),
        ("https://host:8443", "https://host:8443", None),
    ],
)
def test_a_data_sets_name_is_told_from_the_place(text: str, place: str, name: str | None):
    assert split_data_name(text) == (place, name)


@A_TENTH
@given(st.text(max_size=60))
def test_any_text_is_a_place_or_an_input_error(text: str):
    try:
        found = read_location(text, AROUND)
    except InputError as error:
        assert error.hint
    else:
        assert found.kind


@A_TENTH
@given(PATH)
def test_a_path_on_s3_is_kept_as_it_is_written(path: str):
    assert read_location(f"s3://bucket/{path}", AROUND).path == f"bucket/{path}"


@A_TENTH
@given(PATH, PATH)
def test_joining_is_one_slash(above: str, below: str):
    assert join(above, below) == f"{above.rstrip('/')}/{below}"
    assert join("", below) == below
    assert join("/", below) == f"/{below}"


@A_TENTH
@given(st.text(st.characters(codec="utf-8"), max_size=80), st.binary(min_size=16, max_size=16))
def test_what_is_obscured_is_revealed(password: str, start: bytes):
    assert reveal(obscure(password, start)) == password


def test_rclones_own_vector_holds_in_both_directions():
    assert reveal("YWFhYWFhYWFhYWFhYWFhYXMaGgIlEQ") == "potato"
    assert obscure("potato", b"a" * 16) == "YWFhYWFhYWFhYWFhYWFhYXMaGgIlEQ"


@A_TENTH
@given(st.text(max_size=60))
def test_any_text_is_revealed_or_refused(text: str):
    try:
        assert isinstance(reveal(text), str)
    except InputError as error:
        assert error.message in (  # the same words for any text
            "a password is not obscured as rclone does it",
            "a password is too short for an obscured password",
        )
