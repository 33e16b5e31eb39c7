"""WebDAV with a password and S3 on the controller of the test cluster, and the files by which a user knows them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deephpc.data.obscure import obscure
from tests.data import servers

from .cluster import Cluster

BUCKET = "results"


@dataclass
class Storage:
    """What the servers hold, seen from the host."""

    webdav_root: Path
    webdav_port: int
    s3_port: int


@contextlib.contextmanager
def storage(cluster: Cluster, folder: Path, user: str = "alice") -> Iterator[Storage]:
    """Serve for the block; the user knows them as `rshare:` and `s3://`, by files in the home alone."""
    (folder / "webdav").mkdir()
    (folder / "s3").mkdir()
    at = ("nsenter", f"--net=/run/netns/{cluster.machines['ctl'].netns}")
    with servers.webdav(folder / "webdav", folder, at) as webdav, servers.s3(folder / "s3", at) as s3:
        home = cluster.home(user)
        files = {
            f"{home}/.config/rclone/rclone.conf": f"[rshare]\ntype = webdav\nvendor = nextcloud\n"
            f"url = http://ctl:{webdav}/\nuser = {servers.USER}\npass = {obscure(servers.PASSWORD)}\n",
            f"{home}/.aws/credentials": "[default]\naws_access_key_id = key\naws_secret_access_key = hidden\n",
            f"{home}/.aws/config": f"[default]\nendpoint_url = http://ctl:{s3}\nregion = us-east-1\n",
        }
        for path, text in files.items():
            cluster.run(["mkdir", "-m", "700", "-p", str(Path(path).parent)], user=user)
            cluster.run(f"umask 077; cat >{path}", user=user, stdin=text)
        cluster.run(["curl", "-sf", "-X", "PUT", f"http://ctl:{s3}/{BUCKET}"], user=user)
        try:
            yield Storage(folder / "webdav", webdav, s3)
        finally:
            for path in files:
                cluster.run(["rm", "-f", path], user=user)
