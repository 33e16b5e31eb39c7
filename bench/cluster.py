"""Brings the test cluster up for the benchmarks, puts on it what they need, and takes it down again."""

import os
import tempfile
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.horovod import put_horovod
from tests.cluster.install import build_wheel, install_deephpc
from tests.cluster.layout import RICH
from tests.cluster.module_images import put_layout

_REPOSITORY = Path(__file__).resolve().parent.parent
_STATE = Path(os.environ.get("DEEPHPC_TEST_STATE") or "/var/tmp/deephpc-cluster")
_TIMEOUT_S = 900
HOROVOD, IMAGE = "/scratch/horovod", "/scratch/images/digits"


_SCRIPTS = ("on_cluster.py", "small_tasks.py", "pulls.py", "containers.py", "launch.py", "serving.py")
_BESIDE = (
    *("bench/__init__.py", "bench/row.py", "bench/login.py", "bench/first_job.py", "bench/images.py"),
    "bench/timed_training.py",
    *("examples/digits/train.py", "examples/deepaas-digits/samples/seven.pgm"),
)


def run_on_cluster() -> list[str]:
    """Run the scripts as an ordinary user on the login node and return what rows each of them printed."""
    cluster = Cluster(RICH, _STATE.with_name(f"{_STATE.name}-bench"), tethered=True)
    with cluster.claimed():
        try:
            cluster.up()
            with tempfile.TemporaryDirectory() as folder:
                install_deephpc(cluster, build_wheel(_REPOSITORY, Path(folder)), users=["alice"], extras=["bench"])
            cluster.run(["mkdir", "-p", "bench"])
            for path in (*_BESIDE, *(f"bench/{name}" for name in _SCRIPTS)):
                text = (_REPOSITORY / path).read_text(encoding="utf-8")
                cluster.run(["tee", f"bench/{Path(path).name}"], stdin=text)
            put_horovod(cluster, HOROVOD)
            put_layout(cluster, "digits", IMAGE)
            return [
                cluster.run(["python3", f"bench/{name}"], timeout=_TIMEOUT_S).stdout.splitlines()[-1]
                for name in _SCRIPTS
            ]
        finally:
            cluster.down()
