"""Pulling from a real registry, and from registries that lie, stall and break off."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deephpc.containers.auth import Credentials
from deephpc.containers.reference import parse_reference
from deephpc.containers.registry import Access, Registry
from deephpc.containers.source import Corrupt, Interrupted
from deephpc.containers.store import Store
from deephpc.containers.upkeep import verify
from deephpc.errors import EngineError
from tests.fakes.waiting import DEADLINE_S, wait_until

from .conftest import PATIENT, Puller
from .images import BuiltImage, build_image, digest_of, put_blob, some_layers, write_index
from .servers import PASSWORD, USER, FrontHandler, RealRegistry, Trick, front_of, real_registry, run_tool

pytestmark = pytest.mark.slow  # they need a real registry and skopeo

KEY = Credentials(USER, PASSWORD, origin="the test")


@pytest.fixture
def image(tmp_path: Path, registry: RealRegistry) -> BuiltImage:
    """An image of gzip, zstd and plain layers, as `demo/tool:latest`."""
    built = build_image(tmp_path / "layout", some_layers(6), compression=("gzip", "zstd", ""))
    registry.push(built.layout, "demo/tool:latest")
    return built


def files_in(store: Store) -> set[str]:
    return {path.name for place in ("blobs", "partial") for path in (store.root / place).rglob("*") if path.is_file()}


def test_by_tag_and_by_digest_the_same_bytes_arrive(
    registry: RealRegistry, image: BuiltImage, store: Store, pull_image: Puller
) -> None:
    by_tag = pull_image(f"{registry.host}/demo/tool:latest").image
    assert by_tag.digest == image.digest
    assert [path.read_bytes() for path in by_tag.layers] == [
        (image.layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes() for digest in image.layer_digests
    ]
    assert verify(store, by_tag) == ()
    by_digest = pull_image(f"{registry.host}/demo/tool@{image.digest}")
    assert by_digest.fetched_bytes == 0
    assert len(by_digest.image.names) == 2


def test_other_tools_read_the_store_and_its_views(
    registry: RealRegistry, image: BuiltImage, tmp_path: Path, pull_image: Puller
) -> None:
    pulled = pull_image(f"{registry.host}/demo/tool:latest").image
    shown = json.loads(run_tool("skopeo", "inspect", "--raw", f"oci:{pulled.layout_dir}"))
    assert [layer["digest"] for layer in shown["layers"]] == image.layer_digests
    run_tool("skopeo", "copy", "-q", "--insecure-policy", f"oci:{pulled.layout_dir}", f"dir:{tmp_path / 'copy'}")
    assert (tmp_path / "copy" / "manifest.json").exists()


def test_basic_credentials_open_a_registry_and_wrong_ones_do_not(tmp_path: Path, pull_image: Puller) -> None:
    built = build_image(tmp_path / "layout", some_layers(2))
    with real_registry(tmp_path / "closed", basic=True) as closed:
        closed.push(built.layout, "private/tool", credentials=f"{USER}:{PASSWORD}")
        assert pull_image(f"{closed.host}/private/tool", credentials=KEY).image.digest == built.digest
        with pytest.raises(EngineError, match="refuses the credentials from elsewhere"):
            pull_image(f"{closed.host}/private/tool:other", credentials=Credentials(USER, "wrong", origin="elsewhere"))
        with pytest.raises(EngineError, match="refuses an anonymous pull"):
            pull_image(f"{closed.host}/private/tool:other")


def test_a_token_is_fetched_once_with_and_without_credentials(
    registry: RealRegistry, image: BuiltImage, tmp_path: Path, pull_image: Puller
) -> None:
    with front_of(registry.port, token_auth=True) as front:
        assert pull_image(f"{front.host}/demo/tool", credentials=KEY).image.digest == image.digest
        assert len(front.token_requests) == 1
        assert "scope=repository%3Ademo%2Ftool%3Apull" in front.token_requests[0]
        with pytest.raises(EngineError, match="refuses an anonymous pull"):
            pull_image(f"{front.host}/demo/tool:latest")
        front.anonymous_tokens = True
        elsewhere = Store(tmp_path / "elsewhere")
        assert pull_image(f"{front.host}/demo/tool", into=elsewhere).image.digest == image.digest


def test_one_flipped_byte_is_refused_and_nothing_is_kept(
    registry: RealRegistry, store: Store, tmp_path: Path, pull_image: Puller
) -> None:
    layers = [{f"flip{number}": os.urandom(50_000)} for number in range(4)]
    built = build_image(tmp_path / "layout", layers)
    registry.push(built.layout, "demo/flipped")
    blob = registry.blob_file(built.layer_digests[2])
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(Corrupt, match=built.layer_digests[2]) as caught:
        pull_image(f"{registry.host}/demo/flipped")
    assert caught.value.exit_code == 4
    assert store.images() == ()
    assert files_in(store) == set()


def test_a_failed_pull_spares_what_another_image_needs(
    registry: RealRegistry, store: Store, tmp_path: Path, pull_image: Puller
) -> None:
    shared = {"shared": os.urandom(30_000)}
    good = build_image(tmp_path / "good", [shared])
    bad = build_image(tmp_path / "bad", [shared, {"own": os.urandom(30_000)}])
    registry.push(good.layout, "demo/good")
    registry.push(bad.layout, "demo/bad")
    registry.blob_file(bad.layer_digests[1]).write_bytes(b"x" * registry.blob_file(bad.layer_digests[1]).stat().st_size)
    kept = pull_image(f"{registry.host}/demo/good").image
    with pytest.raises(Corrupt):
        pull_image(f"{registry.host}/demo/bad")
    assert verify(store, kept) == ()


def test_a_connection_closed_in_mid_body_is_taken_up_where_it_broke(
    registry: RealRegistry, tmp_path: Path, pull_image: Puller
) -> None:
    built = build_image(tmp_path / "layout", some_layers(2, 100_000), compression=("",))
    registry.push(built.layout, "demo/closing")
    size = sum(part["size"] for part in (built.manifest["config"], *built.manifest["layers"]))
    with front_of(registry.port, limit=30_000) as front:
        assert pull_image(f"{front.host}/demo/closing").fetched_bytes == size
        assert front.blob_bytes() == size
        assert any(each.status == 206 for each in front.blob_requests())


def test_a_server_without_ranges_is_read_from_the_beginning_again(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller
) -> None:
    def forget_ranges(handler: FrontHandler) -> bool:
        if "Range" in handler.headers:
            del handler.headers["Range"]
            handler.front.limit = None
        return False

    with front_of(registry.port, limit=9_000, tricks=[forget_ranges]) as front:
        assert pull_image(f"{front.host}/demo/tool").image.digest == image.digest


def test_a_stalling_server_is_left_and_asked_again(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller
) -> None:
    def asked_again(handler: FrontHandler) -> bool:
        if handler.path in [each.path for each in handler.front.blob_requests()]:
            handler.front.hold_at = None
        return False

    hasty = replace(PATIENT, attempts=1000, stall_s=1.0)
    with front_of(registry.port, hold_at=10_000, tricks=[asked_again]) as front:
        assert pull_image(f"{front.host}/demo/tool", patience=hasty).image.digest == image.digest
        assert front.hold_at is None


def test_retry_after_is_honoured_and_an_end_is_made(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller
) -> None:
    refusals: list[float] = []

    def busy(handler: FrontHandler) -> bool:
        if "/manifests/" not in handler.path or len(refusals) >= 2:
            return False
        refusals.append(time.monotonic())
        handler.answer(429, Retry_After="1")
        return True

    with front_of(registry.port, tricks=[busy]) as front:
        assert pull_image(f"{front.host}/demo/tool").image.digest == image.digest
        assert refusals[1] - refusals[0] >= 1

    def always_busy(handler: FrontHandler) -> bool:
        handler.answer(429, Retry_After="3600")
        return True

    with front_of(registry.port, tricks=[always_busy]) as front, pytest.raises(Interrupted, match="busy"):
        pull_image(f"{front.host}/demo/tool")


def test_credentials_never_follow_a_redirect_to_another_host(
    registry: RealRegistry, image: BuiltImage, tmp_path: Path, pull_image: Puller
) -> None:
    with real_registry(tmp_path / "closed", basic=True) as closed, front_of(registry.port) as elsewhere:
        closed.push(image.layout, "demo/tool", credentials=f"{USER}:{PASSWORD}")

        def send_away(handler: FrontHandler) -> bool:
            if "/blobs/" not in handler.path or "Authorization" not in handler.headers:
                return False
            handler.answer(307, Location=f"http://{elsewhere.host}{handler.path}")
            return True

        with front_of(closed.port, tricks=[send_away]) as front:
            assert pull_image(f"{front.host}/demo/tool", credentials=KEY).image.digest == image.digest
        assert elsewhere.blob_requests()
        assert not any("Authorization" in each.headers for each in elsewhere.served)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", ""])
def test_redirects_to_nowhere_are_refused(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller, location: str
) -> None:
    def send_away(handler: FrontHandler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(302, Location=location)
        return True

    with front_of(registry.port, tricks=[send_away]) as front, pytest.raises(EngineError):
        pull_image(f"{front.host}/demo/tool")


def pull_lie(registry: RealRegistry, built: BuiltImage, pull_image: Puller, **changes: object) -> None:
    """Pull an image whose manifest is changed on the way."""
    content = json.dumps({**built.manifest, **changes}).encode()

    def lie(handler: FrontHandler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(200, content, Content_Type=str(changes.get("mediaType", built.manifest["mediaType"])))
        return True

    with front_of(registry.port, tricks=[lie]) as front:
        pull_image(f"{front.host}/demo/tool")


@pytest.mark.parametrize("difference", [-1, 1, 10**12])
def test_a_manifest_that_lies_about_sizes_is_refused(
    registry: RealRegistry, image: BuiltImage, store: Store, pull_image: Puller, difference: int
) -> None:
    first, *others = image.manifest["layers"]
    lied = {**first, "size": first["size"] + difference}
    with pytest.raises(Exception, match=r"manifest says|manifest promises|are needed"):
        pull_lie(registry, image, pull_image, layers=[lied, *others])
    assert store.images() == ()
    assert files_in(store) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [{"mediaType": "x", "digest": "sha256:../../../../etc/passwd", "size": 1}]},
        {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": -1}]},
        {
            "config": {
                "mediaType": "application/vnd.cncf.helm.config.v1+json",
                "digest": "sha256:" + "0" * 64,
                "size": 2,
            }
        },
        {"layers": "none"},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
        {"layers": []},
    ],
)
def test_a_manifest_that_is_none_is_refused(
    registry: RealRegistry, image: BuiltImage, store: Store, pull_image: Puller, changes: dict[str, object]
) -> None:
    with pytest.raises(EngineError):
        pull_lie(registry, image, pull_image, **changes)
    assert store.images() == ()


@pytest.mark.parametrize("said", ["application/octet-stream", "application/json", "text/html", ""])
def test_old_names_of_a_configuration_are_taken(
    registry: RealRegistry, image: BuiltImage, store: Store, pull_image: Puller, said: str
) -> None:
    pull_lie(registry, image, pull_image, config={**image.manifest["config"], "mediaType": said})
    assert len(store.images()) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_an_empty_layer_is_pulled(registry: RealRegistry, tmp_path: Path, pull_image: Puller, compression: str) -> None:
    built = build_image(tmp_path / "empty", [{"a": b"1"}, {}], compression=(compression,))
    registry.push(built.layout, "demo/empty")
    assert pull_image(f"{registry.host}/demo/empty").image.digest == built.digest


def test_a_manifest_other_than_the_digest_asked_for_is_refused(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller
) -> None:
    def lie(handler: FrontHandler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(200, json.dumps({**image.manifest, "extra": 1}).encode())
        return True

    with front_of(registry.port, tricks=[lie]) as front, pytest.raises(Corrupt, match="digest"):
        pull_image(f"{front.host}/demo/tool@{image.digest}")


def test_an_endless_manifest_is_not_read_to_its_end(registry: RealRegistry, pull_image: Puller) -> None:
    def endless(handler: FrontHandler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(200, b"[" * (5 << 20))
        return True

    with front_of(registry.port, tricks=[endless]) as front, pytest.raises(EngineError, match="more than"):
        pull_image(f"{front.host}/demo/tool")


def test_an_index_gives_the_image_of_the_platform(registry: RealRegistry, tmp_path: Path, pull_image: Puller) -> None:
    layout = tmp_path / "layout"
    entries = []
    for architecture, variant in (("amd64", None), ("arm64", "v8")):
        built = build_image(layout, [{architecture: b"x"}], architecture=architecture)
        platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
        size = len(json.dumps(built.manifest).encode())
        entries.append(
            {"mediaType": built.manifest["mediaType"], "digest": built.digest, "size": size, "platform": platform}
        )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    named = {"mediaType": index["mediaType"], **put_blob(layout, json.dumps(index).encode())}
    write_index(layout, [named])
    registry.push(layout, "demo/multi")
    arm = pull_image(f"{registry.host}/demo/multi", platform="arm64").image
    amd = pull_image(f"{registry.host}/demo/multi").image
    assert (arm.digest, amd.digest) == (entries[1]["digest"], entries[0]["digest"])
    assert arm.source_digest == amd.source_digest == named["digest"]
    with pytest.raises(EngineError, match="no image for linux/ppc64le, only for linux/amd64, linux/arm64/v8"):
        pull_image(f"{registry.host}/demo/multi", platform="linux/ppc64le")


def test_an_image_for_other_machines_is_refused(registry: RealRegistry, tmp_path: Path, pull_image: Puller) -> None:
    built = build_image(tmp_path / "layout", [{"a": b"a"}], architecture="arm64")
    registry.push(built.layout, "demo/arm")
    with pytest.raises(EngineError, match="is for linux/arm64, not for linux/amd64"):
        pull_image(f"{registry.host}/demo/arm")


def test_names_that_are_not_there_are_said_so(registry: RealRegistry, pull_image: Puller) -> None:
    with pytest.raises(EngineError, match="is not there"):
        pull_image(f"{registry.host}/demo/nothing:here")
    with pytest.raises(EngineError, match="cannot reach"):
        pull_image("127.0.0.1:1/demo/tool")


@pytest.mark.parametrize(
    ("tags", "asked", "hint"),
    [
        (("cpu", "gpu", "1.0.0"), "gpus", "its tags are gpu, cpu, 1.0.0"),
        (("v2",), "latest", "its tags are v2"),
        (tuple(f"v{n}" for n in range(9)), "latest", "its tags are v0, v1, v2, v3, v4, v5, v6, v7, …"),
        (tuple(f"v{n}" for n in range(9)), "v9", "its tags are v8, v7, v6, v5, v4, v3, v2, v1, …"),
        ((), "latest", "check the name and the tag"),
    ],
)
def test_a_tag_that_is_not_there_is_answered_with_those_that_are(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller, tags: tuple[str, ...], asked: str, hint: str
) -> None:
    repository = f"demo/tags-{len(tags)}-{asked}"
    registry.push(image.layout, f"{repository}:first")
    known = registry.folder / f"docker/registry/v2/repositories/{repository}/_manifests/tags"
    for tag in tags:
        shutil.copytree(known / "first", known / tag)
    shutil.rmtree(known / "first")
    with pytest.raises(EngineError, match="is not there") as caught:
        pull_image(f"{registry.host}/{repository}:{asked}")
    assert caught.value.hint == hint


def test_a_plain_registry_that_is_not_this_machine_needs_consent(registry: RealRegistry) -> None:
    with Registry(parse_reference("registry.invalid:5000/a/b"), Access(patience=PATIENT)) as source:
        assert source._base == "https://registry.invalid:5000"
    allowed = Access(insecure=frozenset({"registry.invalid:5000"}), patience=PATIENT)
    with Registry(parse_reference("registry.invalid:5000/a/b"), allowed) as source:
        assert source._base is None


def test_all_tags_are_listed(registry: RealRegistry, image: BuiltImage) -> None:
    for tag in ("cpu", "gpu"):
        registry.push(image.layout, f"demo/tagged:{tag}")
    with Registry(parse_reference(f"{registry.host}/demo/tagged"), Access(patience=PATIENT)) as source:
        assert set(source.tags()) == {"cpu", "gpu"}


PULL = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from deephpc.containers.manifest import parse_platform
from deephpc.containers.pull import pull
from deephpc.containers.reference import parse_reference
from deephpc.containers.registry import Access, Registry
from deephpc.containers.store import Store
from deephpc.containers.transfer import Transfer
from deephpc.retries import Patience
patience = Patience(deadline_s=3600, connect_s=3600, stall_s=3600)
with Registry(parse_reference(sys.argv[1]), Access(patience=patience)) as source:
    pulled = pull(Transfer(Store(Path(sys.argv[2])), source, patience), source.resolve(), parse_platform("amd64"),
                  datetime.now(timezone.utc))
print(pulled.image.digest, pulled.fetched_bytes)
"""


def start_pull(name: str, store: Store) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PULL, name, str(store.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - in the background it is ignored
    )


def test_eight_processes_pull_one_image_and_each_byte_comes_once(
    registry: RealRegistry, store: Store, tmp_path: Path
) -> None:
    built = build_image(tmp_path / "layout", some_layers(8, 200_000))
    registry.push(built.layout, "demo/eight")
    size = sum(part["size"] for part in (built.manifest["config"], *built.manifest["layers"]))
    with front_of(registry.port) as front:
        processes = [start_pull(f"{front.host}/demo/eight", store) for _ in range(8)]
        answers = [process.communicate(timeout=DEADLINE_S) for process in processes]
        assert [process.returncode for process in processes] == [0] * 8, answers
        assert front.blob_bytes() == size
    assert sum(int(out.split()[1]) for out, _ in answers) == size
    assert len(store.images()) == 1
    assert verify(store, store.images()[0]) == ()
    assert not list((store.root / "partial").iterdir())
    assert not list((store.root / "locks").iterdir())


def test_after_a_kill_at_half_only_the_rest_is_fetched(registry: RealRegistry, store: Store, tmp_path: Path) -> None:
    built = build_image(tmp_path / "layout", some_layers(1, 2_000_000), compression=("",))
    registry.push(built.layout, "demo/half")
    half = 1_000_000
    with front_of(registry.port, hold_at=half) as front:
        process = start_pull(f"{front.host}/demo/half", store)
        try:
            partial = store.root / "partial"
            wait_until(lambda: any(path.stat().st_size > half - 10_000 for path in partial.glob("*.*")))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        front.hold_at = None
        front.resume.set()
        before = front.blob_requests()
        kept = max(path.stat().st_size for path in partial.glob("*.*"))
        again = start_pull(f"{front.host}/demo/half", store)
        _, err = again.communicate(timeout=DEADLINE_S)
        assert again.returncode == 0, err
        rest = [each for each in front.blob_requests() if each not in before]
    assert [each.status for each in rest] == [206]
    assert rest[0].headers["Range"] == f"bytes={kept}-"
    assert rest[0].sent == built.manifest["layers"][0]["size"] - kept
    assert verify(store, store.images()[0]) == ()


def test_a_leftover_that_was_spoilt_is_fetched_anew(
    registry: RealRegistry, image: BuiltImage, store: Store, pull_image: Puller
) -> None:
    store.prepare()
    spoilt = image.layer_digests[0].removeprefix("sha256:")
    (store.root / "partial" / f"{spoilt}.gone").write_bytes(b"spoilt")
    assert pull_image(f"{registry.host}/demo/tool").image.digest == image.digest
    assert digest_of(store.blob_path(image.layer_digests[0]).read_bytes()) == image.layer_digests[0]


def test_an_interrupted_pull_ends_soon_though_the_server_is_silent(
    registry: RealRegistry, image: BuiltImage, store: Store
) -> None:
    with front_of(registry.port, hold_at=5_000) as front:
        process = start_pull(f"{front.host}/demo/tool", store)
        wait_until(lambda: any((store.root / "partial").glob("*.*")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)  # the connections are given up much later
    assert process.returncode != 0


def saying(status: int, code: str, message: str, where: str = "") -> Trick:
    """Answer so, wherever a path has that in it."""
    said = {"errors": [{"code": code, "message": message, "detail": None}]} if code else {"details": message}

    def answer(handler: FrontHandler) -> bool:
        if where in handler.path:
            handler.answer(status, json.dumps(said).encode(), Content_Type="application/json")
        return where in handler.path

    return answer


@pytest.mark.parametrize(
    ("trick", "key", "says", "hint"),
    [
        (
            saying(429, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit."),
            None,
            "429 TOOMANYREQUESTS: You have reached your unauthenticated pull rate limit",
            "log in with docker",
        ),
        (saying(429, "TOOMANYREQUESTS", "retry-after: 1s"), KEY, "429 TOOMANYREQUESTS: retry-after", "wait, or take"),
        (saying(403, "DENIED", "denied"), KEY, "refuses the credentials from", "for the right to pull it"),
        (saying(401, "UNAUTHORIZED", "access is not authorized"), None, "UNAUTHORIZED: access is not", "log in with"),
        (
            saying(404, "NAME_UNKNOWN", "repository name not known"),
            None,
            "404 NAME_UNKNOWN: repository",
            "no such repo",
        ),
        (
            saying(404, "MANIFEST_UNKNOWN", "unknown tag", "/manifests/"),
            None,
            "MANIFEST_UNKNOWN",
            "its tags are latest",
        ),
        (saying(503, "", f"the {PASSWORD} is Basic {PASSWORD}"), KEY, "busy (503 the *** is Basic ***)", "try again"),
        (saying(418, "TEAPOT", "\x1b[31mshort\u202e"), None, "answers 418 TEAPOT: [31mshort for", "try again later"),
    ],
)
def test_what_a_registry_says_itself_is_told_with_what_to_do(
    registry: RealRegistry,
    image: BuiltImage,
    pull_image: Puller,
    trick: Trick,
    key: Credentials | None,
    says: str,
    hint: str,
) -> None:
    def asks(handler: FrontHandler) -> bool:
        if key is None or "Authorization" in handler.headers:
            return trick(handler)
        handler.answer(401, WWW_Authenticate='Basic realm="x"')
        return True

    with front_of(registry.port, tricks=[asks]) as front, pytest.raises(EngineError) as caught:
        pull_image(f"{front.host}/demo/tool", credentials=key)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_what_a_real_registry_says_of_an_unknown_repository_is_told(registry: RealRegistry, pull_image: Puller) -> None:
    with pytest.raises(EngineError, match="404 MANIFEST_UNKNOWN: manifest unknown") as caught:
        pull_image(f"{registry.host}/demo/nothing:here")
    assert "has no such repository" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "401 incorrect username"), (403, "403 incorrect"), (429, "busy (429 incorrect"), (400, "400")],
)
def test_what_a_token_server_says_is_told(registry: RealRegistry, pull_image: Puller, status: int, says: str) -> None:
    trick = saying(status, "", "incorrect username or password", "/token")
    with front_of(registry.port, token_auth=True, tricks=[trick]) as front, pytest.raises(EngineError) as caught:
        pull_image(f"{front.host}/demo/tool", credentials=KEY)
    assert says in caught.value.message
    assert PASSWORD not in str(caught.value)
