"""Data on the real cluster, as a user: staged once, seen in every engine; results home however a job ends."""

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import put_layout
from tests.cluster.storage import Storage, storage

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


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    return Session(cluster, "collect")


@pytest.fixture(scope="module")
def stored(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with storage(cluster, tmp_path_factory.mktemp("stored")) as running:
        yield running


def submit(alice: Session, *words: str) -> tuple[str, str]:
    """Submit; return the run's id and what was said."""
    answer = alice.deephpc(*words, timeout=200)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip(), answer.stderr


def read(alice: Session, run_id: str, name: str) -> str:
    return alice.box.run(["cat", f"{alice.job(run_id)['job']['folder']}/{name}"], user="alice").stdout


def test_staged_data_are_seen_natively_and_in_images_and_brought_once(
    cluster: Cluster, alice: Session, stored: Storage
) -> None:
    (stored.webdav_root / "plankton" / "tief").mkdir(parents=True)
    (stored.webdav_root / "plankton" / "tief" / "ü b.txt").write_text("Blaualge")
    (stored.webdav_root / "table.csv").write_text("a,b\n")
    alice.write("sees.py", SEES)
    (stored.webdav_root / "digits").mkdir()
    shutil.copyfile(cluster.rootfs / DIGITS, stored.webdav_root / "digits" / "mine.csv.gz")
    for name in ("plain", "digits"):
        put_layout(cluster, name, f"/scratch/images/{name}")
    data = ("--data", "rshare:/plankton", "--data", "rshare:table.csv:labels", "--time", "5")
    runs: list[str] = []
    for engine in ("native", "apptainer", "udocker-p2"):
        image = () if engine == "native" else ("--image", "oci:/scratch/images/plain")
        run_id, said = submit(alice, "run", *image, "--engine", engine, *data, "--", "python3", "sees.py")
        assert f"{0 if runs else 1} of 1 files transferred, {0 if runs else 8} bytes" in said
        runs.append(run_id)
    trained, _ = submit(
        *(alice, "train", "oci:/scratch/images/digits", "--engine", "apptainer", "--time", "5"),
        *("--data", "rshare:/digits", "--", "--epochs", "1", "--data", "mine.csv.gz"),
    )
    for run_id in (*runs, trained):
        assert alice.deephpc("jobs", "wait", run_id).returncode == 0, alice.deephpc("logs", run_id).stdout
    for run_id in runs:
        assert json.loads(read(alice, run_id, "output/seen.json")) == {
            "plankton/tief/ü b.txt": "Blaualge",
            "labels": "a,b\n",
        }
    (staged,) = alice.job(trained)["plan"]["data"]
    assert alice.deephpc("data", "verify", staged["digest"]).returncode == 0
