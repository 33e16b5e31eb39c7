"""How S3 is reached, whom SSH logs in as, and what fsspec itself speaks."""

from pathlib import Path

import fsspec
import pytest

from deephpc.data.s3_account import find_account
from deephpc.data.sftp_login import Login
from deephpc.data.surroundings import Surroundings
from deephpc.errors import InputError
from deephpc.workflows.data import TransferRequest, carry_out_get, carry_out_put
from deephpc.workflows.data_check import list_location

from .conftest import Desk

KEYS = {"AWS_ACCESS_KEY_ID": "from environment", "AWS_SECRET_ACCESS_KEY": "secret"}


def around(home: Path, **environ: str) -> Surroundings:
    return Surroundings(environ, home, home)


def aws(home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = from file\naws_secret_access_key = s\n"
        "[other]\naws_access_key_id = other\naws_secret_access_key = s\naws_session_token = t\n"
    )
    (home / ".aws" / "config").write_text("[profile other]\nregion = eu-north-1\nendpoint_url = https://s3.example/\n")


def test_the_remote_wins_over_the_environment_and_that_over_the_files(tmp_path: Path):
    aws(tmp_path)
    remote = {"access_key": "from remote", "secret_key": "s"}
    found = [
        find_account(remote, around(tmp_path, **KEYS)),
        find_account({}, around(tmp_path, **KEYS)),
        find_account({}, around(tmp_path)),
    ]
    assert [each.keys.access_key for each in found if each.keys] == ["from remote", "from environment", "from file"]
    assert "secret" not in repr(found)


def test_a_profile_brings_endpoint_region_and_token(tmp_path: Path):
    aws(tmp_path)
    found = find_account({}, around(tmp_path, AWS_PROFILE="other"))
    assert (found.endpoint, found.region) == ("https://s3.example", "eu-north-1")
    assert found.keys is not None
    assert (found.keys.access_key, found.keys.session_token) == ("other", "t")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AWS_PROFILE": "nowhere"}, "profile 'nowhere'"),
        ({"AWS_ACCESS_KEY_ID": "half"}, "only one is set"),
        ({"AWS_ENDPOINT_URL": "host:9000"}, "no http"),
    ],
)
def test_half_an_account_is_refused(tmp_path: Path, environ: dict[str, str], says: str):
    with pytest.raises(InputError, match=says):
        find_account({}, around(tmp_path, **environ))


@pytest.mark.parametrize(
    ("environ", "bucket", "url"),
    [
        ({}, "plain-bucket", "https://plain-bucket.s3.us-east-1.amazonaws.com"),
        ({}, "with.dots", "https://s3.us-east-1.amazonaws.com/with.dots"),
        ({"AWS_ENDPOINT_URL": "http://host:9000/"}, "bucket", "http://host:9000/bucket"),
        ({"AWS_REGION": "eu-west-1"}, "abc", "https://abc.s3.eu-west-1.amazonaws.com"),
    ],
)
def test_a_bucket_answers_where_its_endpoint_says(tmp_path: Path, environ: dict[str, str], bucket: str, url: str):
    assert find_account({}, around(tmp_path, **environ)).bucket_url(bucket) == url


def test_a_login_is_what_ssh_would_make_of_it(tmp_path: Path):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host store\n HostName store.example\n User other\n Port 2200\n ProxyJump me@gate:2222\n"
    )
    found = Login.of({"host": "store"}, around(tmp_path, USER="me"))
    assert (found.host, found.port, found.user) == ("store.example", 2200, "other")
    assert found.jump is not None
    assert (found.jump.host, found.jump.port, found.jump.user) == ("gate", 2222, "me")
    assert Login.of({"host": "store", "user": "said"}, around(tmp_path)).user == "said"


def test_a_proxy_command_is_not_run(tmp_path: Path):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host store\n ProxyCommand nc %h %p\n")
    with pytest.raises(InputError, match="ProxyCommand"):
        Login.of({"host": "store"}, around(tmp_path, USER="me"))


def test_what_fsspec_speaks_is_spoken_too(desk: Desk):
    fsspec.filesystem("memory").store.clear()
    (desk.tmp / "set" / "sub").mkdir(parents=True)
    (desk.tmp / "set" / "a").write_bytes(b"one")
    (desk.tmp / "set" / "sub" / "large").write_bytes(b"x" * 9_000_000)
    for _ in range(2):
        sent = carry_out_put(TransferRequest(source="set", target="memory://there/set"), desk.places())
    got = [carry_out_get(TransferRequest(source="memory://there/set", target="back"), desk.places()) for _ in range(2)]
    assert [each.path for each in list_location("memory://there/set", desk.places(), recursive=True).entries] == [
        "a",
        "sub/large",
    ]
    assert (desk.tmp / "back" / "sub" / "large").read_bytes() == b"x" * 9_000_000
    assert (got[0].transferred_files, got[1].transferred_files, got[1].digest) == (2, 0, sent.digest)
