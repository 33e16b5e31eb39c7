"""Full and read-only places, impossible wishes, a dead controller: one line, a hint, the right code, no remains."""

from collections.abc import Iterator

import pytest

from tests.cluster.acceptance import Answer, Session
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def alice(cluster: Cluster) -> Iterator[Session]:
    session = Session(cluster, "places")
    session.write("quick.py", "print('done')\n")
    yield session


def _is_one_line_and_a_hint(answer: Answer, code: int, *names: str) -> None:
    lines = answer.stderr.strip().splitlines()
    assert answer.returncode == code, answer.stderr
    assert lines[-2].startswith("error: "), answer.stderr
    assert lines[-1].startswith("  hint: "), answer.stderr
    assert "Traceback" not in answer.stderr
    for name in names:
        assert name in lines[-2], answer.stderr


def test_a_full_work_dir_is_named_and_keeps_nothing(cluster: Cluster, alice: Session) -> None:
    place = "/scratch/alice/full"
    with cluster.full_disk(place):
        before = alice.jobs("--limit", "10000")
        answer = alice.deephpc("train", "quick.py", "--time", "5", env={"DEEPHPC_WORK_DIR": place})
        _is_one_line_and_a_hint(answer, 3, place, "full")
        assert alice.jobs("--limit", "10000") == before
        assert "train-quick" not in cluster.run(["ls", place]).stdout


def test_a_read_only_work_dir_is_named_and_keeps_nothing(cluster: Cluster, alice: Session) -> None:
    place = "/scratch/alice/fixed"
    cluster.run(["mkdir", "-p", place])
    with cluster.read_only(place):
        before = alice.jobs("--limit", "10000")
        answer = alice.deephpc("train", "quick.py", "--time", "5", env={"DEEPHPC_WORK_DIR": place})
        _is_one_line_and_a_hint(answer, 3, place, "read-only")
        assert alice.jobs("--limit", "10000") == before


def test_a_work_dir_that_the_nodes_do_not_have_is_said_with_what_to_set(cluster: Cluster, alice: Session) -> None:
    place = "/var/tmp/of-this-node"
    cluster.run(["mkdir", "-p", place])
    answer = alice.deephpc("train", "quick.py", "--time", "5", "--wait", env={"DEEPHPC_WORK_DIR": place})
    assert answer.returncode == 6, answer.stderr
    why = alice.deephpc("why", answer.stdout.strip()).stdout
    assert f"has no run folder {place}/{answer.stdout.strip()}" in why
    assert "DEEPHPC_WORK_DIR" in why
    cluster.run(["rm", "-r", place])


def test_a_home_without_room_for_the_record_is_named(cluster: Cluster, alice: Session) -> None:
    place = "/scratch/alice/narrow"
    with cluster.full_disk(place):
        answer = alice.deephpc("train", "quick.py", "--time", "5", env={"DEEPHPC_STATE_DIR": f"{place}/state"})
        _is_one_line_and_a_hint(answer, 3, place)
        assert not [name for _, name in alice.slurm_jobs("PENDING", "RUNNING") if "quick" in name and "places" in name]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["train", "quick.py", "--partition", "nowhere"], ["partition"]),
        (["train", "quick.py", "--time", "5", "--nodes", "4000"], ["4000"]),
        (["train", "quick.py", "--time", "5", "--mem", "900T"], []),
        (["train", "quick.py", "--time", "5", "--gpus-per-node", "64"], []),
        (["train", "quick.py", "--time", "5", "--account", "nobodys"], ["account"]),
        (["train", "quick.py", "--time", "tomorrow"], ["tomorrow"]),
        (["train", "no-such-module", "--time", "5"], ["no-such-module"]),
        (["train", "quick.py", "--time", "5", "--name", "a/../b"], ["a/../b"]),
        (["train", "quick.py", "--time", "5", "--sbatch", "--job-name=mine"], ["job-name"]),
        (["train", "quick.py", "--time", "5", "--dependency", "afterok:nobody"], ["nobody"]),
        (["--site", "atlantis", "train", "quick.py"], ["atlantis"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(alice: Session, words: list[str], names: list[str]) -> None:
    alive = ("PENDING", "RUNNING", "COMPLETING")
    before = alice.slurm_jobs(*alive)
    _is_one_line_and_a_hint(alice.deephpc(*words), 2, *names)
    assert alice.slurm_jobs(*alive) == before


def test_a_refused_job_keeps_its_script(cluster: Cluster, alice: Session) -> None:
    answer = alice.deephpc("train", "quick.py", "--time", "5", "--partition", "nowhere")
    assert answer.returncode == 2
    folder = answer.stderr.rsplit("its script stays in ", 1)[1].strip()
    assert "#SBATCH --partition=nowhere" in cluster.run(["cat", f"{folder}/job.sh"]).stdout
    assert alice.jobs()[folder.rsplit("/", 1)[1]]["state"] == "FAILED"


def test_a_dead_controller_is_the_sites_fault_and_transient(cluster: Cluster, alice: Session) -> None:
    with cluster.stopped("slurmctld"):
        answer = alice.deephpc("train", "quick.py", "--time", "5", "--name", "dead")
        _is_one_line_and_a_hint(answer, 3, "dead")
        known = alice.jobs("--text", "dead")
        assert {job["state"] for job in known.values()} == {"SUBMITTING"}
    again = alice.deephpc("train", "quick.py", "--time", "5", "--name", "dead")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() in known
