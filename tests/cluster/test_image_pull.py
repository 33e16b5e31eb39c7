"""`deephpc image` on two login nodes, with Debian's docker-registry on the controller: shared store, faults, upkeep."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.box import Process
from tests.cluster.cluster import Cluster
from tests.cluster.registry import HOST, PASSWORD, PLACE, PORT, USERS_FILE, Registry


@pytest.fixture
def registry(cluster: Cluster) -> Iterator[Registry]:
    found = Registry(cluster)
    cluster.root(f"rm -rf {PLACE} /scratch/alice/images")
    with found.running():
        yield found


@pytest.fixture
def alice(cluster: Cluster) -> Session:
    environ = {"DEEPHPC_CACHE_DIR": "/scratch/alice/images", "DEEPHPC_INSECURE_REGISTRIES": HOST}
    return Session(cluster, "pulls", env=environ)


def start(alice: Session, name: str, node: str = "login") -> Process:
    words = ["deephpc", "image", "pull", f"docker://{HOST}/{name}"]
    return alice.box.popen(words, user="alice", node=node, cwd=alice.folder, env=alice.env)


def images(alice: Session) -> list[dict[str, object]]:
    answer = alice.deephpc("--json", "image", "list")
    assert answer.returncode == 0, answer.stderr
    listed: list[dict[str, object]] = json.loads(answer.stdout)["images"]
    return listed


def partial_bytes(alice: Session) -> int:
    folder: Path = alice.box.on_host("/scratch/alice/images/images/partial")
    try:
        return max((path.stat().st_size for path in folder.iterdir()), default=0)
    except FileNotFoundError:
        return 0


def test_an_image_is_pulled_checked_carried_away_and_removed(registry: Registry, alice: Session) -> None:
    pushed = registry.push("demo/tool", [{"a": os.urandom(1000)}, {"b": os.urandom(1000)}])
    pulled = alice.deephpc("image", "pull", f"docker://{HOST}/demo/tool", "--lock")
    assert (pulled.returncode, pulled.stdout.split()) == (0, pushed["image"]), pulled.stderr
    assert alice.deephpc("image", "pull", f"docker://{HOST}/demo/tool@{pushed['image'][0]}").returncode == 0
    assert alice.deephpc("image", "verify", "demo/tool:latest").returncode == 0
    assert alice.deephpc("image", "export", pushed["image"][0], "tool.tar", "--force").returncode == 0
    assert alice.deephpc("image", "rm", pushed["image"][0]).returncode == 0
    assert images(alice) == []
    assert alice.deephpc("image", "import", "tool.tar").stdout.split() == pushed["image"]
    registry.push("demo/tool", [{"c": b"new"}])
    moved = alice.deephpc("image", "pull", f"docker://{HOST}/demo/tool", "--locked")
    assert moved.returncode == 4
    assert "moved" in moved.stderr


def test_without_consent_no_plain_registry_is_spoken_to(registry: Registry, alice: Session) -> None:
    registry.push("demo/tool", [{"a": b""}])
    strict = Session(alice.box, "pulls", env={"DEEPHPC_CACHE_DIR": "/scratch/alice/images"})
    refused = strict.deephpc("image", "pull", f"docker://{HOST}/demo/tool")
    assert refused.returncode == 4
    assert "--insecure-registry" in refused.stderr
    allowed = strict.deephpc("image", "pull", f"docker://{HOST}/demo/tool", "--insecure-registry", HOST)
    assert allowed.returncode == 0, allowed.stderr


def test_a_login_of_another_tool_opens_a_closed_registry(registry: Registry, alice: Session) -> None:
    pushed = registry.push("demo/closed", [{"a": b""}])
    registry.box.on_host(f"{PLACE}/users").write_text(USERS_FILE)
    auth = f"auth: {{htpasswd: {{realm: test, path: {PLACE}/users}}}}"
    config = f"{alice.box.home('alice')}/.docker"
    with registry.running(auth, port=PORT + 1):
        host = f"ctl:{PORT + 1}"
        words = ("image", "pull", f"docker://{host}/demo/closed", "--insecure-registry", host)
        refused = alice.deephpc(*words)
        assert refused.returncode == 4
        assert "refuses an anonymous pull" in refused.stderr
        packed = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        logins = json.dumps({"auths": {host: {"auth": packed}}})
        alice.box.run(f"umask 077; mkdir -p {config}; cat >{config}/config.json", stdin=logins)
        try:
            opened = alice.deephpc(*words)
            assert opened.stdout.split() == pushed["image"], opened.stderr
            assert PASSWORD not in opened.stderr
        finally:
            alice.box.run(["rm", "-r", config])


def test_one_flipped_byte_is_refused_with_4_and_nothing_is_kept(registry: Registry, alice: Session) -> None:
    pushed = registry.push("demo/flipped", [{"a": os.urandom(100_000)}, {"b": os.urandom(100_000)}])
    blob = registry.blob(pushed["layers"][1])
    content = bytearray(blob.read_bytes())
    content[60_000] ^= 1
    blob.write_bytes(content)
    refused = alice.deephpc("image", "pull", f"docker://{HOST}/demo/flipped")
    assert refused.returncode == 4
    assert pushed["layers"][1] in refused.stderr
    assert images(alice) == []
    store: Path = alice.box.on_host("/scratch/alice/images/images")
    assert [path for place in ("blobs", "partial") for path in (store / place).rglob("*") if path.is_file()] == []


def test_killed_midway_only_the_rest_is_fetched(registry: Registry, alice: Session) -> None:
    size = 20_000_000
    pushed = registry.push("demo/half", [{"a": os.urandom(size)}])
    with registry.slow("16mbit"), start(alice, "demo/half") as pull:
        wait_until(lambda: partial_bytes(alice) > size // 10, 60, lambda: f"only {partial_bytes(alice)} bytes came")
        pull.kill()
        kept = partial_bytes(alice)
    again = alice.deephpc("image", "pull", f"docker://{HOST}/demo/half")
    assert again.returncode == 0, again.stderr
    (rest,) = rests_sent(registry, pushed["layers"][0])
    assert rest < size - kept + 20_000
    assert alice.deephpc("image", "verify", "half").returncode == 0


def rests_sent(registry: Registry, digest: str) -> list[int]:
    """Return the bytes of each answer with the rest of a blob; one that was cut off is noted when its end is seen."""

    def rests() -> list[int]:
        return [sent for status, sent in registry.sent(digest) if status == 206]

    wait_until(lambda: rests() != [], 10, lambda: f"the registry sent no rest: {registry.sent(digest)}")
    return rests()


def test_eight_processes_on_two_login_nodes_fetch_it_once(registry: Registry, alice: Session) -> None:
    pushed = registry.push("demo/eight", [{f"layer{number}": os.urandom(500_000)} for number in range(10)])
    pulls = [start(alice, "demo/eight", node) for node in ("login", "c1") * 4]
    answers = [pull.communicate() for pull in pulls]
    assert [pull.wait() for pull in pulls] == [0] * 8, answers
    assert {out.strip() for out, _ in answers} == set(pushed["image"])
    assert [len(registry.sent(digest)) for digest in pushed["layers"]] == [1] * 10
    assert alice.deephpc("image", "verify", "eight").returncode == 0


def test_a_login_node_that_dies_in_mid_pull_keeps_no_lock(registry: Registry, alice: Session) -> None:
    size = 20_000_000
    pushed = registry.push("demo/dying", [{"a": os.urandom(size)}])
    box = alice.box
    assert isinstance(box, Cluster)
    with registry.slow("16mbit"), start(alice, "demo/dying", "c2"):
        wait_until(lambda: partial_bytes(alice) > size // 10, 60, lambda: f"only {partial_bytes(alice)} bytes came")
        box.power_off("c2")
    try:
        pulled = alice.deephpc("image", "pull", f"docker://{HOST}/demo/dying")
        assert pulled.returncode == 0, pulled.stderr
        assert len(rests_sent(registry, pushed["layers"][0])) == 1
    finally:
        box.power_on("c2")


def test_a_full_disk_is_said_and_breaks_nothing(registry: Registry, alice: Session) -> None:
    registry.push("demo/big", [{"a": os.urandom(3_000_000)}])
    box = alice.box
    assert isinstance(box, Cluster)
    with box.small_disk("/scratch/alice/images", "2m"):
        full = alice.deephpc("image", "pull", f"docker://{HOST}/demo/big")
        assert full.returncode == 3
        assert "are needed" in full.stderr
        assert images(alice) == []
    assert alice.deephpc("image", "pull", f"docker://{HOST}/demo/big").returncode == 0
