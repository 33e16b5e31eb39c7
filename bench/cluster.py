"""Brings the test cluster up for the benchmarks, installs deephpc and submitit on it, and takes it down again."""

import os
import tempfile
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.install import build_wheel, install_deephpc
from tests.cluster.layout import RICH

_REPOSITORY = Path(__file__).resolve().parent.parent
_STATE = Path(os.environ.get("DEEPHPC_TEST_STATE") or "/var/tmp/deephpc-cluster")
_TIMEOUT_S = 900


_SCRIPTS = ("on_cluster.py", "containers.py")


def run_on_cluster() -> list[str]:
    """Run the scripts as an ordinary user on the login node and return what rows each of them printed."""
    cluster = Cluster(RICH, _STATE.with_name(f"{_STATE.name}-bench"), tethered=True)
    with cluster.claimed():
        try:
            cluster.up()
            with tempfile.TemporaryDirectory() as folder:
                install_deephpc(cluster, build_wheel(_REPOSITORY, Path(folder)), users=["alice"], extras=["bench"])
            cluster.run(["mkdir", "-p", "bench"])
            for name in ("__init__.py", "row.py", *_SCRIPTS):
                cluster.run(["tee", f"bench/{name}"], stdin=(_REPOSITORY / "bench" / name).read_text(encoding="utf-8"))
            return [
                cluster.run(["python3", f"bench/{name}"], timeout=_TIMEOUT_S).stdout.splitlines()[-1]
                for name in _SCRIPTS
            ]
        finally:
            cluster.down()
