"""The images of the tests are real: the module in them is described, trained and used by what a job runs inside."""

import json
import shlex
import shutil

import pytest

from deephpc.places import shipped
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import EXAMPLE, fetch_module_images, install_module, put_layout

PLACE = "/scratch/alice/module-images"
DRIVER = "python3 /deephpc/bin/deepaas_module.py"
#: Only the last digits depend on who computes: epochs, seed and accuracy do not.
EXACT = ("epochs", "accuracy", "seed")


@pytest.fixture(scope="module")
def place(bare_cluster: Cluster) -> Cluster:
    """The cluster, with the images as SIF files, the job scripts and the sample images in `PLACE`."""
    bare_cluster.root(f"rm -rf {PLACE}; install -d -o alice {PLACE} {PLACE}/models")
    shutil.copytree(EXAMPLE / "samples", bare_cluster.on_host(f"{PLACE}/samples"))
    scripts = bare_cluster.on_host(f"{PLACE}/bin")
    scripts.mkdir()
    for script in shipped("jobscripts").glob("deepaas_*.py"):
        shutil.copy(script, scripts)
    for name in fetch_module_images():
        layout = put_layout(bare_cluster, name, f"{PLACE}/{name}")
        build = f"apptainer --quiet build --mksquashfs-args '-comp zstd -Xcompression-level 1' {PLACE}/{name}.sif"
        bare_cluster.run(f"srun -w c1 --mem=3000 {build} oci:{layout}")
    return bare_cluster


def inside(cluster: Cluster, image: str, command: str, *, fails: bool = False) -> str:
    """Run a command in an image, in a job of alice; returns what it says on both streams."""
    binds = f"-B {PLACE} -B {PLACE}/bin:/deephpc/bin:ro -B {PLACE}/models:/srv/deepaas-digits/models"
    words = f"apptainer --quiet exec --cleanenv --contain {binds} --pwd {PLACE} {PLACE}/{image}.sif {command} 2>&1"
    done = cluster.run(f"srun -w c1 --mem=2000 sh -c {shlex.quote(words)}", check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout


def test_the_module_trains_and_predicts_inside_as_it_does_natively(place: Cluster) -> None:
    said = inside(place, "digits", f"{DRIVER} train --output {PLACE}/inside -- --epochs 15 --seed 4")
    assert "ℓ" in said and "images to learn from" in said
    programs = install_module(place)
    native = f"{programs}/python {PLACE}/bin/deepaas_module.py train --output {PLACE}/native -- --epochs 15 --seed 4"
    place.run(f"srun -w c2 --mem=2000 {native}")
    ours, theirs = (
        json.loads(place.on_host(f"{PLACE}/{where}/train.json").read_text())["result"]["output"]
        for where in ("inside", "native")
    )
    assert {name: ours[name] for name in EXACT} == {name: theirs[name] for name in EXACT}
    assert abs(ours["loss"] - theirs["loss"]) < 1e-5
    lines = [{"key": name, "args": {"image": f"{PLACE}/samples/{name}.pgm"}} for name in ("zero", "seven")]
    place.on_host(f"{PLACE}/inputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    inside(place, "digits", f"{DRIVER} predict --inputs {PLACE}/inputs.jsonl --output {PLACE}/answers")
    answer = json.loads(place.on_host(f"{PLACE}/answers/seven.json").read_text())
    assert answer["predictions"][0]["digit"] == 7


def test_its_own_command_is_one_that_deepaas_refuses(place: Cluster) -> None:
    layout = fetch_module_images()["digits"]
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]
    config = json.loads((blobs / manifest["digest"][7:]).read_text())["config"]["digest"]
    command = json.loads((blobs / config[7:]).read_text())["config"]["Cmd"]
    assert "unrecognized arguments: --openwhisk-detect" in inside(place, "digits", " ".join(command), fails=True)


def test_the_broken_module_is_refused_with_its_traceback(place: Cluster) -> None:
    said = inside(place, "broken-import", f"{DRIVER} describe --output {PLACE}/broken.json", fails=True)
    assert "No module named 'a_library_that_nobody_installed'" in said
    assert json.loads(place.on_host(f"{PLACE}/broken.json").read_text())["error"]["traceback"].startswith("Traceback")


def test_an_image_without_deepaas_is_told(place: Cluster) -> None:
    assert "has no DEEPaaS" in inside(place, "plain", f"{DRIVER} describe --output {PLACE}/plain.json", fails=True)
