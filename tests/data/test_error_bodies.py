"""What a server says itself when it refuses is told, with the next step that fits, and none of our secrets."""

import gzip
import hashlib
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from deephpc.data.s3_signing import Keys, sign
from deephpc.data.storage import Forbidden, Interrupted, Limits, Refused, Unwritable
from deephpc.data.web import Request, Web
from deephpc.error_body import parse_error_body, secrets_of
from deephpc.errors import DataError
from deephpc.workflows.data import TransferRequest, carry_out_get

from . import command, servers
from .conftest import PATIENT, Desk, Server
from .servers import PASSWORD, USER, Said
from .test_spellings import in_bucket


def s3_error(code: str, message: str) -> bytes:
    """Return an error as Amazon's reference has it, "Error responses"."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<Resource>/b/k</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()


def sabre_error(exception: str, message: str) -> bytes:
    """Return an error as sabre/dav 4.6 makes it, lib/DAV/Server.php `start`."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">\n'
        f"  <s:exception>{exception}</s:exception>\n  <s:message>{message}</s:message>\n</d:error>\n"
    ).encode()


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (s3_error("AccessDenied", "Access Denied"), "AccessDenied", "Access Denied"),
        (sabre_error("Sabre\\DAV\\Exception\\Forbidden", "Zugriff verweigert."), "Forbidden", "Zugriff verweigert"),
        (
            b'<D:error xmlns:D="DAV:"><D:quota-not-exceeded/></D:error>',  # RFC 4331, 6
            "quota-not-exceeded",
            "",
        ),
        (
            b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":null}]}',
            "DENIED",
            "requested access to the resource is denied",
        ),
        (b'{"error":"invalid_token","error_description":"expired"}', "invalid_token", "expired"),  # RFC 6750, 3.1
        (b'{"error":{"code":403,"message":"no\\u0000 \\u001b[31mred"}}', "", "no [31mred"),
        (b'{"details":"incorrect username or password"}', "", "incorrect username or password"),
        (b'{"detail":["a","b"]}', "", ""),
        (b"Rate exceeded: 5 a second\nmore", "", "Rate exceeded: 5 a second"),
        (b"<html><head><title>403 Forbidden</title></head></html>", "", ""),
        (b"<!DOCTYPE html><title>Blocked &amp; logged</title>", "", "Blocked & logged"),
        (b"\xef\xbb\xbf<Error><Code>X</Code></Error>", "X", ""),
        (b"<Error><Code>cut off", "", ""),
        (b'{"errors": [', "", ""),
        (b"[" * 100_000, "", ""),
        (b"\xff\xfe\x00\x01", "", "\ufffd\ufffd"),
        ("\u202eevil\u2028x".encode(), "", "evil x"),
        (b"x" * 1000, "", "x" * 300 + "…"),
        (b"", "", ""),
    ],
)
def test_code_and_message_are_found_in_whatever_form(body: bytes, code: str, message: str):
    found = parse_error_body(body)
    assert (found.code, found.message) == (code, message)


def test_what_we_sent_is_not_repeated():
    login = "Basic YWxpY2U6c2VzYW0="  # alice:sesam
    found = secrets_of("https://host/f?token=abc%2Fd&x=1", [login, "Bearer t0ken", "0ther-key"])
    said = b"sesam YWxpY2U6c2VzYW0= t0ken abc/d 0ther-key token=abc%2Fd&x=1 fine"
    assert parse_error_body(said, found).message == "*** *** *** *** *** *** fine"


def refusing(status: int, body: bytes, **headers: str):
    """Refuse everything so."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return servers.scripted(lambda method, path, sent: Said(body, more, status))


def told(desk: Desk, place: str) -> DataError:
    with pytest.raises(DataError) as caught:
        carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "hint"),
    [
        (403, "RequestTimeTooSkewed", "The difference is too large.", Refused, "clock is 1:0"),
        (403, "InvalidAccessKeyId", "The key does not exist in our records.", Refused, "check the access key"),
        (403, "SignatureDoesNotMatch", "Check your key.", Refused, "check the secret key"),
        (400, "ExpiredToken", "The provided token has expired.", Refused, "log in again"),
        (403, "AccessDenied", "User: x is not authorized to perform: s3:GetObject", Forbidden, "ask its owner"),
        (503, "SlowDown", "Please reduce your request rate.", Interrupted, "--parallel 2"),
        (403, "QuotaExceeded", "over", Unwritable, "ask for quota"),  # Ceph
        (507, "XMinioStorageFull", "Storage backend has reached its limit", Unwritable, "ask for quota"),
        (400, "RequestTimeout", "Your socket connection was not read from.", Interrupted, "goes on where it stopped"),
        (400, "AuthorizationHeaderMalformed", "the region 'a' is wrong", Refused, "endpoint and region"),
        (418, "Teapot", "Short and stout.", DataError, "data ls"),
    ],
)
def test_s3s_own_code_says_what_to_do(desk: Desk, status: int, code: str, message: str, kind: type, hint: str):
    an_hour_ago = format_datetime(datetime.now(timezone.utc) - timedelta(hours=1), usegmt=True)
    with refusing(status, s3_error(code, message), Date=an_hour_ago) as url:
        error = told(desk, in_bucket(desk, url) + ("" if kind is Interrupted else "file"))
    assert type(error) is kind
    assert f"{status} {code}: {message.removesuffix('.')}" in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (403, sabre_error("OCA\\DAV\\Forbidden", "Diese Freigabe ist abgelaufen"), "(403 Forbidden: Diese Freigabe"),
        (401, sabre_error("Sabre\\DAV\\Exception\\NotAuthenticated", "No token"), "(401 NotAuthenticated: No token)"),
        (503, sabre_error("Sabre\\DAV\\Exception\\ServiceUnavailable", "System in maintenance mode."), "maintenance"),
        (507, sabre_error("Sabre\\DAV\\Exception\\InsufficientStorage", ""), "no room for it (507 Insufficient"),
        (403, b"Forbidden", "the server forbids it (403)"),
        (500, b"disk controller on fire\n at line 3", "answers 500 disk controller on fire"),
        (403, f"who is {USER} with {PASSWORD}?".encode(), "who is alice with ***?"),
        (502, b"", "answers 502 Bad Gateway"),
    ],
)
def test_a_web_servers_own_words_are_told(desk: Desk, webdav: Server, status: int, body: bytes, says: str):
    with refusing(status, body) as url:
        desk.know(webdav, int(url.rpartition(":")[2]))
        error = told(desk, "there:x")
    assert says in error.message


def test_words_that_come_packed_or_without_end_are_read_as_far_as_they_go(desk: Desk):
    packed = gzip.compress(b"no seats left")
    with refusing(403, packed, Content_Encoding="gzip") as url:
        assert "(403 no seats left)" in told(desk, f"{url}/x").message
    with refusing(403, b"x" * (1 << 20)) as url:
        assert "(403 xxx" in told(desk, f"{url}/x").message


def test_a_connection_is_used_again_after_words_were_read():
    with (
        servers.scripted(lambda method, path, headers: Said(b"no", status=403)) as url,
        servers.relay(int(url.rpartition(":")[2])) as relay,
    ):
        base = f"http://127.0.0.1:{relay.port}"
        web = Web(base, None, Limits(patience=PATIENT))
        for _ in range(5):
            with pytest.raises(Refused, match=r"forbids it \(403 no\)"):
                web.ask(Request("GET", f"{base}/x", "x", {}))
        web.close()
        assert relay.accepted == 1


def test_what_a_bucket_that_is_not_there_and_a_wrong_key_are_called(
    desk: Desk, s3: Server, bucket: Path, monkeypatch, capsys
):
    """Of moto and of rclone themselves."""
    del bucket
    (desk.tmp / "file").write_bytes(b"1")
    real = desk.environ
    desk.environ = {**real, "RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY": "wr0ng-secret"}
    code, _, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "file", "there:bucket/x")
    assert (code, "SignatureDoesNotMatch" in err, "check the secret key" in err) == (5, True, True), err
    desk.environ = {**real, "RCLONE_CONFIG_THERE_ACCESS_KEY_ID": "nobody"}
    code, _, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "file", "there:bucket/x")
    assert (code, "InvalidAccessKeyId" in err, "check the access key" in err) == (5, True, True), err
    desk.know(s3)
    code, _, err = command.run_here(desk, monkeypatch, capsys, "data", "put", "file", "there:nowhere/x")
    assert (code, "404 NoSuchBucket" in err, "check the bucket's name" in err) == (5, True, True), err


def test_a_clock_that_is_wrong_is_known_by_what_a_real_server_says(desk: Desk, bucket: Path):
    """Of rclone itself: a request that was signed an hour ago."""
    del bucket
    endpoint = desk.environ["RCLONE_CONFIG_THERE_ENDPOINT"]
    url, then = f"{endpoint}/bucket/x", datetime.now(timezone.utc) - timedelta(hours=1)
    headers = sign("GET", url, {}, hashlib.sha256(b"").hexdigest(), (Keys("key", PASSWORD), "us-east-1"), then)
    web = Web(endpoint, None, Limits(patience=PATIENT))
    with pytest.raises(Refused, match="between the request time and the server") as caught:
        web.ask(Request("GET", url, "x", headers))
    web.close()
    assert "set this machine's clock" in caught.value.hint
