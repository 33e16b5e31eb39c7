"""Servers on compute nodes, reached from the login node and from a laptop: bob's home on another machine."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from deephpc.serve.service import SERVICE, Service, render_service
from tests.cluster.acceptance import Session, open_tunnel, wait_until
from tests.cluster.cluster import Cluster

UPSTREAM = Path(__file__).resolve().parents[1] / "node" / "upstream.py"
#: What `serve start` writes into a job's script, for a module that needs no image.
SERVE = f"""\
run=${{DEEPHPC_OUTPUT_DIR%/output}} private=$(mktemp -d) address=$1
until [ -e "$run/{SERVICE}" ]; do sleep 0.1; done
exec ~/deephpc-venv/bin/python -I -m deephpc.node.gateway "$run" --socket "$private/s" --host "$SLURMD_NODENAME" \\
  --address "$address" --job-id "$SLURM_JOB_ID" --log "$run/job.log" -- \\
  ~/deephpc-venv/bin/python ~/tunnels/upstream.py "$private/s"
"""
#: And how it records it.
RECORD = """\
import datetime, pathlib, sys
from deephpc.jobs.record import Record
with Record(pathlib.Path("~/.local/state/deephpc/deephpc.db").expanduser()) as record:
    now = datetime.datetime.now(datetime.timezone.utc)
    record.change(sys.argv[1], lambda job: job.model_copy(update={"kind": "serve"}), now)
"""


@pytest.fixture
def alice(cluster: Cluster) -> Session:
    """The one whose servers they are."""
    session = Session(cluster, "tunnels")
    session.write("upstream.py", UPSTREAM.read_text())
    session.write(SERVICE, render_service(Service(model="demo-module")))
    session.write("serve.sh", SERVE)
    return session


def start_server(alice: Session, address: str = "0.0.0.0") -> str:
    """Start a server and return its run's id."""
    run_id = alice.submit("run", "--name", "server", "--time", "30", "--", "bash", "serve.sh", address)
    alice.box.run(["cp", f"tunnels/{SERVICE}", f"deephpc/runs/{run_id}/"])
    alice.box.run(["sed", "-i", 's/"kind": "run"/"kind": "serve"/', f"deephpc/runs/{run_id}/plan.json"])
    alice.box.run(["python", "-c", RECORD, run_id])
    return run_id


def test_from_the_login_node_it_is_reached_directly_and_by_its_owner_alone(cluster: Cluster, alice: Session) -> None:
    run_id = start_server(alice)
    with alice.start("--json", "tunnel", run_id) as process:
        told = open_tunnel(process)
        assert told["way"] == f"{told['host']} itself"
        assert "demo_module" in cluster.run(f"{told['curl']} -sS").stdout
        code = f"curl -sk -o /dev/null -w '%{{http_code}}' {told['url']}/v2/models/"
        assert cluster.run(code, user="bob").stdout == "401"
        token = cluster.run(["cat", f"{told['folder']}/secrets/token"]).stdout.strip()
        assert token not in cluster.run("ps -e -ww -o args", user="bob").stdout
        cluster.run(["scancel", "-u", "alice"])
        assert process.wait() == 0
        assert f"the server {run_id} has ended (CANCELLED" in process.communicate()[1]


def test_where_only_ssh_leads_to_a_node_it_goes_through_ssh(cluster: Cluster, alice: Session) -> None:
    run_id = start_server(alice, address="127.0.0.1")
    with alice.start("--json", "tunnel", run_id) as process:
        told = open_tunnel(process)
        assert told["way"] == f"ssh to {told['host']}"
        ask = f"{told['curl']} -sS"
        assert "demo_module" in cluster.run(ask).stdout
        ours = f"[s]sh -N .*127.0.0.1:{told['local_port']}:"
        cluster.run(["pkill", "-f", ours])
        wait_until(lambda: "demo_module" in cluster.run(ask, check=False).stdout, 30, lambda: "no way back")
        process.send(signal.SIGINT)
        assert process.wait() == 0
        assert not cluster.run(["pgrep", "-f", ours], check=False).stdout
    answer = alice.deephpc("predict", run_id, "--input", "image=serve.sh")
    assert json.loads(answer.stdout)["predictions"]["size"] == len(SERVE), answer.stderr


def test_from_a_laptop_through_the_login_node(cluster: Cluster, alice: Session, laptop: None) -> None:
    run_id = start_server(alice)
    far = ["deephpc", "--host", "alice@login"]
    answer = cluster.run([*far, "--json", "jobs"], user="bob", node="ctl")
    assert run_id in [job["run_id"] for job in json.loads(answer.stdout)["jobs"] if job["state"] == "RUNNING"]
    with cluster.popen([*far, "--json", "tunnel", run_id], user="bob", node="ctl") as process:
        told = open_tunnel(process)
        assert told["way"] == "ssh to alice@login"
        assert "demo_module" in cluster.run(f"{told['curl']} -sS", user="bob", node="ctl").stdout
        files = cluster.run(
            f"stat -c %a%U {told['folder']} {told['folder']}/secrets/token", user="bob", node="ctl"
        ).stdout
        assert files == "700bob\n600bob\n"
        process.send(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert cluster.run(["ls", told["folder"]], check=False, user="bob", node="ctl").returncode != 0
    cluster.run("seq 1 20000 >'my cell.txt'", user="bob", node="ctl")
    answer = cluster.run(
        [*far, "predict", run_id, "--input", "image=my cell.txt", "--arg", "top=2"], user="bob", node="ctl"
    )
    found = json.loads(answer.stdout)["predictions"]
    assert (found["size"], found["filename"], found["top"]) == (108894, "my cell.txt", "2")
    with cluster.popen([*far, "logs", "-f", run_id], user="bob", node="ctl") as following:
        assert following.popen.stdout is not None
        assert run_id in following.popen.stdout.readline()
        cluster.run(["scancel", "-u", "alice"])
        assert following.wait() == 0


@pytest.mark.parametrize(
    ("prepare", "words", "told"),
    [
        ("true", "alice@login jobs show nothing", (2, "no run named 'nothing' is recorded")),
        ("true", "alice@nowhere jobs", (3, "alice@nowhere cannot be reached")),
        ("true", "root@login jobs", (3, "root@login refuses you")),
        ("printf 'StrictHostKeyChecking yes\\n' >~/.ssh/config", "alice@login jobs", (3, "is not in your known_hosts")),
        ("mv /home/alice/deephpc-venv /home/alice/gone", "alice@login jobs", (3, "there is no deephpc on alice@login")),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    cluster: Cluster, laptop: None, prepare: str, words: str, told: tuple[int, str]
) -> None:
    config = cluster.on_host("/home/bob/.ssh/config")
    before = config.read_text()
    cluster.root(f"export HOME=/home/bob; {prepare}", node="ctl")
    try:
        done = cluster.run(["deephpc", "--host", *shlex.split(words)], check=False, user="bob", node="ctl")
    finally:
        cluster.root("mv /home/alice/gone /home/alice/deephpc-venv 2>/dev/null; true", node="ctl")
        config.write_text(before)
    assert done.returncode == told[0], done.stderr
    assert told[1] in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not done.stdout
