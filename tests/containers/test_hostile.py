"""Registries that mean harm: whatever they answer ends in an error of ours, in time, and leaves nothing behind."""

import hashlib
import json
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.auth import Credentials
from deephpc.containers.pull import Pulled, pull
from deephpc.containers.reference import parse_reference
from deephpc.containers.refusal import _retry_after
from deephpc.containers.registry import Access, Registry, _parse_tags, _range_start
from deephpc.containers.registry_token import parse_challenge
from deephpc.containers.source import Interrupted
from deephpc.containers.store import Store
from deephpc.containers.transfer import Transfer
from deephpc.errors import DeephpcError, EngineError
from deephpc.retries import Patience
from tests.fakes.samples import A_TENTH
from tests.fakes.waiting import DEADLINE_S

from .conftest import AMD64
from .images import BuiltImage, build_image, digest_of, some_layers
from .servers import PASSWORD, USER, Front, FrontHandler, Trick, front_of

KEY = Credentials(USER, PASSWORD, origin="the test")
#: Gives up after few tries, and takes no slow answer for silence.
HASTY = Patience(attempts=3, deadline_s=DEADLINE_S, first_nap_s=0.01, connect_s=DEADLINE_S, stall_s=DEADLINE_S)
NOBODY = 1  # the port of an upstream that is never asked
DEEP = b"[" * 200_000


@pytest.fixture
def built(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "layout", some_layers(2, 4_000), compression=("",))


def serve(built: BuiltImage) -> Trick:
    """An honest registry of one image, under any name."""

    def answer(handler: FrontHandler) -> bool:
        name = handler.path.rpartition("/")[2]
        digest = built.digest if "/manifests/" in handler.path else name
        file = built.layout / "blobs/sha256" / digest.removeprefix("sha256:")
        if file.is_file():
            handler.answer(200, file.read_bytes(), Content_Type="application/octet-stream")
        else:
            handler.answer(200, b"{}")
        return True

    return answer


def for_path(part: str, act: Callable[[FrontHandler], object]) -> Trick:
    """A trick played on requests whose path has a part."""

    def trick(handler: FrontHandler) -> bool:
        if part not in handler.path:
            return False
        act(handler)
        return True

    return trick


@contextmanager
def hostile(built: BuiltImage, *tricks: Trick) -> Iterator[Front]:
    with front_of(NOBODY, tricks=[*tricks, serve(built)]) as front:
        yield front


def pull_from(
    front: Front,
    store: Store,
    credentials: Credentials | None = None,
    name: str = "demo/tool",
    patience: Patience = HASTY,
) -> Pulled:
    with Registry(parse_reference(f"{front.host}/{name}"), Access(credentials, patience=patience)) as source:
        return pull(Transfer(store, source, patience), source.resolve(), AMD64, datetime.now(timezone.utc))


def refused(
    front: Front, store: Store, credentials: Credentials | None = None, patience: Patience = HASTY
) -> DeephpcError:
    """The error a pull ends with, with nothing listed and no blob kept."""
    with pytest.raises(DeephpcError) as caught:
        pull_from(front, store, credentials, patience=patience)
    assert caught.value.exit_code in (3, 4)
    assert caught.value.hint
    assert store.images() == ()
    return caught.value


def raw(*lines: str, body: bytes = b"") -> Callable[[FrontHandler], None]:
    """An answer as it stands, whatever HTTP says about it."""

    def act(handler: FrontHandler) -> None:
        handler.close_connection = True
        handler.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    return act


def test_the_honest_one_is_believed(built: BuiltImage, store: Store) -> None:
    with hostile(built) as front:
        assert pull_from(front, store).image.digest == built.digest


@pytest.mark.parametrize(
    "said",
    ["\xb2", "9" * 5000, "-5", "nan", "soon", "Fri, 31 Dec 9999 23:59:59 -2300", "Mon, 01 Jan 0001 00:00:00 +1200"],
)
def test_no_retry_after_is_waited_for_beyond_reason(built: BuiltImage, store: Store, said: str) -> None:
    busy = raw("HTTP/1.1 429 Busy", f"Retry-After: {said}", "Content-Length: 0")
    with hostile(built, for_path("/manifests/", busy)) as front:
        assert isinstance(refused(front, store), Interrupted)


@pytest.mark.parametrize(
    "answer",
    [
        raw("no http at all", body=b"\x15\x03\x01"),
        raw(),
        raw("HTTP/1.1 200 OK", "Content-Length: 99", body=b"{}"),
        raw("HTTP/1.1 200 OK", "Content-Length: -1", body=b"{}"),
        raw("HTTP/1.1 200 OK", f"Content-Length: {'9' * 5000}", body=b"{}"),
        raw("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Length: 3", body=b"{}}"),
        raw("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=b"ffffffffffffffffffff\r\n{}"),
        raw("HTTP/1.1 200 OK", f"X-Long: {'x' * 200_000}", "Content-Length: 2", body=b"{}"),
        raw("HTTP/1.1 200 OK", "Content-Encoding: gzip", "Content-Length: 2", body=b"{}"),
        raw("HTTP/1.1 200 OK", "Content-Length: 0"),
        raw("HTTP/1.1 204 Nothing"),
        raw("HTTP/1.1 304 Same", "Content-Length: 0"),
        raw("HTTP/1.1 999 Odd", "Content-Length: 0"),
        raw("HTTP/1.1 302 There", "Content-Length: 0"),
        raw("HTTP/1.1 302 There", "Location: //[::", "Content-Length: 0"),
        raw("HTTP/1.1 302 There", "Location: http://127.0.0.1:99999999/", "Content-Length: 0"),
        raw("HTTP/1.1 302 There", "Location: http://\xff\xfe.invalid/", "Content-Length: 0"),
        raw("HTTP/1.1 302 There", f"Location: http://{'a' * 300}.invalid/", "Content-Length: 0"),
        raw("HTTP/1.1 401 Who", 'WWW-Authenticate: Bearer realm="http://[", service=x', "Content-Length: 0"),
        raw("HTTP/1.1 401 Who", "WWW-Authenticate: Bearer", "Content-Length: 0"),
        raw("HTTP/1.1 401 Who", "WWW-Authenticate: Negotiate", "Content-Length: 0"),
    ],
)
def test_nonsense_on_the_wire_is_an_error(
    built: BuiltImage, store: Store, answer: Callable[[FrontHandler], None]
) -> None:
    with hostile(built, for_path("/manifests/", answer)) as front:
        refused(front, store)


@pytest.mark.parametrize("said", [f"bytes {'9' * 5000}-9/10", "bytes 0-9/10", "bytes */10", "", "lines 4-"])
def test_a_range_other_than_the_one_asked_for_is_not_taken(built: BuiltImage, store: Store, said: str) -> None:
    digest = built.layer_digests[0]
    content = (built.layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()

    def half(handler: FrontHandler) -> None:
        if "Range" in handler.headers:
            raw("HTTP/1.1 206 Part", f"Content-Range: {said}", body=b"x" * 10)(handler)
        else:
            raw("HTTP/1.1 200 OK", f"Content-Length: {len(content)}", body=content[:100])(handler)

    with hostile(built, for_path(digest, half)) as front:
        refused(front, store)
    assert not list(store.blobs.glob(digest.removeprefix("sha256:")))


def endless(handler: FrontHandler) -> None:
    """A body without end, as fast as it goes; it stops after 64 MiB so that a failing test ends."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        for _ in range(1024):
            handler.wfile.write(b" " * 65536)
    except OSError:
        return
    handler.front.served.clear()  # it was read to its end


def dripping(handler: FrontHandler) -> None:
    """A body that never falls silent and never ends."""
    handler.close_connection = True
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not handler.front.resume.wait(0.05):
            handler.wfile.write(b" ")
    except OSError:
        return


@pytest.mark.parametrize("place", ["/v2/", "/manifests/", "/token", "config"])
@pytest.mark.parametrize("body", [endless, dripping])
def test_no_document_is_read_for_ever(
    built: BuiltImage, store: Store, place: str, body: Callable[[FrontHandler], None]
) -> None:
    def ask_for_token(handler: FrontHandler) -> None:
        handler.answer(401, WWW_Authenticate=f'Bearer realm="http://{handler.front.host}/t/token"')

    part = built.manifest["config"]["digest"] if place == "config" else place
    tricks = [for_path(part, body)]
    if place == "/v2/":
        tricks = [lambda handler: handler.path == "/v2/" and (body(handler) or True)]
    if place == "/token":
        tricks.append(for_path("/manifests/", ask_for_token))
    with hostile(built, *tricks) as front:
        if place == "/v2/":  # only its status counts
            assert pull_from(front, store).image.digest == built.digest
        else:
            refused(front, store, patience=replace(HASTY, deadline_s=1.0) if body is dripping else HASTY)
        assert front.served  # it was not read to its end
        front.resume.set()


def document(**changes: Any) -> Callable[[BuiltImage], bytes]:
    return lambda built: json.dumps({**built.manifest, **changes}).encode()


@pytest.mark.parametrize(
    "make",
    [
        lambda _built: DEEP,
        lambda _built: b'{"a":' * 100_000,
        lambda _built: b"\xff\xfe{}",
        lambda _built: b'{"schemaVersion": 2, "config": {"size": ' + b"9" * 5000 + b"}}",
        lambda _built: b'{"schemaVersion": NaN}',
        document(mediaType="\x1b]0;pwned\x07\x1b[2J"),
        document(mediaType="\ud800"),
        document(mediaType=7),
        document(layers=[{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}] * 1001),
        document(layers=[{"mediaType": "\ud800", "digest": "sha256:" + "0" * 64, "size": 1}]),
        document(layers=[{"mediaType": "x", "digest": "sha256:" + "A" * 64, "size": 1}]),
        document(layers=[{"mediaType": "x", "digest": "sha256:" + "0" * 64 + "/../x", "size": 1}]),
        document(layers=[{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1e300}]),
        document(config={"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "md5:x", "size": 1}),
    ],
)
def test_manifests_made_to_break_a_reader_are_refused_in_plain_words(
    built: BuiltImage, store: Store, make: Callable[[BuiltImage], bytes]
) -> None:
    content = make(built)
    with hostile(built, for_path("/manifests/", lambda handler: handler.answer(200, content))) as front:
        error = refused(front, store)
    assert len(error.message) < 1000
    assert set(error.message) <= set(string.printable[:95]) | {"…"}


@pytest.mark.parametrize(
    "content", [DEEP, b"null", b"7", b'{"tags": 7}', b'{"tags": {"a": 1}}', b'{"tags": ' * 100_000]
)
def test_a_list_of_tags_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match="is not one"):
        _parse_tags(content, "the test")


def test_tags_that_are_none_are_not_shown(built: BuiltImage) -> None:
    content = json.dumps({"tags": ["1.0", "\x1b[2J", "../../x", "a b", 7, None, "x" * 200, "gpu"]}).encode()
    with (
        hostile(built, for_path("/tags/", lambda handler: handler.answer(200, content))) as front,
        Registry(parse_reference(f"{front.host}/demo/tool"), Access(patience=HASTY)) as source,
    ):
        assert source.tags() == ("1.0", "gpu")


@pytest.mark.parametrize("following", ["@{other}/v2/x/tags/list", "//{other}/x", "http://{other}/x", "v2/x", ":1/x"])
def test_the_next_page_of_tags_lies_on_the_same_host(built: BuiltImage, following: str) -> None:
    with hostile(built) as other:

        def first_page(handler: FrontHandler) -> None:
            link = f'<{following.format(other=other.host)}>; rel="next"'
            handler.answer(200, b'{"tags": ["one"]}', Link=link)

        def basic_alone(handler: FrontHandler) -> bool:
            if "Authorization" in handler.headers:
                return False
            handler.answer(401, WWW_Authenticate="Basic realm=x")
            return True

        with hostile(built, basic_alone, for_path("/tags/", first_page)) as front:
            access = Access(KEY, patience=HASTY)
            with Registry(parse_reference(f"{front.host}/demo/tool"), access) as source:
                try:
                    tags = source.tags()
                except EngineError:
                    tags = ("one",)
        assert set(tags) == {"one"}
        assert other.served == []


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_the_target_of_a_redirect_gets_no_credentials_by_asking(built: BuiltImage, store: Store, scheme: str) -> None:
    def ask(handler: FrontHandler) -> None:
        realm = f"http://{handler.front.host}/t/token"
        handler.answer(401, WWW_Authenticate=f'{scheme.title()} realm="{realm}",service="x"')

    with hostile(built, for_path("/", ask)) as thief:

        def send_away(handler: FrontHandler) -> None:
            handler.answer(307, Location=f"http://{thief.host}{handler.path}")

        with hostile(built, for_path("/blobs/", send_away)) as front:
            refused(front, store, KEY)
        assert thief.served
        assert not any("Authorization" in each.headers or "token" in each.path for each in thief.served)


def test_a_circle_of_redirects_ends(built: BuiltImage, store: Store) -> None:
    def on(handler: FrontHandler) -> None:
        handler.answer(307, Location=handler.path)

    with hostile(built, for_path("/manifests/", on)) as front:
        assert "sends us on more than 5 times" in refused(front, store).message
        assert len([each for each in front.served if "/manifests/" in each.path]) == 6


@pytest.mark.parametrize(
    "body",
    [
        {"token": "tök€n"},
        {"token": "a\r\nX-Injected: 1"},
        {"token": 7},
        {"token": ""},
        {"token": "ok", "expires_in": 10**400},
        {"token": "ok", "expires_in": [1]},
        ["token"],
        None,
    ],
)
def test_a_token_that_is_none_is_refused(built: BuiltImage, store: Store, body: object) -> None:
    def ask(handler: FrontHandler) -> bool:
        if "/v2/demo" not in handler.path or "Authorization" in handler.headers:  # any token will do
            return False
        handler.answer(401, WWW_Authenticate=f'Bearer realm="http://{handler.front.host}/t/token"')
        return True

    give = for_path("/token", lambda handler: handler.answer(200, json.dumps(body).encode()))
    with hostile(built, give, ask) as front:
        assert "no proper token" in refused(front, store).message
        assert not [each for each in front.served if "Authorization" in each.headers]


def test_a_token_in_a_thousand_brackets_is_refused(built: BuiltImage, store: Store) -> None:
    def ask(handler: FrontHandler) -> None:
        handler.answer(401, WWW_Authenticate=f'Bearer realm="http://{handler.front.host}/t/token"')

    give = for_path("/token", lambda handler: handler.answer(200, DEEP))
    with hostile(built, give, for_path("/v2/demo", ask)) as front:
        assert "no proper token" in refused(front, store).message


def test_a_layer_that_goes_on_after_its_size_is_not_written_down(built: BuiltImage, store: Store) -> None:
    digest = built.layer_digests[1]
    with hostile(built, for_path(digest, endless)) as front:
        assert "goes on after" in refused(front, store).message
        assert front.served  # it was not read to its end
    assert not [path for path in store.root.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]


def test_one_digest_with_two_sizes_is_refused(tmp_path: Path, store: Store) -> None:
    built = build_image(tmp_path / "twice", some_layers(1, 4_000) * 2, compression=("",))
    first, second = built.manifest["layers"]
    content = json.dumps({**built.manifest, "layers": [{**first, "size": first["size"] + 1}, second]}).encode()
    with hostile(built, for_path("/manifests/", lambda handler: handler.answer(200, content))) as front:
        assert "two sizes" in refused(front, store).message


def test_a_configuration_that_is_a_layer_is_refused(built: BuiltImage, store: Store) -> None:
    first = built.manifest["layers"][0]
    lied = {**first, "mediaType": built.manifest["config"]["mediaType"]}
    content = json.dumps({**built.manifest, "config": lied}).encode()
    with hostile(built, for_path("/manifests/", lambda handler: handler.answer(200, content))) as front:
        assert "is not JSON" in refused(front, store).message


@pytest.mark.parametrize(
    "config",
    [
        DEEP,
        b'{"config": {"Env": ["A=\\ud800"]}}',
        b'{"config": {"WorkingDir": 7}}',
        b'{"rootfs": {"diff_ids": ["sha256:../x"]}}',
        b'{"architecture": "\\u001b[2J"}',
    ],
)
def test_configurations_made_to_break_a_reader_are_refused(built: BuiltImage, store: Store, config: bytes) -> None:
    named = {**built.manifest["config"], "digest": digest_of(config), "size": len(config)}
    manifest = json.dumps({**built.manifest, "config": named}).encode()
    tricks = (
        for_path("/manifests/", lambda handler: handler.answer(200, manifest)),
        for_path(named["digest"], lambda handler: handler.answer(200, config)),
    )
    with hostile(built, *tricks) as front:
        error = refused(front, store)
    assert set(error.message) <= set(string.printable[:95]) | {"…"}


@pytest.mark.parametrize(
    "name",
    [
        *("../../etc/passwd", "demo/../tool", "demo//tool", "demo/tool:../../x", "demo/tool:-rf", "demo/tool@sha256:x"),
        *("demo/tool;id", "demo/$(id)", "demo/`id`", "demo/tool\n", "demo/tool\0", "demo/tool:a b", "demo/%2e%2e/x"),
        *("demo/tool?x=1", "demo/tool#x", "user:pass@127.0.0.1/demo", "127.0.0.1:x/demo", "demo/t\u0301ool", "--help"),
        f"demo/tool@sha256:{'0' * 63}G",
        f"demo/tool@sha512:{hashlib.sha512(b'').hexdigest()}",
        "a/" * 200 + "b",
    ],
)
def test_hostile_names_are_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(DeephpcError) as caught:
        parse_reference(name)
    assert caught.value.exit_code == 2


@A_TENTH
@given(st.text(max_size=200))
def test_any_header_is_read_without_a_stumble(text: str) -> None:
    challenge = parse_challenge([text])
    assert challenge is None or challenge.scheme in ("basic", "bearer")
    wait_s = _retry_after(text)
    assert wait_s is None or wait_s >= 0
    assert _range_start(text) >= -1
