"""Data on the real cluster, as a user: staged once, seen in every engine; results home however a job ends."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import put_layout
from tests.cluster.storage import BUCKET, Storage, storage
from tests.data.servers import PASSWORD

DIGITS = "usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"  # of Debian's python3-sklearn
pytestmark = pytest.mark.cluster

SEES = """
import json, os, pathlib
top = pathlib.Path(os.environ["DEEPHPC_DATA_DIR"])
seen = {}
for place in sorted(top.iterdir()):
    for path in [place, *sorted(place.rglob("*"))]:
        if path.is_file():
            seen[str(path.relative_to(top))] = path.read_text()
            try:
                path.open("a").close()
                seen["written"] = str(path)
            except OSError:
                pass
pathlib.Path(os.environ["DEEPHPC_OUTPUT_DIR"], "seen.json").write_text(json.dumps(seen))
"""
ENDS = """
import os, pathlib, signal, sys, time
output, checkpoints = (pathlib.Path(os.environ[f"DEEPHPC_{name}_DIR"]) for name in ("OUTPUT", "CHECKPOINT"))
(output / "tief").mkdir()
(output / "tief" / "ü model.bin").write_bytes(os.urandom(300_000))
(checkpoints / "1.pt").write_bytes(os.urandom(100_000))
def told(*_):
    (checkpoints / "last.pt").write_bytes(os.urandom(100_000))
    sys.exit(143)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
while sys.argv[1] != "exit":
    time.sleep(0.1)
sys.exit(7)
"""
#: How each run ends, where its results go, and which checkpoints it leaves.
ENDINGS = {
    "exit": ("FAILED", "rshare:/results", ["1.pt"]),
    "timeout": ("TIMEOUT", f"s3://{BUCKET}/deep", ["1.pt", "last.pt"]),
    "cancel": ("CANCELLED", "rshare:/results", ["1.pt", "last.pt"]),
    "power": ("NODE_FAIL", "rshare:/results", ["1.pt"]),
}


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "collect")
    session.write("sees.py", SEES)
    session.write("ends.py", ENDS)
    for name in ("plain", "digits"):
        put_layout(cluster, name, f"/scratch/images/{name}")
    return session


@pytest.fixture(scope="module")
def stored(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with storage(cluster, tmp_path_factory.mktemp("stored")) as running:
        root = running.webdav_root
        (root / "plankton" / "tief").mkdir(parents=True)
        (root / "plankton" / "tief" / "ü b.txt").write_text("Blaualge")
        (root / "table.csv").write_text("a,b\n")
        (root / "digits").mkdir()
        shutil.copyfile(cluster.rootfs / DIGITS, root / "digits" / "mine.csv.gz")
        yield running


def test_data_come_and_results_go_however_a_job_ends(cluster: Cluster, alice: Session, stored: Storage) -> None:
    with cluster.configured(KillWait="30"):  # as sites have it
        runs = {ending: begin(alice, ending) for ending in ("timeout", "power", "cancel", "exit")}
        wait_until(lambda: "ready" in alice.deephpc("logs", runs["power"]).stdout, 60, lambda: "no job runs on c3")
        cluster.power_off("c3")
        check_staging(alice)
        assert alice.deephpc("jobs", "cancel", runs["cancel"]).returncode == 0
        alice.deephpc("jobs", "wait", *(runs[ending] for ending in ("cancel", "exit", "timeout", "power")))
    for ending in ("cancel", "exit", "timeout", "power"):
        state, place, checkpoints = ENDINGS[ending]
        detail = alice.job(runs[ending])
        (delivery,) = detail["transfers"]
        assert (detail["job"]["state"], delivery["state"], delivery["destination"]) == (
            *(state, "done", f"{place}/{runs[ending]}"),
        ), alice.deephpc("collect", runs[ending]).stderr
        if ending == "exit":  # whoever is told to end has half a minute for it, which is not enough on a busy node
            assert delivery["by"] == "job"
        left = hashes(cluster.on_host(detail["job"]["folder"]))
        assert [name for name in left if name.startswith("checkpoints")] == [
            f"checkpoints/{name}" for name in checkpoints
        ]
        assert hashes(arrived(alice, stored, place, runs[ending])) == left
        again = json.loads(alice.deephpc("--json", "collect", runs[ending]).stdout)
        assert again["transferred_bytes"] == 0, again
    folders = " ".join(alice.job(run_id)["job"]["folder"] for run_id in runs.values())
    told = cluster.run(f"grep -rlF -e '{PASSWORD[:5]}' -e hidden {folders} ~/.local/state/deephpc; true", user="alice")
    assert told.stdout == ""


def begin(alice: Session, ending: str) -> str:
    """Submit the run that will end so."""
    image = ("--image", "oci:/scratch/images/plain", "--engine", "apptainer") if ending == "cancel" else ()
    place = "nodelist" if ending == "power" else "exclude"
    return alice.submit(
        *("run", *image, "--name", ending, "--time", "1" if ending == "timeout" else "30", "--max-requeues", "0"),
        *(f"--sbatch=--{place}=c3", "--collect", ENDINGS[ending][1], "--", "python3", "ends.py", ending),
    )


def check_staging(alice: Session) -> None:
    """Data are brought once, and seen natively, in images, and by a module in its own folder."""
    words = ("--data", "rshare:/plankton", "--data", "rshare:table.csv:labels", "--time", "30", "--sbatch=--exclude=c3")
    runs: list[str] = []
    for engine in ("native", "apptainer", "udocker-p2"):
        image = () if engine == "native" else ("--image", "oci:/scratch/images/plain")
        answer = alice.deephpc("run", *image, "--engine", engine, *words, "--", "python3", "sees.py")
        assert f"{0 if runs else 1} of 1 files transferred, {0 if runs else 8} bytes" in answer.stderr, answer.stderr
        runs.append(answer.stdout.strip())
    trained = alice.submit(
        *("train", "oci:/scratch/images/digits", "--engine", "apptainer", "--time", "30", "--sbatch=--exclude=c3"),
        *("--data", "rshare:/digits", "--", "--epochs", "1", "--data", "mine.csv.gz"),
    )
    for run_id in (*runs, trained):
        assert alice.deephpc("jobs", "wait", run_id).returncode == 0, alice.deephpc("logs", run_id).stdout
    for run_id in runs:
        seen = alice.box.run(["cat", f"{alice.job(run_id)['job']['folder']}/output/seen.json"], user="alice").stdout
        assert json.loads(seen) == {"plankton/tief/ü b.txt": "Blaualge", "labels": "a,b\n"}
    (staged,) = alice.job(trained)["plan"]["data"]
    assert alice.deephpc("data", "verify", staged["digest"]).returncode == 0


def arrived(alice: Session, stored: Storage, place: str, run_id: str) -> Path:
    """Return a folder on the host with what arrived."""
    if place.startswith("rshare:"):
        return stored.webdav_root / "results" / run_id
    assert alice.deephpc("data", "get", f"{place}/{run_id}", f"back/{run_id}").returncode == 0
    return alice.box.on_host(f"{alice.folder}/back/{run_id}")


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of all that a program kept."""
    kept = (path for name in ("output", "checkpoints") for path in (folder / name).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}
