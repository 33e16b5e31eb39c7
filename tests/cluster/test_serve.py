"""Servers on the real cluster by the command alone: who gets in, and what is left of them however they end."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.acceptance import Session, open_tunnel, wait_until
from tests.cluster.module_images import EXAMPLE, put_layout

pytestmark = pytest.mark.cluster
UPSTREAM = Path(__file__).resolve().parents[1] / "node" / "upstream.py"
COMMON = ("--time", "30", "--mem", "2000")
WITH_DATA = (
    *("--data", "./set:labels", "--collect", "results"),
    *("--bind", "sees:/opt/sees:ro", "--env", "PYTHONPATH=/opt/sees"),
)
IMAGE, BROKEN = "oci:/scratch/images/digits", "oci:/scratch/images/broken-import"
#: In place of the python3 that would run `deepaas_serve.py`.
DOUBLE = """\
#!/bin/bash
case $1 in */container/deepaas_serve.py) ;; *) exec /usr/bin/python3 "$@" ;; esac
IFS=- read -r _ mode _ <<<"$DEEPHPC_RUN_ID"
exec ~/deephpc-venv/bin/python upstream.py "$DEEPHPC_SOCKET" --mode "$mode"
"""
#: Python reads this first, in every image: with it on PYTHONPATH each says what it sees of the run's data.
SEES = """\
import os, pathlib, sys
top = pathlib.Path(os.environ.get("DEEPHPC_DATA_DIR", "/nowhere"))
seen = {str(path.relative_to(top)): path.read_text() for path in top.glob("labels/*") if path.is_file()}
print("sees", seen, file=sys.stderr)
"""
PREDICT = """\
import pathlib, sys
from deephpc.serve import Client
with Client.of_run(sys.argv[1]) as client:
    print(client.predict(image=pathlib.Path("seven.pgm")).value[0]["digit"])
"""


@pytest.fixture(scope="module")
def alice(cluster: Any) -> Session:
    session = Session(cluster, "serving")
    for name in ("digits", "broken-import"):
        put_layout(cluster, name, f"/scratch/images/{name}")
    shutil.copy(EXAMPLE / "samples" / "seven.pgm", cluster.on_host(f"{session.folder}/seven.pgm"))
    cluster.on_host(f"{session.folder}/seven.pgm").chmod(0o644)
    session.write("upstream.py", UPSTREAM.read_text())
    session.write("predict.py", PREDICT)
    cluster.run(["mkdir", "-p", "venv/bin"], cwd=session.folder)
    session.write("venv/bin/activate", f"PATH={session.folder}/venv/bin:$PATH\n")
    session.write("venv/bin/python3", DOUBLE)
    cluster.run(["chmod", "755", "venv/bin/python3"], cwd=session.folder)
    cluster.run(["mkdir", "-p", "sees", "set"], cwd=session.folder)
    session.write("sees/sitecustomize.py", SEES)
    session.write("set/cells.csv", "a,b\n")
    return session


@pytest.fixture(scope="module")
def trained(alice: Session) -> str:
    """The run that trained the module of the image."""
    return alice.submit("train", IMAGE, "--engine", "apptainer", *COMMON, "--wait", "--", "--epochs", "5")


def collected(alice: Session, run_id: str) -> set[str]:
    """Return what of a run arrived where results go, by the names of its folder; each as it lies there."""
    there = alice.box.on_host(f"{alice.folder}/results/{run_id}")
    left = alice.box.on_host(alice.job(run_id)["job"]["folder"])
    found = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert [name for name in found if (there / name).read_bytes() != (left / name).read_bytes()] == []
    return found


def status(alice: Session, run_id: str) -> dict[str, Any]:
    server: dict[str, Any] = json.loads(alice.deephpc("--json", "serve", "status", run_id).stdout)
    return server


def start(alice: Session, *words: str) -> str:
    """Start a server without staying with it."""
    return alice.submit("serve", "start", "--no-wait", *words)


def own(mode: str, *words: str) -> tuple[str, ...]:
    """Return the words for a module installed natively; its double behaves as the run's name says."""
    return ("demo_module", "--engine", "native", "--venv", "venv", "--name", mode, "--time", "30", *words)


def left_of(alice: Session) -> list[str]:
    """Return what is left of servers: jobs, processes on the nodes, private folders, addresses."""
    queue = alice.box.run(["squeue", "-h", "-u", "alice"], user="alice").stdout.splitlines()
    files = alice.box.run("ls ~/deephpc/runs/*/endpoint.json 2>/dev/null || true", user="alice").stdout.split()
    look = "ps -u alice -ww -o args= | grep -E 'deephpc|upstream|deepaas'; ls -d /tmp/deephpc-* 2>/dev/null; true"
    nodes = [
        line for node in ("c1", "c2", "c3") for line in alice.box.run(look, user="root", node=node).stdout.splitlines()
    ]
    return [*queue, *files, *nodes]


def nothing_is_left(alice: Session) -> None:
    wait_until(lambda: not left_of(alice), 60, lambda: "\n".join(left_of(alice)))


def check_from_a_laptop(alice: Session, run_id: str) -> None:
    """The server is asked from a machine that sees no run folder, by a command and by a client through a tunnel."""
    run, far = partial(alice.box.run, user="bob", node="ctl"), ["deephpc", "--host", "alice@login"]
    run(["tee", "seven.pgm"], stdin=(EXAMPLE / "samples" / "seven.pgm").read_text())
    answer = run([*far, "predict", run_id, "--input", "image=seven.pgm"])
    assert json.loads(answer.stdout)["predictions"][0]["digit"] == 7
    with alice.box.popen([*far, "--json", "tunnel", run_id], user="bob", node="ctl") as process:
        told = open_tunnel(process)
        asking = f"{told['python']}; from pathlib import Path; print(client.predict(image=Path('seven.pgm')).value)"
        assert "{'digit': 7," in run(["python", "-c", asking]).stdout
        process.send(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM


@pytest.mark.usefixtures("laptop")
def test_a_training_is_served_to_its_owner_alone(alice: Session, trained: str) -> None:
    done = alice.deephpc("serve", "start", trained, *COMMON, *WITH_DATA, "--sample", "image=seven.pgm")
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    stages = [line.split()[2] for line in done.stderr.splitlines() if " s  " in line]
    assert stages[-4:] == ["listening", "loading", "warming", "ready"]
    log = alice.deephpc("logs", run_id).stdout
    assert "with your sample (image=seven.pgm)" in log
    assert "sees {'labels/cells.csv': 'a,b\\n'}" in log
    server = status(alice, run_id)
    folder = server["folder"]
    assert alice.box.run(["python", "predict.py", folder], user="alice", cwd=alice.folder).stdout == "7\n"
    plan = json.loads(alice.box.run(["cat", f"{folder}/plan.json"], user="alice").stdout)
    assert plan["container"]["models"].endswith(f"{trained}/output/models")

    node, url = server["host"], f"https://localhost:{server['port']}"
    for path in ("/v2/models/", "/health", "/ready", "/"):
        asking = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url + path]
        assert alice.box.run(asking, user="bob", node=node).stdout == "401"
    token = alice.box.run(["cat", f"{folder}/secrets/token"], user="alice").stdout.strip()
    readable = f"cat {folder}/* {folder}/secrets/* /home/alice/.local/state/deephpc/*; find /tmp -type s -readable"
    assert alice.box.run(f"{readable} 2>/dev/null || true", user="bob", node=node).stdout == ""
    seen = "ps -e -ww -o args; cat /proc/[0-9]*/environ 2>/dev/null; true"
    everything = alice.box.run(seen, user="root", node=node).stdout + alice.box.run("scontrol show job -d").stdout
    assert token not in everything
    places = f"{folder} /home/alice/.local/state/deephpc"
    hold = alice.box.run(f"grep -rlF {token} {places}", user="alice").stdout.split()
    assert sorted(hold) == [f"{folder}/secrets/authorization", f"{folder}/secrets/token"]

    check_from_a_laptop(alice, run_id)

    assert alice.deephpc("serve", "stop", run_id).stdout == f"{run_id}: stopped (CANCELLED)\n"
    nothing_is_left(alice)
    assert alice.deephpc("jobs", "wait", run_id).returncode == 6  # which sends what the job had no time for
    assert collected(alice, run_id) == {"job.log", "plan.json", "result.json", "usage.jsonl"}


def test_a_training_is_served_where_links_stand_for_mounts(alice: Session, trained: str) -> None:
    run_id = alice.submit("serve", "start", trained, "--engine", "udocker-f", *COMMON, "--sample", "image=seven.pgm")
    answer = alice.deephpc("predict", run_id, "--input", "image=seven.pgm")
    assert json.loads(answer.stdout)["predictions"][0]["digit"] == 7, answer.stderr
    assert alice.deephpc("serve", "stop", run_id).returncode == 0


def test_a_batch_sees_its_data_and_all_it_found_is_delivered(alice: Session, trained: str) -> None:
    batch = ("--models", trained, "--engine", "apptainer", *COMMON, *WITH_DATA, "--input", "image=*.pgm", "--wait")
    done = alice.deephpc("predict", IMAGE, *batch)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    assert "[0] sees {'labels/cells.csv': 'a,b\\n'}" in done.stderr
    arrived = collected(alice, run_id)
    assert {"job-0.log", "plan.json", "results.csv", "results.jsonl", "tasks/0/output/results.jsonl"} < arrived
    there = f"results/{run_id}"
    (answer,) = (name for name in arrived if name.startswith("tasks/0/output/seven-"))
    assert '"digit": 7' in alice.box.run(["cat", f"{alice.folder}/{there}/{answer}"], user="alice").stdout


@pytest.mark.parametrize("engine", ["apptainer", "udocker-p2"])
@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("--service", "jupyter"), "jupyter"),
        (("--command", "gunicorn app:app"), "gunicorn"),
        (("--command", "'/opt/it''s mine/serve' --now"), "/opt/its mine/serve"),
        (("--command", "./seven.pgm"), "./seven.pgm"),
    ],
)
def test_a_server_whose_program_the_image_lacks_is_not_queued(
    alice: Session, engine: str, words: tuple[str, ...], missing: str
) -> None:
    before = alice.jobs("--limit", "500").keys()
    done = alice.deephpc("serve", "start", IMAGE, "--engine", engine, *words, *COMMON)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"has no {missing}" in done.stderr, done.stderr
    assert alice.jobs("--limit", "500").keys() == before


def test_a_program_that_a_bind_may_bring_is_noted_and_one_that_is_there_is_not(alice: Session) -> None:
    common = ("serve", "start", "--no-wait", IMAGE, "--engine", "apptainer", *COMMON)
    done = alice.deephpc(*common, "--bind", "sees:/opt/bin", "--command", "gunicorn app:app")
    assert "note:" in done.stderr and "has no gunicorn on its PATH" in done.stderr, done.stderr
    there = alice.deephpc(*common, "--command", "python3 -V")
    assert "has no" not in there.stderr, there.stderr
    for run_id in (done.stdout.strip(), there.stdout.strip()):
        assert alice.deephpc("jobs", "wait", run_id).returncode == 6


def test_whatever_ends_a_server_nothing_is_left_and_the_record_is_true(alice: Session) -> None:
    limit = start(alice, *own("limit", "--time", "1"))
    broken = start(alice, BROKEN, "--engine", "apptainer", "--time", "30", "--mem", "1000")
    crash, silent = start(alice, *own("crash")), start(alice, *own("silent", "--ready-within", "0:00:05"))
    hang = start(alice, *own("hang", "--ready-within", "0:00:40"))  # time enough to listen
    cancelled, stopped = start(alice, *own("cancelled")), start(alice, *own("stopped"))
    idle = start(alice, *own("idle", "--idle-stop", "0:00:03"))
    for run_id, reason, last_line in (
        (broken, "No module named 'a_library_that_nobody_installed'", "ModuleNotFoundError: No module named"),
        (crash, "the server ended with exit code 9", "the model crashes now: no weights"),
        (silent, "not ready within 5 s: it does not listen", ""),
        (hang, "not ready within 40 s: it does not answer its first prediction", ""),
    ):
        done = alice.deephpc("serve", "status", run_id, "--wait")
        assert done.returncode == 6, done.stderr
        assert reason in done.stderr.splitlines()[-2]
        assert last_line in done.stderr
        assert reason in alice.job(run_id)["job"]["reason"]
    for run_id in (cancelled, stopped):
        done = alice.deephpc("serve", "status", run_id, "--wait")
        assert done.returncode == 0, done.stderr
    alice.box.run(["scancel", status(alice, cancelled)["job_id"]], user="alice")
    assert alice.deephpc("serve", "stop", stopped).stdout == f"{stopped}: stopped (CANCELLED)\n"
    assert "nobody used it for 3 s" in alice.wait_for(idle, ["COMPLETED"])["reason"]
    alice.wait_for(cancelled, ["CANCELLED"])
    alice.wait_for(limit, ["TIMEOUT"])
    assert [one["stage"] for one in status(alice, limit)["stages"]][-2:] == ["ready", "stopping"]
    nothing_is_left(alice)
