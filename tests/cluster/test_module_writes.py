"""A module writes wherever Docker lets it, as far as the engine can; what is the user's stays as it is."""

import json
from typing import Any

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import put_layout

pytestmark = pytest.mark.cluster
IMAGE = "oci:/scratch/images/writes"
COMMON = ("--time", "30", "--mem", "1500")
WAITING = (*COMMON, "--wait")
#: What each engine cannot give: some lay a folder over the whole image, S and P have a copy of the module's own.
CANNOT = {
    "apptainer": set(),
    "udocker-r": set(),
    "udocker-s": {"elsewhere", "moved to /tmp and back"},
    "udocker-p2": {"elsewhere"},
    "udocker-f": {
        "working folder",
        "beside the code",
        "home of the module",
        "elsewhere",
        "moved to /tmp and back",
    },
}


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "writing")
    put_layout(cluster, "writes", "/scratch/images/writes")
    session.write("weights.txt", "of my own")
    session.write("a.png", "picture")
    return session


def answer_of(alice: Session, run_id: str, file: str) -> Any:
    return json.loads(alice.box.run(["cat", f"{folder_of(alice, run_id)}/{file}"], user="alice").stdout)


def folder_of(alice: Session, run_id: str) -> str:
    folder: str = alice.job(run_id)["job"]["folder"]
    return folder


def refused(places: dict[str, str]) -> set[str]:
    return {place for place, told in places.items() if told != "ok"}


def listing(alice: Session, folder: str) -> str:
    """Return names, sizes, times and contents of all files of a run."""
    script = f"cd {folder} && find . -type f -printf '%p %s %T@\\n' | sort && find . -type f -exec md5sum {{}} + | sort"
    return alice.box.run(script, user="alice").stdout


@pytest.mark.parametrize("engine", CANNOT)
def test_a_module_writes_where_the_engine_lets_it_and_a_used_run_never_changes(alice: Session, engine: str) -> None:
    trained = alice.submit("train", IMAGE, "--engine", engine, *WAITING, "--", "--weights", "weights.txt")
    output = answer_of(alice, trained, "output/train.json")["result"]["output"]
    assert refused(output["places"]) == CANNOT[engine]
    assert output["models"] == ["as told.bin", "predictions", "shipped.bin", "trained.bin"]
    assert output["weights"] == "of my own"
    left = alice.box.run(f"ls {folder_of(alice, trained)}/output/models", user="alice").stdout.splitlines()
    assert left == ["as told.bin", "predictions", "shipped.bin", "trained.bin"]

    before = listing(alice, folder_of(alice, trained))
    words = ("--models", trained, "--engine", engine, "--input", "image=a.png")
    predicted = alice.submit("predict", IMAGE, *words, *WAITING)
    [row] = map(
        json.loads, alice.box.run(f"cat {folder_of(alice, predicted)}/results.jsonl", user="alice").stdout.splitlines()
    )
    assert row["ok"], row
    assert refused(row["result"]["predictions"]["places"]) == CANNOT[engine]
    assert row["result"]["predictions"]["models"] == ["as told.bin", "predictions", "shipped.bin", "trained.bin"]
    assert listing(alice, folder_of(alice, trained)) == before


@pytest.mark.parametrize("engine", ["apptainer", "udocker-r", "udocker-p2"])
def test_what_is_bound_is_never_copied_and_models_come_from_where_a_variable_says(alice: Session, engine: str) -> None:
    place = f"large-{engine}"
    alice.box.run(f"mkdir -p {alice.folder}/{place} && truncate -s 3G {alice.folder}/{place}/big.bin", user="alice")
    bound = ("--bind", f"{place}:/srv/deepaas-digits/data/processed", "--env", "MODELS_PATH=/storage/weights")
    run_id = alice.submit("train", IMAGE, "--engine", engine, *bound, *WAITING)
    folder = folder_of(alice, run_id)
    output = answer_of(alice, run_id, "output/train.json")["result"]["output"]
    assert {"data.yaml", "processed", "processed/big.bin"} <= set(output["data"])
    assert int(alice.box.run(f"du -sm --apparent-size {folder} | cut -f1", user="alice").stdout) < 50
    left = alice.box.run(f"ls {folder}/output/models", user="alice").stdout.splitlines()
    assert {"as told.bin", "shipped.bin", "trained.bin"} <= set(left)


def test_what_is_bound_is_never_copied_for_servers_and_batches(alice: Session) -> None:
    alice.box.run(f"mkdir -p {alice.folder}/large && truncate -s 3G {alice.folder}/large/big.bin", user="alice")
    bound = ("--bind", "large:/srv/deepaas-digits/data/processed", "--engine", "apptainer", *COMMON)
    server = alice.submit("serve", "start", IMAGE, *bound)
    predicted = alice.submit("predict", IMAGE, *bound, "--input", "image=a.png", "--wait")
    for run_id in (server, predicted):
        used = alice.box.run(f"du -sm --apparent-size {folder_of(alice, run_id)} | cut -f1", user="alice").stdout
        assert int(used) < 50
    node = alice.job(server)["job"]["nodes"]
    private = alice.box.run("find /tmp -name folders.list -printf '%h\\n'", user="root", node=node).stdout.split()
    assert private  # of the server, which runs
    copied = f"find {' '.join(private)} -name big.bin -size +1G | wc -l"
    assert alice.box.run(copied, user="root", node=node).stdout.strip() == "0"
    alice.deephpc("serve", "stop", server)


@pytest.mark.parametrize("engine", ["apptainer", "udocker-p2"])
def test_models_go_where_a_variable_leads_into_the_sites_own_folders(alice: Session, engine: str) -> None:
    place = f"{alice.folder}/weights-{engine}"
    config = alice.write("binds.toml", f'binds = ["{alice.folder}"]\n')
    words = ("train", IMAGE, "--engine", engine, "--env", f"MODELS_PATH={place}", *WAITING)
    trained = alice.deephpc("--config", config, *words)
    assert trained.returncode == 0, trained.stderr
    assert alice.box.run(f"ls {place}", user="alice").stdout.splitlines() == ["as told.bin"]


def test_where_nothing_can_be_laid_over_an_image_the_modules_folders_are_copies(alice: Session) -> None:
    conf = "/etc/apptainer/apptainer.conf"
    alice.box.run(f"mkdir -p {alice.folder}/more && truncate -s 1M {alice.folder}/more/big.bin", user="alice")
    alice.box.run(
        f"cp {conf} /tmp/conf && sed -i 's/^enable overlay = .*/enable overlay = no/' {conf}", user="root", node="c1"
    )
    try:
        bound = ("--bind", "more:/srv/deepaas-digits/data/processed", "--sbatch=--nodelist=c1")
        run_id = alice.submit("train", IMAGE, "--engine", "apptainer", *bound, *WAITING)
    finally:
        alice.box.run(f"cp /tmp/conf {conf}", user="root", node="c1")
    log = alice.deephpc("logs", run_id).stdout
    assert "layer=none" in log, log
    output = answer_of(alice, run_id, "output/train.json")["result"]["output"]
    assert refused(output["places"]) == CANNOT["udocker-s"]
    assert {"data.yaml", "processed/big.bin"} <= set(output["data"])


def test_what_a_module_takes_is_shown(alice: Session) -> None:
    answer = alice.deephpc("--json", "module", "show", IMAGE, "--engine", "apptainer")
    assert answer.returncode == 0, answer.stderr
    shown = json.loads(answer.stdout)
    assert shown["schema"] == "deephpc.module-arguments/1"
    assert [one["name"] for one in shown["train"]["arguments"]] == ["weights"]
    assert {one["name"]: one["type"] for one in shown["predict"]["arguments"]} == {"image": "file", "note": "str"}
    asked = alice.deephpc("train", IMAGE, "--engine", "apptainer", "--help-arguments")
    assert "weights" in asked.stdout
