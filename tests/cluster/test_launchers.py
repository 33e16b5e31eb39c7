"""Ranks on many nodes of the real cluster, as an ordinary user: they find each other, agree, and end together.

PyTorch is the nodes' own, of Debian; in an image it is the nodes' too, whose /usr/lib (and with it no program of
Slurm's or ssh) is bound over the image's, of the same release. So no image of gigabytes has to be built.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.acceptance import Answer, Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.horovod import put_horovod
from tests.cluster.module_images import put_layout

pytestmark = pytest.mark.cluster
PROJECT = Path(__file__).parents[2]
DIGITS = PROJECT / "examples" / "digits" / "train.py"
TWO_BY_TWO = ("--nodes", "2", "--tasks-per-node", "2", "--time", "30")
#: Largest difference between weights of one process and of four ranks, in double precision: sums have other orders.
TOLERANCE = 1e-10
LEARNING = ("--", "--epochs", "2", "--batch-size", "128", "--double")

ENDS = """
import os, signal, sys, time
rank = os.environ["DEEPHPC_RANK"]
print("rank", rank, "is here", flush=True)
deadline = time.time() + 60
while len(os.listdir(os.environ["DEEPHPC_OUTPUT_DIR"])) < 4 and time.time() < deadline:
    open(os.path.join(os.environ["DEEPHPC_OUTPUT_DIR"], rank), "w").close()
    time.sleep(0.1)
if rank == sys.argv[1]:
    print("the last words of rank", rank, flush=True)
    if sys.argv[2] == "exits":
        sys.exit(9)
    os.kill(os.getpid(), signal.SIGKILL)
if len(sys.argv) > 3:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(300)
"""
LISTENS = """
import os, pathlib, signal, sys, time
mine = pathlib.Path(os.environ["DEEPHPC_OUTPUT_DIR"], os.environ["DEEPHPC_RANK"])
def told(number, frame):
    with mine.open("a") as file:
        file.write(signal.Signals(number).name + "\\n")
    if number == signal.SIGTERM:
        sys.exit(3)
if os.environ["DEEPHPC_RANK"] != "1":  # one does not listen to this, and must not die of it
    signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, told)
mine.touch()
while True:
    time.sleep(0.1)
"""
COMPARES = """
import sys, torch
first, *others = (torch.load(name + "/output/model.pt") for name in sys.argv[1:])
print(max((other[key] - first[key]).abs().max().item() for other in others for key in first))
"""
LOOKS = """
import json, os, shutil
names = ("scontrol", "srun", "ssh", "horovodrun", "mpirun")
print(json.dumps({name: shutil.which(name) for name in names}))
"""
UNEVEN = """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks=4 --time=30 --output=uneven.log
export DEEPHPC_OUTPUT_DIR=$PWD/uneven/output DEEPHPC_LAUNCHER=$1 PYTHONPATH=$2
export DEEPHPC_LAUNCH_KEY=00112233445566778899aabbccddeeff
mkdir -p uneven/ranks
srun --mpi=none bash "$3/launch_rank.sh" '' python3 joins.py
"""
JOINS = """
import os, sys
if "HOROVOD_RANK" in os.environ:
    import horovod.torch as hvd, torch
    hvd.init()
    place = (hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size())
    total = hvd.allreduce(torch.tensor(float(hvd.rank())), op=hvd.Sum).item()
    print("JOINED", *place, total, flush=True)
    hvd.shutdown()
else:
    os.environ["USE_LIBUV"] = "0"
    import torch
    torch.distributed.init_process_group("gloo")
    total = torch.tensor(float(torch.distributed.get_rank()))
    torch.distributed.all_reduce(total)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
    place = [os.environ[name] for name in names]
    print("JOINED", *place, total.item(), flush=True)
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "launchers")
    put_layout(cluster, "plain", "/scratch/images/launched")
    session.write("train.py", DIGITS.read_text())
    session.write("ends.py", ENDS)
    session.write("listens.py", LISTENS)
    return session


@pytest.fixture(scope="module")
def horovod(cluster: Cluster) -> str:
    return put_horovod(cluster, "/scratch/horovod")


@pytest.fixture(scope="module")
def alone(alice: Session) -> str:
    """Folder of a training by one process."""
    return trained(alice, alice.deephpc("train", "train.py", "--time", "30", "--wait", *LEARNING))


@pytest.fixture
def nothing_left(alice: Session) -> Iterator[None]:
    """Check that no process of the user's and none of his private folders is left on a node."""
    yield
    for node in ("c1", "c2", "c3"):
        left = "pgrep -a -u alice; ls -d /tmp/deephpc-* 2>/dev/null"
        wait_until(
            lambda node=node, left=left: alice.box.root(left, node=node, check=False).stdout == "",  # type: ignore[misc]
            20,
            lambda node=node, left=left: alice.box.root(left, node=node, check=False).stdout,  # type: ignore[misc]
        )


def trained(alice: Session, answer: Answer) -> str:
    assert answer.returncode == 0, answer.stderr
    assert "test accuracy 0." in answer.stderr
    return folder_of(alice, answer)


def folder_of(alice: Session, answer: Answer) -> str:
    return str(alice.job(answer.stdout.split()[0])["job"]["folder"])


ENGINES = [(), ("--engine", "apptainer"), ("--engine", "udocker-p2")]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("engine", ENGINES, ids=["native", "apptainer", "udocker"])
@pytest.mark.parametrize("launcher", ["torchrun", "horovod"])
def test_four_ranks_on_two_nodes_learn_what_one_process_learns(
    alice: Session, alone: str, launcher: str, engine: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("horovod") if launcher == "horovod" else ""
    words = [*TWO_BY_TWO, "--launcher", launcher, "--wait"]
    if folder:
        words += ["--env", f"PYTHONPATH={folder}"]
    if engine:
        words += [*engine, "--image", "oci:/scratch/images/launched", "--bind", "/usr/lib", "--bind", "/scratch"]
    many = trained(alice, alice.deephpc("train", "train.py", *words, *LEARNING))
    alice.write("compares.py", COMPARES)
    answer = alice.box.run(["python3", "compares.py", alone, many], user="alice", cwd=alice.folder)
    assert float(answer.stdout) < TOLERANCE
    summary = alice.box.run(["cat", f"{many}/output/summary.json"], user="alice").stdout
    assert json.loads(summary)["ranks"] == 4


@pytest.mark.parametrize("launcher", ["torchrun", "horovod"])
def test_uneven_tasks_find_their_places(alice: Session, horovod: str, launcher: str) -> None:
    """Three ranks on one node and one on the other, as Slurm lays four out on two nodes in a step of the user's own."""
    scripts = f"{folder_of(alice, alice.deephpc('run', '--launcher', 'srun', '--wait', '--', 'true'))}/container"
    alice.write("joins.py", JOINS)
    alice.write("uneven.sh", UNEVEN)
    run = ["sbatch", "--wait", "uneven.sh", launcher, horovod, scripts]
    alice.box.run(run, user="alice", cwd=alice.folder, check=False)
    said = alice.box.run("cat uneven.log uneven/ranks/*.log", user="alice", cwd=alice.folder).stdout
    lines = sorted({line for line in said.splitlines() if line.startswith("JOINED")})
    assert [line.rpartition(" ")[2] for line in lines] == ["6.0"] * 4, said
    assert lines[3].startswith("JOINED 3 4 0 1 1 2")
    local_1 = "1 4 1 3 0 1" if launcher == "horovod" else "1 4 1 3 0 2"  # no other node has a local rank 1
    assert lines[1].startswith(f"JOINED {local_1}")
    alice.box.run(["rm", "-r", "uneven"], user="alice", cwd=alice.folder)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("engine", "how", "code", "words"),
    [
        (ENGINES[0], "exits", 9, "with exit code 9"),
        (ENGINES[0], "killed", 137, "by signal 9 (KILL)"),
        (ENGINES[1], "exits", 9, "with exit code 9"),
        (ENGINES[2], "killed", 137, "by signal 9 (KILL)"),
    ],
    ids=["native-exits", "native-killed", "apptainer-exits", "udocker-killed"],
)
def test_one_rank_that_dies_ends_all_and_is_named(
    alice: Session, engine: tuple[str, ...], how: str, code: int, words: str
) -> None:
    image = [*engine, "--image", "oci:/scratch/images/launched"] if engine else []
    answer = alice.deephpc(*("train", "ends.py", *TWO_BY_TWO, *image, "--launcher", "srun", "--wait", "--", "3", how))
    assert answer.returncode == 6, answer.stderr
    run_id = answer.stdout.strip()
    why = alice.deephpc("why", run_id).stdout
    assert f"rank 3 on c2 ended first, {words}" in why
    assert "the last words of rank 3" in why.splitlines()[-1] or "the last words of rank 3" in why.splitlines()[-2]
    job = alice.job(run_id)["job"]
    assert job["state"] == "FAILED"
    assert job["exit_code"] == code


@pytest.mark.usefixtures("nothing_left")
def test_ranks_deaf_to_sigterm_do_not_outlive_the_one_that_failed(alice: Session) -> None:
    answer = alice.deephpc(
        *("train", "ends.py", *TWO_BY_TWO, "--launcher", "srun", "--wait", "--", "2", "exits", "deaf")
    )
    assert answer.returncode == 6
    assert "rank 2 on c2 ended first, with exit code 9" in answer.stderr


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("engine", ENGINES, ids=["native", "apptainer", "udocker"])
def test_signals_reach_every_rank_that_listens_and_kill_none(alice: Session, engine: tuple[str, ...]) -> None:
    image = [*engine, "--image", "oci:/scratch/images/launched"] if engine else []
    run_id = alice.submit("train", "listens.py", *TWO_BY_TWO, *image, "--launcher", "torchrun")
    output = f"{alice.job(run_id)['job']['folder']}/output"

    def read() -> str:
        return str(alice.box.run("head -n 100 *; true", user="alice", cwd=output, check=False).stdout)

    wait_until(lambda: read().count("==>") == 4, 60, read)
    job_id = alice.job(run_id)["job"]["job_id"]
    alice.box.run(["scancel", "--batch", "--signal=USR1", job_id], user="alice")
    wait_until(lambda: read().count("SIGUSR1") == 3, 20, read)
    alice.deephpc("jobs", "cancel", run_id)
    alice.wait_for(run_id, ["CANCELLED"])
    assert read().count("SIGTERM") == 4
    assert alice.job(run_id)["job"]["exit_code"] in (3, 143)


@pytest.mark.usefixtures("nothing_left")
def test_a_node_without_power_ends_the_run_and_is_named(cluster: Cluster, alice: Session) -> None:
    run_id = alice.submit(
        "train", "ends.py", *TWO_BY_TWO, "--max-requeues", "0", "--launcher", "srun", "--", "9", "never"
    )

    def log() -> str:
        return alice.deephpc("logs", run_id).stdout

    wait_until(lambda: log().count("is here") == 4, 60, log)
    cluster.power_off("c2")
    found = alice.wait_for(run_id, ["NODE_FAIL", "FAILED", "CANCELLED"])
    assert found["state"] == "NODE_FAIL"
    # Slurm says which; it may take c1 for lost as well, when its question to c2 travels through c1 and stays away
    wait_until(lambda: "Node failure on c" in alice.deephpc("why", run_id).stdout, 20, log)
    cluster.power_on("c2")
    cluster.wait_state("c2", "IDLE")


@pytest.mark.parametrize("engine", ENGINES[1:], ids=["apptainer", "udocker"])
def test_nothing_of_the_cluster_is_needed_in_the_image(alice: Session, engine: tuple[str, ...]) -> None:
    alice.write("looks.py", LOOKS)
    image = [*engine, "--image", "oci:/scratch/images/launched"]
    answer = alice.deephpc("train", "looks.py", *image, *TWO_BY_TWO, "--launcher", "torchrun", "--wait")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(next(line for line in answer.stderr.splitlines() if line.startswith("{")))
    assert found == dict.fromkeys(found)


def test_a_node_that_cannot_be_made_ready_is_named(cluster: Cluster, alice: Session) -> None:
    hidden = "mv /usr/bin/apptainer /usr/bin/hidden-apptainer"
    cluster.root(hidden, node="c2")
    try:
        answer = alice.deephpc(
            *("run", "--image", "oci:/scratch/images/launched", "--engine", "apptainer", *TWO_BY_TWO),
            *("--launcher", "srun", "--wait", "--", "true"),
        )
    finally:
        cluster.root("mv /usr/bin/hidden-apptainer /usr/bin/apptainer", node="c2")
    assert answer.returncode == 6
    run_id = answer.stdout.strip()
    why = alice.deephpc("why", run_id).stdout
    assert "the program never started: " in why
    assert "apptainer is not on c2" in why
