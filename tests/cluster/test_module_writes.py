"""A module writes wherever Docker lets it, as far as the engine can; what is the user's stays as it is."""

import json
from typing import Any

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import WRITES, put_layout

pytestmark = pytest.mark.cluster
IMAGE = "oci:/scratch/images/writes"
HOME = "/srv/deepaas-digits"
COMMON = ("--time", "30", "--mem", "1500")
WAITING = (*COMMON, "--wait")
SET = "classes: 3\n"
#: What a training leaves: below its own folder, where a constant of its says, and what the image had in either.
MODELS = ["as configured.bin", "as told.bin", "base.bin", "predictions", "shipped.bin", "trained.bin"]
#: What each engine cannot give: some lay a folder over the whole image, S and P have a copy of the module's own. The
#: working folder of the image is the one above that.
_WORKDIR = {"working folder", "what lies in the working folder", "moved to /tmp and back"}
CANNOT = {
    "apptainer": set(),
    "udocker-r": set(),
    "udocker-s": {"elsewhere", *_WORKDIR, "moved from its home and back"},
    "udocker-p2": {"elsewhere"},
    "udocker-f": {"elsewhere", *_WORKDIR, "moved from its home and back", "beside the code", "home of the module"},
}


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "writing")
    put_layout(cluster, "writes", "/scratch/images/writes")
    session.write("weights.txt", "of my own")
    session.write("a.png", "picture")
    session.box.run(f"mkdir -p {session.folder}/set/images", user="alice")
    session.write("set/data.yaml", SET)
    session.write("set/images/1.png", "picture")
    session.box.run(f"mkdir -p {session.folder}/large && truncate -s 3G {session.folder}/large/big.bin", user="alice")
    return session


@pytest.fixture(scope="module")
def trained(alice: Session) -> dict[str, str]:
    """Runs, by engine, that trained with large folders bound and had their models where a variable says."""
    bound = ("--bind", f"large:{HOME}/data/processed", "--bind", f"large:{HOME}/models/pretrained")
    asked = (*bound, "--env", "MODELS_PATH=/storage/weights")
    engines = ("apptainer", "udocker-r", "udocker-p2")
    run_ids = together(alice, *(("train", IMAGE, "--engine", each, *asked) for each in engines))
    return dict(zip(engines, run_ids, strict=True))


def together(alice: Session, *runs: tuple[str, ...]) -> list[str]:
    """Submit runs, wait until all have completed, and return their ids."""
    run_ids = [alice.submit(*words, *COMMON) for words in runs]
    done = alice.deephpc("jobs", "wait", *run_ids)
    assert done.returncode == 0, [alice.deephpc("why", run_id).stdout for run_id in run_ids]
    return run_ids


def answer_of(alice: Session, run_id: str, file: str) -> Any:
    return json.loads(alice.box.run(["cat", f"{folder_of(alice, run_id)}/{file}"], user="alice").stdout)


def folder_of(alice: Session, run_id: str) -> str:
    folder: str = alice.job(run_id)["job"]["folder"]
    return folder


def predictions_of(alice: Session, run_id: str) -> dict[str, Any]:
    """Return what a batch of one input was answered."""
    alice.deephpc("predict", "--results", run_id)  # which writes the table
    [line] = alice.box.run(f"cat {folder_of(alice, run_id)}/results.jsonl", user="alice").stdout.splitlines()
    row = json.loads(line)
    assert row["ok"], row
    found: dict[str, Any] = row["result"]["predictions"]
    return found


def used_mib(alice: Session, run_id: str) -> int:
    return int(alice.box.run(f"du -sm --apparent-size {folder_of(alice, run_id)} | cut -f1", user="alice").stdout)


def refused(places: dict[str, str]) -> set[str]:
    return {place for place, told in places.items() if told != "ok"}


def listing(alice: Session, folder: str) -> str:
    """Return names, sizes, times and contents of all files of a folder."""
    names = "find . \\( -type f -printf '%p %s %T@\\n' -o -printf '%p %l\\n' \\) | sort"
    script = f"cd '{folder}' && {names} && find . -type f -exec md5sum {{}} + | sort"
    return alice.box.run(script, user="alice").stdout


@pytest.mark.parametrize("engine", CANNOT)
def test_a_module_writes_where_the_engine_lets_it_and_a_used_run_never_changes(alice: Session, engine: str) -> None:
    asked = ("--engine", engine, "--data", "./set", *WAITING)
    trained = alice.submit("train", IMAGE, *asked, "--", "--weights", "weights.txt")
    output = answer_of(alice, trained, "output/train.json")["result"]["output"]
    assert refused(output["places"]) == CANNOT[engine]
    assert output["models"] == MODELS
    assert {"data.yaml", "images", "images/1.png"} <= set(output["data"])
    assert output["weights"] == "of my own"
    left = alice.box.run(f"ls {folder_of(alice, trained)}/output/models", user="alice").stdout.splitlines()
    assert left == MODELS

    before = listing(alice, folder_of(alice, trained))
    sets = () if engine == "udocker-f" else ("--data", "./set:named")  # F shows what is bound by links
    words = ("--models", trained, "--engine", engine, "--input", "image=a.png", *sets)
    predicted = alice.submit("predict", IMAGE, *words, *WAITING)
    answered = predictions_of(alice, predicted)
    assert refused(answered["places"]) == CANNOT[engine]
    assert answered["models"] == answered["configured"] == MODELS
    assert listing(alice, folder_of(alice, trained)) == before
    assert alice.box.run(["cat", f"{alice.folder}/set/data.yaml"], user="alice").stdout == SET


@pytest.mark.parametrize("engine", ["apptainer", "udocker-r", "udocker-p2"])
def test_what_is_bound_is_never_copied_and_models_come_from_where_a_variable_says(
    alice: Session, trained: dict[str, str], engine: str
) -> None:
    output = answer_of(alice, trained[engine], "output/train.json")["result"]["output"]
    assert {"data.yaml", "processed", "processed/big.bin"} <= set(output["data"])
    assert "pretrained" in output["models"]
    assert used_mib(alice, trained[engine]) < 50
    left = alice.box.run(f"ls {folder_of(alice, trained[engine])}/output/models", user="alice").stdout.splitlines()
    assert {"as told.bin", "shipped.bin", "trained.bin"} <= set(left)


def test_used_models_never_change_whoever_uses_them_and_whatever_they_are_called(
    alice: Session, trained: dict[str, str]
) -> None:
    folders = {engine: folder_of(alice, run_id) for engine, run_id in trained.items()}
    for folder in folders.values():
        odd = "printf b >a:b.bin && printf d >c,d.bin && ln -s trained.bin latest.bin"
        alice.box.run(f"cd {folder}/output/models && {odd}", user="alice")
    alice.box.run(f"cd {folders['udocker-r']}/output/models && seq -f '%g.bin' 101 | xargs touch", user="alice")
    own = f"{alice.folder}/own models"
    alice.box.run(f"mkdir '{own}' && cd '{own}' && printf b >a:b.bin && ln -s ../weights.txt latest.bin", user="alice")
    before = {folder: listing(alice, folder) for folder in (*folders.values(), own)}

    server = alice.submit("serve", "start", "--no-wait", trained["apptainer"], *COMMON, "--sample", "image=a.png")
    predict = ("predict", IMAGE, "--input", "image=a.png")
    of_runs = [(*predict, "--models", run_id, "--engine", engine) for engine, run_id in trained.items()]
    *used, with_own = together(alice, *of_runs, (*predict, "--models", own, "--engine", "udocker-p2"))
    ready = alice.deephpc("serve", "status", server, "--wait")
    assert ready.returncode == 0, ready.stderr
    assert "models     opened for its answers: " in ready.stdout, ready.stdout
    alice.deephpc("serve", "stop", server)

    assert {folder: listing(alice, folder) for folder in before} == before
    for run_id in used:
        table = alice.deephpc("predict", "--results", run_id).stdout
        assert "models   opened for its answers: " in table, table
        answered = predictions_of(alice, run_id)
        assert answered["where"] == "/storage/weights"
        told = {"as told.bin": "trained", "a:b.bin": "b", "c,d.bin": "d", "latest.bin": "trained"}
        assert told.items() <= answered["texts"].items()
        assert used_mib(alice, run_id) < 50
    assert predictions_of(alice, with_own)["texts"] == {"a:b.bin": "b", "latest.bin": "of my own"}


@pytest.mark.parametrize("below", ["models/pretrained", "data/processed"])
def test_where_links_stand_for_mounts_nothing_is_bound_below_what_a_module_writes(alice: Session, below: str) -> None:
    answer = alice.deephpc("train", IMAGE, "--engine", "udocker-f", "--bind", f"large:{HOME}/{below}", *WAITING)
    assert answer.returncode == 6
    why = alice.deephpc("why", answer.stdout.strip()).stdout
    assert f"udocker-f shows nothing at {HOME}/{below}" in why, why
    assert "--engine" in why


def test_a_folder_bound_over_a_modules_own_is_never_copied(alice: Session) -> None:
    code = f"{alice.folder}/checkout/deepaas_digits"
    made = f"mkdir -p {code} {alice.folder}/checkout/models && cp -r {alice.folder}/large {alice.folder}/checkout/data"
    alice.box.run(f"{made} && touch {code}/__init__.py", user="alice")
    alice.write("checkout/deepaas_digits/api.py", WRITES)
    bound = {"udocker-p2": f"large:{HOME}/data", "apptainer": f"checkout:{HOME}"}
    for run_id in together(alice, *(("train", IMAGE, "--engine", each, "--bind", bound[each]) for each in bound)):
        output = answer_of(alice, run_id, "output/train.json")["result"]["output"]
        assert "big.bin" in output["data"]
        assert used_mib(alice, run_id) < 50
    assert f"what is bound over {HOME}/models takes the models" in alice.deephpc("logs", run_id).stdout
    left = alice.box.run(f"ls {alice.folder}/checkout/models", user="alice").stdout.splitlines()
    assert left == ["as told.bin", "predictions", "trained.bin"]


def test_what_is_bound_is_never_copied_for_servers_and_batches(alice: Session) -> None:
    below = ("--bind", f"large:{HOME}/data/processed", "--bind", f"large:{HOME}/models/pretrained")
    bound = (*below, "--engine", "apptainer", *COMMON)
    server = alice.submit("serve", "start", IMAGE, *bound)
    predicted = alice.submit("predict", IMAGE, *bound, "--input", "image=a.png", "--wait")
    assert max(used_mib(alice, run_id) for run_id in (server, predicted)) < 50
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
