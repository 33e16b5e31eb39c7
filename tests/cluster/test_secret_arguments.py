"""A password among a training's arguments reaches its module, in every life of its job, and nobody else on the node."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.image_layers import assemble, load_layers, write_layer
from tests.cluster.module_images import MODULE_CONFIG, fetch_module_images, put_layout
from tests.fakes.waiting import DEADLINE_S

pytestmark = pytest.mark.cluster
IMAGE = "oci:/scratch/images/locked"
SECRET = "ψ \"hush-hush\" 'twice'\nand on"
#: Waits for a word of the test.
LOCKED = """\
import os
import time
from pathlib import Path

from webargs import fields


def get_metadata():
    return {"name": "locked"}


def get_train_args():
    password = {"format": "password"}
    return {
        "token": fields.Str(required=True, metadata=password),
        "key": fields.Str(data_key="api-key", load_default="", metadata=password),
    }


def train(token, key):
    print("begun", flush=True)
    go, until = Path(os.environ["DEEPHPC_DATA_DIR"]).parent / "go", time.monotonic() + 600
    while not go.exists() and time.monotonic() < until:
        time.sleep(0.2)
    return {"codes": [list(map(ord, each)) for each in (token, key)]}
"""


@pytest.fixture(scope="module")
def alice(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Session:
    store, layout = tmp_path_factory.mktemp("images") / "store", tmp_path_factory.mktemp("images") / "locked"
    shutil.copytree(fetch_module_images()["digits"], store)
    api = write_layer(store, {f"{MODULE_CONFIG.folder}/deepaas_digits/api.py": LOCKED}, "a module with passwords")
    assemble(store, layout, [*load_layers(store), api], MODULE_CONFIG)
    put_layout(cluster, layout, "/scratch/images/locked")
    return Session(cluster, "locked")


def seen(alice: Session) -> str:
    """Return the command lines of all processes of the nodes, as another user sees them."""
    nodes = ("login", "c1", "c2", "c3")
    return "".join(alice.box.run("ps -ww -eo args", user="bob", node=node).stdout for node in nodes)


def begun(folder: Path) -> int:
    return (folder / "job.log").read_text(errors="replace").count("begun") if (folder / "job.log").exists() else 0


def test_a_password_reaches_each_life_of_a_training_and_its_repetition_and_no_other_eyes(
    cluster: Cluster, alice: Session
) -> None:
    words = (IMAGE, "--engine", "apptainer", "--time", "30", "--mem", "1500")
    first = alice.submit("train", *words, "--", "--token", SECRET, f"--api-key={SECRET[::-1]}")
    folder = cluster.on_host(alice.job(first)["job"]["folder"])
    wait_until(lambda: begun(folder) == 1, DEADLINE_S, lambda: alice.deephpc("logs", first).stdout)
    assert "--token=***" in seen(alice)
    assert "hush-hush" not in seen(alice)
    cluster.root(f"scontrol requeue {alice.job(first)['job']['job_id']}")
    wait_until(lambda: begun(folder) == 2, DEADLINE_S, lambda: alice.deephpc("why", first).stdout)
    alice.box.run(["touch", f"{alice.job(first)['job']['folder']}/go"], user="alice")
    second = alice.submit("jobs", "rerun", first)
    alice.box.run(["touch", f"{alice.job(second)['job']['folder']}/go"], user="alice")
    done = alice.deephpc("jobs", "wait", first, second)
    assert done.returncode == 0, done.stderr

    for run_id in (first, second):
        folder = cluster.on_host(alice.job(run_id)["job"]["folder"])
        told = json.loads((folder / "output" / "train.json").read_text())
        assert told["result"]["output"]["codes"] == [list(map(ord, SECRET)), list(map(ord, SECRET[::-1]))]
        assert told["args"] == {"token": "***", "key": "***"}
        holding = [path for path in folder.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()]
        assert holding == [folder / "secrets" / "arguments.json"]
        shown = [("jobs", "show"), ("--json", "jobs", "show"), ("jobs", "script"), ("logs",), ("why",)]
        assert not [words for words in shown if "hush-hush" in alice.deephpc(*words, run_id).stdout]
        assert "--token=***" in alice.deephpc("jobs", "show", run_id).stdout
