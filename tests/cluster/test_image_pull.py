"""`deephpc image` on two login nodes, with Debian's docker-registry on the controller: shared store, faults, upkeep."""

import base64
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.box import Process
from tests.cluster.cluster import Cluster
from tests.containers.images import build_image

PORT = 5055
HOST = f"ctl:{PORT}"
PLACE = "/scratch/registry"
PASSWORD = "s3cret"
#: `htpasswd -nbB -C 4 reader s3cret`
USERS_FILE = "reader:$2y$04$GGR.TT2WzIlxAyrYB.32Lu35OqdyOO7d/QJTKDtggoWLW.n56Z/eO"

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {place}/data}}}}
http: {{addr: '0.0.0.0:{port}'}}
{auth}
"""


class Registry:
    """The registry on the controller, seen from the host."""

    def __init__(self, box: Cluster) -> None:
        self.box = box

    @contextmanager
    def running(self, auth: str = "", port: int = PORT) -> Iterator[None]:
        """Serve for the block."""
        self.box.root(f"mkdir -p {PLACE}")
        config = f"{PLACE}/config-{port}.yml"
        self.box.on_host(config).write_text(CONFIG.format(place=PLACE, port=port, auth=auth))
        serve = f"exec docker-registry serve {config} >>{PLACE}/access.log 2>>{PLACE}/error.log"
        with self.box.popen(serve, user="root", node="ctl") as process:
            wait_until(lambda: self._answers(process, port), 30, lambda: "docker-registry does not answer")
            yield

    def _answers(self, process: Process, port: int) -> bool:
        assert process.popen.poll() is None, self.box.on_host(f"{PLACE}/error.log").read_text()
        return self.box.root(f"curl -s -o /dev/null http://ctl:{port}/v2/", check=False).returncode == 0

    def push(self, name: str, layers: list[dict[str, bytes]]) -> dict[str, list[str]]:
        """Build an image and copy it here; returns its digests."""
        folder = f"{PLACE}/layouts/{name.replace('/', '-')}"
        built = build_image(self.box.on_host(folder), layers, compression=("",))
        self.box.root(
            f"skopeo copy -q --insecure-policy --preserve-digests --dest-tls-verify=false oci:{folder} "
            f"docker://{HOST}/{name}"
        )
        return {"image": [built.digest], "layers": built.layer_digests}

    def blob(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self.box.on_host(f"{PLACE}/data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data")

    def sent(self, digest: str) -> list[tuple[int, int]]:
        """Return status and bytes of every answer with this blob, from the access log."""
        log = self.box.on_host(f"{PLACE}/access.log").read_text()
        line = re.compile(rf'"GET \S*/blobs/{digest} HTTP/1.1" (20[06]) (\d+)')
        return [(int(match[1]), int(match[2])) for match in line.finditer(log)]

    @contextmanager
    def slow(self, rate: str) -> Iterator[None]:
        """Send no faster than this for the block (tc-tbf(8))."""
        self.box.root(f"tc qdisc add dev eth0 root tbf rate {rate} burst 256kb latency 100ms", node="ctl")
        try:
            yield
        finally:
            self.box.root("tc qdisc del dev eth0 root", node="ctl")


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


def test_killed_at_half_only_the_rest_is_fetched(registry: Registry, alice: Session) -> None:
    size = 20_000_000
    pushed = registry.push("demo/half", [{"a": os.urandom(size)}])
    with registry.slow("80mbit"), start(alice, "demo/half") as pull:
        wait_until(lambda: partial_bytes(alice) > size // 2, 60, lambda: f"only {partial_bytes(alice)} bytes came")
        pull.kill()
        kept = partial_bytes(alice)
    again = alice.deephpc("image", "pull", f"docker://{HOST}/demo/half")
    assert again.returncode == 0, again.stderr
    status, sent = registry.sent(pushed["layers"][0])[-1]
    assert status == 206
    assert sent < size - kept + 20_000
    assert alice.deephpc("image", "verify", "half").returncode == 0


def test_eight_processes_on_two_login_nodes_fetch_it_once(registry: Registry, alice: Session) -> None:
    pushed = registry.push("demo/eight", [{f"layer{number}": os.urandom(500_000)} for number in range(10)])
    pulls = [start(alice, "demo/eight", node) for node in ("login", "c1") * 4]
    answers = [pull.communicate(timeout=120) for pull in pulls]
    assert [pull.wait() for pull in pulls] == [0] * 8, answers
    assert {out.strip() for out, _ in answers} == set(pushed["image"])
    assert [len(registry.sent(digest)) for digest in pushed["layers"]] == [1] * 10
    assert alice.deephpc("image", "verify", "eight").returncode == 0


def test_a_login_node_that_dies_in_mid_pull_keeps_no_lock(registry: Registry, alice: Session) -> None:
    size = 20_000_000
    pushed = registry.push("demo/dying", [{"a": os.urandom(size)}])
    box = alice.box
    assert isinstance(box, Cluster)
    with registry.slow("80mbit"), start(alice, "demo/dying", "c2"):
        wait_until(lambda: partial_bytes(alice) > size // 4, 60, lambda: f"only {partial_bytes(alice)} bytes came")
        box.power_off("c2")
    try:
        began = time.monotonic()
        pulled = alice.deephpc("image", "pull", f"docker://{HOST}/demo/dying", timeout=150)
        assert pulled.returncode == 0, pulled.stderr
        assert time.monotonic() - began < 120
        assert registry.sent(pushed["layers"][0])[-1][0] == 206
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
