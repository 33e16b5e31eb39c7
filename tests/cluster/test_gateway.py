"""A server of a job on the real cluster: who gets in, by which ways it is reached, and what is left of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deephpc.serve import Client
from deephpc.serve.connection import Address
from deephpc.serve.endpoint import Endpoint
from deephpc.serve.service import Service, render_service
from deephpc.serve.tunnel import Tunnel, Way
from deephpc.shell import start_child
from tests.cluster.acceptance import wait_until
from tests.cluster.cluster import Cluster

UPSTREAM = Path(__file__).resolve().parents[1] / "node" / "upstream.py"
RUN = "runs/demo-1a2b"
JOB = f"""\
#!/bin/bash
#SBATCH --time=10 --output=/home/alice/{RUN}/job.log
private=$(mktemp -d)
exec ~/deephpc-venv/bin/python -I -m deephpc.node.gateway ~/{RUN} --socket "$private/s" --host "$SLURMD_NODENAME" \\
  --job-id "$SLURM_JOB_ID" --ends-at "$SLURM_JOB_END_TIME" --log ~/{RUN}/job.log -- \\
  ~/deephpc-venv/bin/python ~/upstream.py "$private/s"
"""


def folder(cluster: Cluster) -> Path:
    return cluster.on_host(f"/home/alice/{RUN}")


def stages(cluster: Cluster) -> list[str]:
    path = folder(cluster) / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["stage"] for line in lines]


def queue(cluster: Cluster) -> str:
    return cluster.run(["squeue", "-h", "-u", "alice"]).stdout


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Endpoint]:
    """A server of alice's in a job, ready."""
    cluster.run(["rm", "-rf", RUN])
    cluster.run(["mkdir", "-m", "700", "-p", RUN])
    cluster.run(["tee", "upstream.py"], stdin=UPSTREAM.read_text())
    cluster.run(["tee", f"{RUN}/service.json"], stdin=render_service(Service(model="demo-module")))
    cluster.run(["tee", f"{RUN}/job.sh"], stdin=JOB)
    cluster.run(["sbatch", "--parsable", f"{RUN}/job.sh"])
    wait_until(lambda: "ready" in stages(cluster), 60, lambda: cluster.run(["cat", f"{RUN}/job.log"]).stdout)
    yield Endpoint.model_validate_json((folder(cluster) / "endpoint.json").read_text())


def test_another_user_of_the_node_gets_nothing(cluster: Cluster, served: Endpoint) -> None:
    asking = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://localhost:{served.port}/v2/models/"]
    assert cluster.run(asking, user="bob", node=served.host).stdout == "401"
    for name in ("endpoint.json", "secrets/token", "secrets/authorization", "job.log"):
        assert not cluster.run(["cat", f"/home/alice/{RUN}/{name}"], user="bob", check=False).stdout
    token = (folder(cluster) / "secrets" / "token").read_text().strip()
    seen = cluster.run("ps -e -ww -o args; cat /proc/[0-9]*/environ 2>/dev/null; true", node=served.host).stdout
    assert token not in seen + cluster.run("scontrol show job -d").stdout


def test_its_owner_predicts_from_the_login_node(cluster: Cluster, served: Endpoint) -> None:
    script = (
        f"from deephpc.serve import Client; print(Client.of_run('{RUN}').predict(image='/etc/hostname').value['size'])"
    )
    size = cluster.run(["cat", "/etc/hostname"]).stdout
    assert cluster.run(["python", "-c", script]).stdout == f"{len(size)}\n"


@pytest.mark.parametrize(
    "hops", [("alice@login",), ("alice@c1",), ("alice@login", "alice@c1")], ids=["login", "node", "node behind login"]
)
def test_a_tunnel_reaches_it_from_elsewhere(cluster: Cluster, served: Endpoint, hops: tuple[str, ...]) -> None:
    token = (folder(cluster) / "secrets" / "token").read_text().strip()
    ways = [Way(), Way(tuple(hop.replace("c1", served.host) for hop in hops))]
    tunnel = Tunnel(Address(served, token), ways, start_child, config=cluster.ssh_config)
    try:
        with Client(tunnel.open(), patience_s=5) as client:
            assert client.models() == ("demo_module",)
    finally:
        tunnel.close()


def test_nothing_is_left_of_a_cancelled_server(cluster: Cluster, served: Endpoint) -> None:
    cluster.run(["scancel", "-u", "alice"])
    wait_until(lambda: not queue(cluster), 60, lambda: queue(cluster))
    assert stages(cluster)[-1] == "stopping"
    assert not (folder(cluster) / "endpoint.json").exists()
    assert "upstream" not in cluster.run(["ps", "-u", "alice", "-o", "args"], node=served.host).stdout
