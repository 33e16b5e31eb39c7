"""The clusters as pytest fixtures: brought up when a test first asks, calmed after each test, gone at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import Cluster
from .horovod import start_building
from .install import build_wheel, install_deephpc
from .layout import CHEAP, RICH, Layout

PROJECT = Path(__file__).resolve().parents[2]
NOISE = (
    "echo 'Welcome to the cluster'\necho '{\"quota\": 97}'\necho 'module: command not found' >&2\nprintf unfinished\n"
)
HOW_TO = (
    "the test cluster needs root on Debian 12 or 13; run: "
    f"sudo {PROJECT}/tests/cluster/setup.sh && sudo {sys.executable} -m pytest {PROJECT}/tests/cluster"
)
#: Tests and what they wait for; the first that was chosen decides, and the image has Horovod in it.
_BUILT_FIRST = {"test_tutorial.py": "tests.cluster.horovod_image", "test_launchers.py": "tests.cluster.horovod"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder, so that `-m 'not cluster'` leaves them out."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin at once with what takes longest to build, while other tests run, where a test that needs it was chosen."""
    chosen = {item.path.name for item in session.items}
    needed = next((module for test, module in _BUILT_FIRST.items() if test in chosen), None)
    if needed and os.geteuid() == 0 and not session.config.option.collectonly:
        session.config.add_cleanup(start_building(needed))


@pytest.fixture(scope="session")
def bare_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The rich cluster (Slurm 24.11: login, ctl, c1 to c3, each a machine of its own), without deephpc."""
    yield from _session_cluster(request, RICH, "rich")


@pytest.fixture(scope="session")
def bare_cheap_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cheap cluster (Slurm 22.05: four slurmd on one machine), without deephpc."""
    yield from _session_cluster(request, CHEAP, "cheap")


@pytest.fixture(scope="session")
def deephpc_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(PROJECT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster, deephpc_wheel: Path) -> Cluster:
    """The rich cluster, with deephpc installed for alice and bob from the wheel."""
    install_deephpc(bare_cluster, deephpc_wheel)
    return bare_cluster


@pytest.fixture(scope="session")
def cheap_cluster(bare_cheap_cluster: Cluster, deephpc_wheel: Path) -> Cluster:
    """The cheap cluster, with deephpc installed for alice and bob from the wheel."""
    install_deephpc(bare_cheap_cluster, deephpc_wheel)
    return bare_cheap_cluster


@pytest.fixture
def laptop(cluster: Cluster) -> Iterator[None]:
    """Let bob, on a machine that is no login node, into alice's account, whose start-up files are noisy."""
    home = cluster.on_host("/home/alice")
    key = cluster.run("ssh-keygen -y -f ~/.ssh/id_ed25519", user="bob", node="ctl").stdout
    before = {path: path.read_text() for path in (home / ".ssh/authorized_keys", home / ".bashrc")}
    (home / ".ssh/authorized_keys").write_text(before[home / ".ssh/authorized_keys"] + key)
    (home / ".bashrc").write_text(NOISE + before[home / ".bashrc"])
    yield
    for path, text in before.items():
        path.write_text(text)


@pytest.fixture(scope="session")
def _clusters_up() -> list[Cluster]:
    """The clusters that are up in this session."""
    return []


@pytest.fixture(autouse=True)
def _calmed(_clusters_up: list[Cluster]) -> Iterator[None]:
    """Leave the next test clusters without faults and without jobs."""
    yield
    for found in _clusters_up:
        found.calm()


def _session_cluster(request: pytest.FixtureRequest, layout: Layout, name: str) -> Iterator[Cluster]:
    """Bring a cluster up for this session and down after it; skip without root, but fail in CI."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        if os.environ.get("CI"):
            pytest.fail(HOW_TO)
        pytest.skip(HOW_TO)
    base = Path(os.environ.get("DEEPHPC_TEST_STATE") or "/var/tmp/deephpc-cluster")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    found = Cluster(layout, base.with_name(f"{base.name}-pytest{worker}") / name, tethered=True)
    clusters_up: list[Cluster] = request.getfixturevalue("_clusters_up")
    with found.claimed():
        try:
            found.up()
            clusters_up.append(found)
            yield found
        finally:
            clusters_up[:] = [other for other in clusters_up if other is not found]
            if not os.environ.get("DEEPHPC_TEST_KEEP"):
                found.down()
