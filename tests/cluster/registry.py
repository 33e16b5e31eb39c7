"""Debian's docker-registry on the controller of the test cluster."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.acceptance import wait_until
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
