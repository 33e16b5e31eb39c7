import os
from datetime import datetime, timezone

import pytest
from pydantic import ValidationError

from deephpc.errors import SiteError
from deephpc.node.gateway_certificate import make_certificate
from deephpc.serve.endpoint import Endpoint, load_endpoint, load_token, prepare_token, publish, withdraw

CERTIFICATE = make_certificate("demo-1a2b", "c1")
ENDPOINT = Endpoint(
    run_id="demo-1a2b",
    host="c1",
    port=61234,
    certificate=CERTIFICATE.pem,
    public_key_pin=CERTIFICATE.public_key_pin,
    started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
)


def test_what_is_published_is_read_back(tmp_path):
    publish(tmp_path, ENDPOINT)
    assert load_endpoint(tmp_path) == ENDPOINT
    assert len(ENDPOINT.fingerprint) == 64


def test_a_run_without_a_server_has_no_endpoint_and_no_token(tmp_path):
    assert load_endpoint(tmp_path) is None
    assert load_token(tmp_path) is None


def test_a_requeued_run_keeps_its_token(tmp_path):
    token = prepare_token(tmp_path)
    assert len(bytes.fromhex(token)) == 32
    assert prepare_token(tmp_path) == token
    assert (tmp_path / "secrets" / "authorization").read_text() == f"Authorization: Bearer {token}\n"


def test_all_files_are_for_their_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        publish(tmp_path, ENDPOINT)
        prepare_token(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "endpoint.json": 0o600,
        "certificate.pem": 0o600,
        "secrets": 0o700,
        "token": 0o600,
        "authorization": 0o600,
    }


def test_an_endpoint_is_taken_back_but_not_that_of_a_later_attempt(tmp_path):
    publish(tmp_path, ENDPOINT)
    withdraw(tmp_path, ENDPOINT)
    assert load_endpoint(tmp_path) is None
    later = ENDPOINT.model_copy(update={"attempt": 2})
    publish(tmp_path, later)
    withdraw(tmp_path, ENDPOINT)
    assert load_endpoint(tmp_path) == later


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_others_may_read_is_refused(tmp_path, mode):
    prepare_token(tmp_path)
    (tmp_path / "secrets" / "token").chmod(mode)
    with pytest.raises(SiteError, match="open to others"):
        load_token(tmp_path)


def test_an_endpoint_others_may_write_is_refused(tmp_path):
    publish(tmp_path, ENDPOINT)
    (tmp_path / "endpoint.json").chmod(0o622)
    with pytest.raises(SiteError, match="open to others"):
        load_endpoint(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_an_endpoint_of_somebody_else_is_refused(tmp_path):
    publish(tmp_path, ENDPOINT)
    os.chown(tmp_path / "endpoint.json", 65534, 65534)
    with pytest.raises(SiteError, match="belongs to user 65534"):
        load_endpoint(tmp_path)


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text(ENDPOINT.model_dump_json(by_alias=True))
    (tmp_path / "endpoint.json").symlink_to("elsewhere")
    with pytest.raises(SiteError, match="cannot read"):
        load_endpoint(tmp_path)


def test_a_pipe_in_place_of_a_file_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "endpoint.json", 0o600)
    with pytest.raises(SiteError, match="open to others"):
        load_endpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "null", '{"schema": "deephpc.endpoint/9"}', "\0\0"])
def test_a_file_of_another_version_is_an_error_with_a_hint(tmp_path, text):
    (tmp_path / "endpoint.json").write_text(text)
    (tmp_path / "endpoint.json").chmod(0o600)
    with pytest.raises(SiteError, match=r"endpoint\.json cannot be read"):
        load_endpoint(tmp_path)


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "c1;id", "c1 x", ""])
def test_a_host_that_could_be_an_option_or_a_command_is_refused(host):
    with pytest.raises(ValidationError):
        Endpoint.model_validate({**ENDPOINT.model_dump(by_alias=True), "host": host})


def test_what_is_no_certificate_is_refused():
    with pytest.raises(ValidationError):
        Endpoint.model_validate({**ENDPOINT.model_dump(by_alias=True), "certificate": "x"})
