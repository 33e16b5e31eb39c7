"""Images in jobs on the real cluster, as an ordinary user: every engine gives the same, and says when it cannot."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.acceptance import Answer, Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import (
    EXAMPLE,
    PLAIN_ENV,
    PLAIN_FOLDER,
    PLAIN_TMP,
    fetch_module_images,
    install_module,
    push_image,
    put_layout,
)
from tests.cluster.registry import HOST, Registry
from tests.containers.images import build_image

pytestmark = pytest.mark.cluster
ENGINES = ("apptainer", "udocker-r", "udocker-f", "udocker-p2", "udocker-p1", "udocker-s")
FAKECHROOT = "/usr/lib/x86_64-linux-gnu/fakechroot/libfakechroot.so"
LISTENS = """
import os, pathlib, signal, sys, time
def told(number, frame):
    pathlib.Path(os.environ["DEEPHPC_OUTPUT_DIR"], "kept.txt").write_text("told in time")
    print("erzählt", number, flush=True)
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
ASKS = """
import json, os, pathlib, sys, tempfile
seen = {"cwd": os.getcwd(), "home": os.environ["HOME"], "environ": dict(os.environ), "uid": os.getuid()}
weights = pathlib.Path.home() / ".cache/torch/hub/weights.pth"
seen["weights"] = weights.read_text()
weights.with_name("more.pth").write_text("another download")
seen["tmp"] = {}
for file in map(pathlib.Path, sys.argv[1:]):
    seen["tmp"][str(file)] = file.read_text()
    file.write_text("changed")
    file.with_name("beside").write_text("x")
with tempfile.NamedTemporaryFile() as file:
    seen["temporary"] = file.name
for place in ("/root_of_image", "/etc/x", "/tmp/x", "/var/tmp/x", os.environ["HOME"] + "/x"):
    try:
        pathlib.Path(place).write_text("x")
        seen[place] = True
    except OSError:
        seen[place] = False
pathlib.Path(os.environ["DEEPHPC_OUTPUT_DIR"], "seen.json").write_text(json.dumps(seen))
print("auf stdout: ψ")
os.write(2, "auf stderr: 数\\n".encode())
"""


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "engines")
    for name in fetch_module_images():
        put_layout(cluster, name, f"/scratch/images/{name}")
    return session


@pytest.fixture(scope="module")
def images(alice: Session) -> dict[str, str]:
    return {name: f"oci:/scratch/images/{name}" for name in fetch_module_images()}


def output(alice: Session, run_id: str, name: str) -> str:
    return alice.box.run(["cat", f"{alice.job(run_id)['job']['folder']}/output/{name}"], user="alice").stdout


def run_id_of(answer: Answer) -> str:
    assert answer.stdout.strip(), answer.stderr
    return answer.stdout.split()[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_trains_the_same_in_every_engine(alice: Session, images: dict[str, str], engine: str) -> None:
    answer = alice.deephpc(
        "train", images["digits"], "--engine", engine, "--time", "30", "--wait", "--", "--epochs", "3"
    )
    assert answer.returncode == 0, answer.stderr
    trained = json.loads(output(alice, run_id_of(answer), "train.json"))
    assert trained["status"] == "done"
    assert trained["result"]["output"]["accuracy"] == pytest.approx(0.916667, abs=1e-5)
    assert "epoch 3: η = 0.2" in answer.stderr  # UTF-8, as it was written
    assert output(alice, run_id_of(answer), "models/model.npz")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_finds_what_docker_users_expect(alice: Session, images: dict[str, str], engine: str) -> None:
    alice.write("asks.py", ASKS)
    odd = 'it\'s "ä" $(id) `id`\nsecond line'
    answer = alice.deephpc(
        *("run", "--image", images["plain"], "--engine", engine, "--time", "30", "--env", f"ODD={odd}"),
        *("--env", "HIDDEN", "--wait", "--", "python3", "asks.py", *PLAIN_TMP),
        env={"HIDDEN": "s3cret", "OUTSIDE": "must stay outside"},
    )
    assert answer.returncode == 0, answer.stderr
    run_id = run_id_of(answer)
    seen = json.loads(output(alice, run_id, "seen.json"))
    assert seen["cwd"] == alice.folder
    assert seen["environ"]["ODD"] == odd
    assert seen["environ"]["HIDDEN"] == "s3cret"
    assert "OUTSIDE" not in seen["environ"]
    assert {name: seen["environ"][name] for name in PLAIN_ENV} == dict(PLAIN_ENV)
    assert seen["environ"]["DEEPHPC_RUN_ID"] == run_id
    assert seen["weights"] == "weights"
    assert seen["tmp"] == {path: path for path in PLAIN_TMP}
    assert seen["temporary"].startswith("/tmp/tmp")
    assert not [name for name in seen["environ"] if name.startswith("RCLONE_")], "of modules alone"
    writable = {place: seen[place] for place in ("/root_of_image", "/etc/x", "/tmp/x", "/var/tmp/x", "/deephpc/home/x")}
    assert writable == {
        "/root_of_image": False,
        "/etc/x": False,
        "/tmp/x": True,
        "/var/tmp/x": True,
        "/deephpc/home/x": True,
    }
    log = alice.deephpc("logs", run_id).stdout
    assert "auf stdout: ψ" in log
    assert "auf stderr: 数" in log
    folder = alice.job(run_id)["job"]["folder"]
    hidden = alice.box.run(["grep", "-rl", "s3cret", folder], user="alice", check=False).stdout.split()
    assert all("/secrets/" in path or path.endswith("/seen.json") for path in hidden), hidden
    left = alice.box.run("ls -d /tmp/deephpc-* 2>/dev/null || true", user="root", node="c1").stdout
    assert left == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_exit_codes_and_signals_pass_through_every_engine(alice: Session, images: dict[str, str], engine: str) -> None:
    plain = ("--image", images["plain"], "--engine", engine, "--time", "30")
    answer = alice.deephpc("run", *plain, "--wait", "--", "sh", "-c", "exit 37")
    assert answer.returncode == 6
    assert "exit code 37" in answer.stderr
    alice.write("listens.py", LISTENS)
    run_id = alice.submit("run", *plain, "--name", f"listens-{engine}", "--", "python3", "listens.py")
    alice.wait_for(run_id, ["RUNNING"])
    wait_until(lambda: "ready" in alice.deephpc("logs", run_id).stdout, 40, lambda: f"{run_id} did not start")
    job_id = alice.job(run_id)["job"]["job_id"]
    alice.box.run(["scancel", "--batch", "--signal=USR1", job_id], user="alice")
    wait_until(lambda: "erzählt" in alice.deephpc("logs", run_id).stdout, 20, lambda: "the program was not told")
    alice.deephpc("jobs", "cancel", run_id)
    alice.wait_for(run_id, ["CANCELLED"])
    assert output(alice, run_id, "kept.txt") == "told in time"
    assert alice.job(run_id)["job"]["exit_code"] == 9


def test_an_image_starts_what_docker_would_start(alice: Session, images: dict[str, str]) -> None:
    answer = alice.deephpc("run", images["plain"], "--engine", "apptainer", "--time", "30", "--wait", "--", "pwd")
    assert answer.returncode == 0, answer.stderr
    assert f"\n{PLAIN_FOLDER}\n" in answer.stderr  # WORKDIR, behind the ENTRYPOINT's own line
    assert "entry: 1 words" in answer.stderr
    assert alice.deephpc("run", images["plain"], "--engine", "native", "--", "pwd").returncode == 2


def test_a_module_that_cannot_be_imported_fails_with_that_and_not_as_its_stand_in(
    alice: Session, images: dict[str, str]
) -> None:
    answer = alice.deephpc("train", images["broken-import"], "--engine", "apptainer", "--time", "30", "--wait")
    assert answer.returncode == 6
    assert "deepaas-test" not in answer.stdout
    assert "cannot be used on this machine" in answer.stderr
    assert "ModuleNotFoundError" in answer.stderr


def test_arguments_are_checked_against_what_the_module_declares(alice: Session, images: dict[str, str]) -> None:
    train = ("train", images["digits"], "--engine", "apptainer", "--time", "30", "--")
    before = alice.jobs("--limit", "500")
    mistyped = alice.deephpc(*train, "--epoch", "3")
    assert mistyped.returncode == 2
    assert "did you mean --epochs" in mistyped.stderr
    assert "'five'" in alice.deephpc(*train, "--epochs", "five").stderr
    assert alice.jobs("--limit", "500").keys() == before.keys()


def test_auto_takes_the_next_engine_where_one_is_missing_and_says_why(
    cluster: Cluster, alice: Session, images: dict[str, str]
) -> None:
    nodes = [*(f"c{number}" for number in (1, 2, 3)), "login"]
    run = ("run", images["plain"], "--time", "30", "--wait", "--", "true")
    chosen = []
    with hiding(cluster, nodes) as hide:
        for hidden in (
            (),
            ("/usr/bin/apptainer", "/usr/bin/singularity"),
            ("/usr/bin/runc", "/usr/bin/crun"),
            (FAKECHROOT,),
            ("/usr/bin/proot",),
        ):
            hide(*hidden)
            probe = alice.deephpc("site", "probe", "--nodes")
            assert probe.returncode == 0, probe.stderr
            answer = alice.deephpc(*run)
            plan = answer.returncode == 0 and json.loads(plan_of(alice, run_id_of(answer)))
            chosen.append(plan["engine"] if plan else answer)
            if plan and hidden:
                assert "apptainer: " in plan["container"]["reason"]
    assert chosen[:4] == ["apptainer", "udocker-r", "udocker-f", "udocker-p2"]
    none = chosen[4]
    assert none.returncode == 4
    assert "no engine for images works on c" in none.stderr
    assert "--engine native" in none.stderr
    assert alice.deephpc("site", "probe", "--nodes").returncode == 0  # for the tests that follow


def plan_of(alice: Session, run_id: str) -> str:
    return alice.box.run(["cat", f"{alice.job(run_id)['job']['folder']}/plan.json"], user="alice").stdout


@contextmanager
def hiding(box: Cluster, nodes: list[str]) -> Iterator[Callable[..., None]]:
    """Take programs away from machines one after the other, and bring them back after the block."""
    hidden: list[str] = []

    def hide(*programs: str) -> None:
        for program in programs:
            for node in nodes:
                box.root(f"[ ! -e {program} ] || mv {program} {program}.hidden", node=node)
            hidden.append(program)

    try:
        yield hide
    finally:
        for program in hidden:
            for node in nodes:
                box.root(f"[ ! -e {program}.hidden ] || mv {program}.hidden {program}", node=node)


@pytest.mark.parametrize("engine", ["apptainer", "udocker-p2"])
def test_a_hostile_layer_writes_nothing_outside_its_image(alice: Session, engine: str) -> None:
    folder = f"/scratch/images/hostile-{engine}"
    up = "../" * 12
    hostile = {
        f"{up}scratch/alice/evil-relative": b"x",
        "/scratch/alice/evil-absolute": b"x",
        f"etc/{up}home/alice/evil-home": b"x",
        "evil-inside": b"x",
    }
    build_image(alice.box.on_host(folder), [hostile], compression=("",))
    answer = alice.deephpc("image", "pull", f"oci:{folder}", "--engine", engine)
    assert answer.returncode in (0, 4), answer.stderr
    look = "find /scratch/alice /home/alice /tmp -name 'evil-*' -not -path '*/udocker*/containers/*' 2>/dev/null; true"
    assert alice.box.run(look, user="alice").stdout == ""


def test_an_image_is_copied_to_the_node_and_converted_there(alice: Session, images: dict[str, str]) -> None:
    cache = {"DEEPHPC_CACHE_DIR": f"{alice.folder}/fresh"}
    look = "grep -o ' / [a-z.]* ' /proc/mounts | tail -1; echo done"
    for engine in ("apptainer", "udocker-p2"):
        answer = alice.deephpc(
            *("run", "--image", images["plain"], "--engine", engine, "--convert-in-job", "--stage-image"),
            *("--time", "30", "--wait", "--", "sh", "-c", look),
            env=cache,
        )
        assert answer.returncode == 0, answer.stderr
        assert "done" in answer.stderr
        events = alice.box.run(["cat", f"{folder_of(alice, answer)}/events.jsonl"], user="alice").stdout
        assert '"event":"container"' in events
    made = alice.box.run(
        f"ls {cache['DEEPHPC_CACHE_DIR']}/sif {cache['DEEPHPC_CACHE_DIR']}/udocker", user="alice"
    ).stdout
    assert made.count("sha256-") >= 2
    assert ".part" not in made


def folder_of(alice: Session, answer: Answer) -> str:
    return str(alice.job(run_id_of(answer))["job"]["folder"])


def test_a_gpu_job_sees_its_own_gpus_and_fails_where_the_container_sees_none(
    alice: Session, images: dict[str, str]
) -> None:
    missing = alice.deephpc(
        *("run", "--image", images["plain"], "--engine", "apptainer", "--partition", "gpu", "--gpus-per-node", "2"),
        *("--time", "30", "--wait", "--", "true"),
    )
    assert missing.returncode == 6
    assert "GPU" in missing.stderr
    assert "ended FAILED" in missing.stderr


@pytest.fixture(scope="module")
def native_module(cluster: Cluster) -> str:
    """The example module with DEEPaaS in a venv of alice's, for runs without an image."""
    return str(Path(install_module(cluster)).parent)


def test_training_and_batch_prediction_give_the_same_in_every_engine_and_natively(
    alice: Session, images: dict[str, str], native_module: str
) -> None:
    samples = alice.box.on_host("/scratch/samples")
    shutil.copytree(EXAMPLE / "samples", samples, dirs_exist_ok=True)
    (samples / "kaputt: ü.pgm").write_bytes(b"P5 no image")
    tables = {}
    for engine in ("apptainer", "udocker-r", "udocker-p2", "udocker-s", "native"):
        is_native = engine == "native"
        target = "deepaas-digits" if is_native else images["digits"]
        common = ["--engine", engine, "--time", "30", "--wait", *(["--venv", native_module] if is_native else [])]
        trained = alice.deephpc("train", target, *common, "--", "--epochs", "4", "--seed", "7")
        assert trained.returncode == 0, trained.stderr
        models = [] if is_native else ["--models", run_id_of(trained)]
        predicted = alice.deephpc(
            *("predict", target, "--input", "image=/scratch/samples/*.pgm", "--tasks", "2", *models, *common),
        )
        assert predicted.returncode == 6, predicted.stderr  # one of them is no image
        assert "5 of 6 inputs have a result, 1 failed" in predicted.stderr
        table = list(csv.DictReader(io.StringIO(results_of(alice, run_id_of(predicted)))))
        tables[engine] = [
            {name: value for name, value in row.items() if name not in ("key", "output", "seconds", "error")}
            for row in table
        ]
        failed = [row["input"] for row in table if row["ok"] != "true"]
        assert failed == ["/scratch/samples/kaputt: ü.pgm"]
    assert len({json.dumps(rows) for rows in tables.values()}) == 1, tables
    assert len(tables["native"]) == 6


def results_of(alice: Session, run_id: str) -> str:
    return alice.box.run(["cat", f"{alice.job(run_id)['job']['folder']}/results.csv"], user="alice").stdout


def test_a_module_of_the_catalogue_is_trained_by_its_name_with_the_resources_it_needs(
    cluster: Cluster, alice: Session, images: dict[str, str]
) -> None:
    metadata = (EXAMPLE / "ai4-metadata.yml").read_text()
    name = f"docker://{HOST}/demo/digits"
    alice.box.run(["mkdir", "-p", f"{alice.folder}/ours/deepaas-digits"])
    alice.write(
        "ours/deepaas-digits/ai4-metadata.yml",
        metadata.replace("docker_image: deephpc/deepaas-digits", f"docker_image: {HOST}/demo/digits"),
    )
    added = alice.deephpc("catalogue", "add", "ours", f"{alice.folder}/ours")
    assert added.returncode == 0, added.stderr
    assert alice.deephpc("catalogue", "update").returncode == 5  # the public ones cannot be reached
    with Registry(cluster).running():
        digest = push_image(cluster, "digits", f"{HOST}/demo/digits:cpu")
        consent = {"DEEPHPC_INSECURE_REGISTRIES": HOST}
        trained = alice.deephpc(
            *("train", "deepaas-digits", "--engine", "apptainer", "--time", "30", "--wait", "--", "--epochs", "2"),
            env=consent,
        )
        by_digest = alice.deephpc("image", "pull", f"{name}@{digest}", env=consent)
    assert trained.returncode == 0, trained.stderr
    assert "has no tag" in trained.stderr or "cpu" in trained.stderr  # which tag, and why
    plan = json.loads(plan_of(alice, run_id_of(trained)))
    assert plan["container"]["digest"] == digest == by_digest.stdout.strip()
    assert plan["spec"]["resources"]["memory_mib"] == 954  # 1000 MB, as its authors say
    too_much = alice.deephpc(
        *("--site", "lumi", "train", "posenet-tf", "--mem", "9000G", "-p", "small-g"), env={"SBATCH_ACCOUNT": "p"}
    )
    assert too_much.returncode == 2
    assert "training of posenet-tf asks for 9000G of memory per node, but partition small-g has 512G" in too_much.stderr


#: What the real one prints of the GPUs that this job may open: others answer EPERM, and these ENXIO, having no driver.
NVIDIA_SMI = r"""#!/bin/sh
case "$*" in *--query-gpu*) ;; *) echo 'CUDA Version: 12.4'; exit ;; esac
for number in 0 1 2 3; do
  said=$( (exec 3<"/dev/nvidia$number") 2>&1 )
  case $said in
    *'not permitted'* | *denied* | *'No such file'*) ;;
    *) echo "$number, GPU-0000-$number, 550.54.14, 8.0, Double A100" ;;
  esac
done
"""
LOOKS = r"""
for number in 0 1 2 3; do
  said=$( (exec 3<"/dev/nvidia$number") 2>&1 )
  case $said in *'not permitted'* | *denied* | *'No such file'*) ;; *) echo "may open $number" ;; esac
done
echo "visible $CUDA_VISIBLE_DEVICES"
"""


@pytest.mark.parametrize("engine", ["apptainer", "udocker-r", "udocker-p2"])
def test_only_the_allocated_gpus_are_seen_inside(
    cluster: Cluster, alice: Session, images: dict[str, str], engine: str
) -> None:
    nodes = ("c1", "c2", "c3")
    for node in nodes:
        cluster.run(["tee", "/usr/bin/nvidia-smi"], user="root", node=node, stdin=NVIDIA_SMI)
        cluster.root("chmod 755 /usr/bin/nvidia-smi", node=node)
    try:
        answer = alice.deephpc(
            *("run", "--image", images["plain"], "--engine", engine, "--partition", "gpu", "--gpus-per-node", "2"),
            *("--time", "30", "--wait", "--", "sh", "-c", LOOKS),
        )
    finally:
        for node in nodes:
            cluster.root("rm /usr/bin/nvidia-smi", node=node)
    assert answer.returncode == 0, answer.stderr
    seen = re.search(r"gpus=2 \(2x Double A100\) .*driver=550.54.14", answer.stderr)
    assert seen, answer.stderr
    assert answer.stderr.count("may open") == 2
    assert "visible 0,1" in answer.stderr
    events = alice.box.run(["cat", f"{folder_of(alice, answer)}/events.jsonl"], user="alice").stdout
    assert '"sees":"gpus=2 (2x Double A100)' in events


def test_what_killed_jobs_left_on_a_node_goes_with_the_next_and_secrets_go_before(
    alice: Session, images: dict[str, str]
) -> None:
    left = "mkdir -m 700 /tmp/deephpc-c1-left.1 /tmp/deephpc-c1-held.2 && touch -d '-1 hour' /tmp/deephpc-c1-*"
    alice.box.run(left, user="alice", node="c1")
    with alice.box.popen("exec 9</tmp/deephpc-c1-held.2 && flock -s 9 && exec sleep 300", user="alice", node="c1"):
        answer = alice.deephpc(
            *("run", "--image", images["plain"], "--engine", "apptainer", "--time", "30", "--sbatch", "--nodelist=c1"),
            *("--env", "TOKEN=s3cret", "--wait", "--", "sh", "-c", "ls /deephpc/env.sh; echo has $TOKEN"),
        )
        assert answer.returncode == 0, answer.stderr
        assert "has s3cret" in answer.stderr
        assert "No such file" in answer.stderr  # the file with it is gone before the program starts
        assert alice.box.run("ls -d /tmp/deephpc-*", user="alice", node="c1").stdout.split() == [
            "/tmp/deephpc-c1-held.2"
        ]
    alice.box.run("rmdir /tmp/deephpc-c1-held.2", user="alice", node="c1")
