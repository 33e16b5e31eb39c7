"""The clusters for people: `python -m tests.cluster up`, then ssh or `run`, then `down`."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .cluster import Cluster
from .host import HarnessError, call
from .install import build_wheel, install_deephpc
from .layout import CHEAP, RICH
from .rootfs import RECIPES, fetch_rootfs

KINDS = {"rich": RICH, "cheap": CHEAP}
PROJECT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Carry out one verb; the exit status is the command's own for `run`, `ssh` and `shell`."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="rich", help="rich: Slurm 24.11; cheap: Slurm 22.05")
    parser.add_argument("--user", default="alice", help="who runs a command")
    parser.add_argument("--node", default="login", help="where: login, ctl, c1, ...")
    parser.add_argument("--bare", action="store_true", help="up: do not install deephpc")
    parser.add_argument("verb", choices=[*VERBS, "rootfs"])
    parser.add_argument("words", nargs=argparse.REMAINDER, help="run, ssh: the command; fault: a method and its words")
    asked = parser.parse_args()
    if asked.words and asked.verb not in ("run", "ssh", "fault"):
        parser.error(f"{asked.verb} takes no words; options come before it: {' '.join(asked.words)}")
    if os.geteuid() != 0:
        parser.error("the test cluster needs root: run this under sudo")
    try:
        if asked.verb == "rootfs":
            return _rootfs()
        base = Path(os.environ.get("DEEPHPC_TEST_STATE") or "/var/tmp/deephpc-cluster")
        cluster = Cluster(KINDS[asked.kind], base / asked.kind, tethered=False)
        return VERBS[asked.verb](cluster, asked)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 1


def _rootfs() -> int:
    """Fill the cache: everything that takes long."""
    call([str(Path(__file__).parent / "setup.sh")], timeout=600)
    for name in RECIPES:
        began = time.monotonic()
        print(f"{fetch_rootfs(name)}  {time.monotonic() - began:.0f} s")
    return 0


def _up(cluster: Cluster, asked: argparse.Namespace) -> int:
    """Bring a new cluster up and say how to log in."""
    call([str(Path(__file__).parent / "setup.sh")], timeout=600)
    began = time.monotonic()
    with cluster.claimed(timeout=5):
        cluster.up()
        if not asked.bare:
            with tempfile.TemporaryDirectory() as folder:
                install_deephpc(cluster, build_wheel(PROJECT, Path(folder)))
    print(f"up in {time.monotonic() - began:.1f} s: {', '.join(cluster.machines)}; Slurm nodes {cluster.node_states()}")
    print(f"log in:   ssh -F {cluster.ssh_config} login         (-l bob for the other user)")
    print(f"as root:  {sys.executable} -m tests.cluster --kind {asked.kind} --user root --node ctl shell")
    return 0


def _down(cluster: Cluster, _asked: argparse.Namespace) -> int:
    """End the cluster and remove what it kept."""
    with cluster.claimed(timeout=5):
        cluster.down()
    return 0


def _status(cluster: Cluster, _asked: argparse.Namespace) -> int:
    """Say what runs; exit status 1 when the cluster is not wholly up."""
    for name, machine in cluster.machines.items():
        handle = machine.handle()
        print(f"{name:8} {machine.address:12} {'on, pid ' + str(machine.init()) if handle else 'off'}")
    if not cluster.is_up():
        return 1
    for node, state in cluster.node_states().items():
        print(f"{node:8} {state}")
    return 0


def _shell(cluster: Cluster, asked: argparse.Namespace) -> int:
    """An interactive shell as a user on a machine."""
    term = {"TERM": os.environ.get("TERM", "dumb")}
    return subprocess.call(cluster.argv(["bash", "-l"], user=asked.user, node=asked.node, env=term))


def _run(cluster: Cluster, asked: argparse.Namespace) -> int:
    """One command, its words kept apart as they are."""
    return subprocess.call(cluster.argv(asked.words, user=asked.user, node=asked.node))


def _ssh(cluster: Cluster, asked: argparse.Namespace) -> int:
    """One command, or a login, over ssh."""
    return subprocess.call(cluster.ssh_argv(*map(shlex.quote, asked.words), user=asked.user, node=asked.node))


def _fault(cluster: Cluster, asked: argparse.Namespace) -> int:
    """One of the fault methods by name, as `fault freeze slurmctld` or `fault power_off c2`."""
    if not asked.words or asked.words[0] not in FAULTS:
        raise HarnessError(f"fault needs one of {', '.join(FAULTS)}")
    getattr(cluster, asked.words[0])(*asked.words[1:])
    return 0


FAULTS = (
    *("freeze", "thaw", "stop_daemon", "start_daemon", "power_off", "power_on"),
    *("cut_cable", "mend_cable", "purge_jobs", "calm"),
)
VERBS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "shell": _shell,
    "run": _run,
    "ssh": _ssh,
    "fault": _fault,
}

if __name__ == "__main__":
    sys.exit(main())
