"""A server that lets us do one thing and not another: what it does not show may be there, and is tried."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest

from deephpc.data.storage import Forbidden, Missing, Refused
from deephpc.errors import DataError
from deephpc.jobs.state import JobState
from deephpc.workflows.collect import carry_out_collect, plan_collect
from deephpc.workflows.data import TransferRequest, TransferResult, carry_out_get, carry_out_put
from tests.fakes.samples import a_job

from . import command, servers
from .conftest import Desk
from .servers import Said
from .test_error_bodies import s3_error
from .test_spellings import in_bucket, read


def put(desk: Desk, source: str, place: str) -> TransferResult:
    return carry_out_put(TransferRequest(source=str(desk.tmp / source), target=place), desk.places())


def get(desk: Desk, place: str) -> TransferResult:
    return carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())


@pytest.fixture
def many(desk: Desk) -> dict[str, bytes]:
    """A folder `set` of more files than are looked for one by one."""
    made = {f"sub/{number} ü" if number % 2 else f"{number}": b"%d" % number for number in range(40)}
    for name, content in made.items():
        (desk.tmp / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.tmp / "set" / name).write_bytes(content)
    (desk.tmp / "one").write_bytes(b"one")
    return made


class SecretBucket:
    """A bucket for one who may put, perhaps get, and not list.

    Source: Amazon S3 API reference, HeadObject and GetObject, "Permissions": without s3:ListBucket 403 answers for
    what does not exist. An answer to HEAD has no body.
    """

    def __init__(self, *, may_get: bool) -> None:
        self.objects: dict[str, bytes] = {}
        self.may_get = may_get

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Said:
        if method == "PUT":
            self.objects[path] = b"x" * int(headers["Content-Length"])
            return Said(headers={"ETag": '"1"'})
        if "?" not in path and self.may_get and path in self.objects:
            return Said(b"" if method == "HEAD" else self.objects[path])
        return Said(b"" if method == "HEAD" else s3_error("AccessDenied", "Access Denied"), status=403)


@pytest.mark.parametrize("may_get", [True, False])
def test_what_may_be_put_and_not_listed_is_put(desk: Desk, many: dict[str, bytes], may_get: bool):
    there = SecretBucket(may_get=may_get)
    with servers.scripted(there.answer) as url:
        place = in_bucket(desk, url)
        assert put(desk, "set", place).transferred_files == 40
        assert put(desk, "one", f"{place}renamed").transferred_files == 1
        assert len(there.objects) == 41
        assert len(there.objects["/bucket/set/renamed"]) == 3
        if may_get:
            assert get(desk, f"{place}renamed").size_bytes == 3
            with pytest.raises(Forbidden, match="403 AccessDenied: Access Denied"):
                get(desk, f"{place}nothing")
        with pytest.raises(Forbidden, match="403 AccessDenied"):
            get(desk, place)


@pytest.fixture
def moto(desk: Desk, tmp_path: Path) -> Iterator[str]:
    """moto's S3 with rights that are enforced; yields its URL."""
    (tmp_path / "s3").mkdir()
    with servers.s3(tmp_path / "s3") as port:
        yield f"http://127.0.0.1:{port}"


def as_user(desk: Desk, url: str, *actions: str) -> str:
    """Be one who may do that alone, in a bucket of which another has `set/old`; return the bucket's folder."""
    root = {"endpoint_url": url, "aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    s3, iam = boto3.client("s3", **root), boto3.client("iam", **root)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="set/old", Body=b"old")
    iam.create_user(UserName="user")
    rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_user_policy(UserName="user", PolicyName="some", PolicyDocument=json.dumps(rights))
    key = iam.create_access_key(UserName="user")["AccessKey"]
    httpx.post(f"{url}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()
    place = in_bucket(desk, url)
    desk.environ["RCLONE_CONFIG_THERE_ACCESS_KEY_ID"] = key["AccessKeyId"]
    desk.environ["RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY"] = key["SecretAccessKey"]
    return place


def test_of_a_real_policy_what_is_allowed_is_done(desk: Desk, many: dict[str, bytes], moto: str):
    place = as_user(desk, moto, "s3:PutObject")
    assert put(desk, "set", place).transferred_files == 40
    assert put(desk, "one", f"{place}renamed").transferred_files == 1
    with pytest.raises(Forbidden, match="403 AccessDenied: Access Denied"):
        get(desk, f"{place}old")


def test_who_may_get_and_not_list_gets_what_is_named(desk: Desk, moto: str):
    place = as_user(desk, moto, "s3:GetObject")
    assert get(desk, f"{place}old").size_bytes == 3
    with pytest.raises(Forbidden):
        get(desk, place)
    with pytest.raises(Forbidden, match="AccessDenied"):
        put(desk, "back", place)


def test_who_may_list_and_not_get_sees_what_there_is(desk: Desk, moto: str, monkeypatch, capsys):
    place = as_user(desk, moto, "s3:ListBucket")
    code, out, _ = command.run_here(desk, monkeypatch, capsys, "data", "ls", place.rstrip("/"))
    assert (code, "old" in out) == (0, True)


APACHE = "<LimitExcept {}>\nRequire all denied\n</LimitExcept>"
NGINX = "dav_methods PUT MKCOL MOVE DELETE; create_full_put_path on; limit_except {} {{ deny all; }}"
#: What may be done there.
RIGHTS = {
    "nginx as it is": (servers.nginx, "dav_methods PUT MKCOL MOVE DELETE; create_full_put_path on;"),
    "nginx, no folders": (servers.nginx, "dav_methods PUT; create_full_put_path on;"),
    "nginx, drop": (servers.nginx, NGINX.format("PUT")),
    "apache, no list": (servers.apache, APACHE.format("GET PUT MKCOL MOVE DELETE")),
    "apache, no reading": (servers.apache, APACHE.format("PUT MKCOL MOVE DELETE")),
    "apache, drop": (servers.apache, APACHE.format("PUT MKCOL")),
    "apache, no moves": (servers.apache, APACHE.format("GET PROPFIND PUT MKCOL")),
}


@contextlib.contextmanager
def dav(desk: Desk, rights: str) -> Iterator[tuple[str, Path]]:
    start, rules = RIGHTS[rights]
    with start(desk.tmp / "server", rules) as port:
        yield f"webdav://127.0.0.1:{port}/", desk.tmp / "server" / "root"


@pytest.mark.parametrize("rights", RIGHTS)
def test_what_a_webdav_server_takes_is_put_whatever_it_shows(desk: Desk, many: dict[str, bytes], rights: str):
    with dav(desk, rights) as (url, root):
        assert put(desk, "set", f"{url}top/set").transferred_files == 40
        assert put(desk, "one", f"{url}top/renamed").transferred_files == 1
        found = read(root / "top")
        wanted = {**{f"set/{name}": content for name, content in many.items()}, "renamed": b"one"}
        assert {name: found.get(name) for name in wanted} == wanted
        drafts = [name for name in found if name.endswith(".part")]
        # of two commands, where they may be neither renamed nor removed
        assert len(drafts) <= (16 if "no " in rights else 0)
        if "drop" not in rights and "no reading" not in rights:
            assert get(desk, f"{url}top/renamed").size_bytes == 3
            with pytest.raises(Missing):
                get(desk, f"{url}top/nothing")


@pytest.mark.parametrize("rights", ["nginx, drop", "apache, drop"])
def test_results_go_to_where_nothing_is_shown(desk: Desk, rights: str):
    job = a_job(desk.tmp, state=JobState.COMPLETED)
    (job.folder / "output").mkdir(parents=True)
    (job.folder / "output" / "model").write_bytes(b"model")
    with dav(desk, rights) as (url, root):
        sent = carry_out_collect(plan_collect(job, None, url), desk.places())
        assert (sent.files, sent.transferred_files) == (1, 1)
        assert read(root) == {f"{job.run_id}/output/model": b"model"}


@pytest.mark.parametrize("rights", ["GET PROPFIND", "GET"])
def test_where_nothing_may_be_written_that_is_told(desk: Desk, many: dict[str, bytes], rights: str):
    with (
        servers.apache(desk.tmp / "server", APACHE.format(rights)) as port,
        pytest.raises(Refused, match=r"the server forbids it \(403\)"),
    ):
        put(desk, "one", f"webdav://127.0.0.1:{port}/one")


def test_reading_back_that_was_asked_for_and_is_forbidden_is_no_success(desk: Desk, many: dict[str, bytes]):
    with dav(desk, "nginx, drop") as (url, _), pytest.raises(DataError, match="403"):
        carry_out_put(TransferRequest(source=str(desk.tmp / "one"), target=f"{url}one", read_back=True), desk.places())
