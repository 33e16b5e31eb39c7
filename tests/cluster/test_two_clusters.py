"""Two clusters under one slurmdbd, whose jobs have the same numbers: each run is that of its own cluster."""

from collections.abc import Iterator

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster
OTHER, NODE = "other", "c3"
COUNTS = 'echo >>"$DEEPHPC_CHECKPOINT_DIR/steps"; [ "$(wc -l <"$DEEPHPC_CHECKPOINT_DIR/steps")" -ge 2 ] || exit 75'
#: How a run is sent to the other cluster: variables and words.
WAYS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "SBATCH_CLUSTERS": ({"SBATCH_CLUSTERS": OTHER}, ()),
    "SLURM_CLUSTERS": ({"SLURM_CLUSTERS": OTHER, "USER": "nobody"}, ()),
    "the option": ({}, ("--sbatch", f"--clusters={OTHER}")),
    "its short form": ({"SLURM_CLUSTERS": "box"}, ("--sbatch", f"-M{OTHER}")),
}


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Iterator[Session]:
    accounts = cluster.run("sacctmgr -n -p show assoc user=alice format=account").stdout
    with cluster.second(OTHER, NODE, accounts.split("|")[0]):
        yield Session(cluster, "two")


def test_a_run_is_that_of_its_own_cluster_however_that_is_named(alice: Session) -> None:
    here = [alice.submit("run", "--time", "5", "--", "sleep", "20") for _ in WAYS]
    there = [
        alice.submit("run", "--time", "5", *words, "--", "bash", "-c", "sleep 20; exit 3", env=variables)
        for variables, words in WAYS.values()
    ]
    array = alice.submit("run", "--time", "5", "--array", "1-2", "--", "true", env={"SBATCH_CLUSTERS": OTHER})
    chain = alice.submit("run", "--time", "5", "--chain", "--", "bash", "-c", COUNTS, env={"SBATCH_CLUSTERS": OTHER})
    for run_id in (*here, *there):
        alice.wait_for(run_id, ["RUNNING"])
    rows = alice.jobs(env={"SLURM_CLUSTERS": OTHER})
    assert {rows[run_id]["job_id"].partition(";")[2] for run_id in there} == {OTHER}
    numbers = {run_id: rows[run_id]["job_id"].partition(";")[0] for run_id in (*here, *there)}
    assert {numbers[run_id] for run_id in here} & {numbers[run_id] for run_id in there}
    alice.deephpc("jobs", "wait", *here, *there, array, chain)
    ended = alice.jobs()
    assert {ended[run_id]["state"] for run_id in (*here, array, chain)} == {"COMPLETED"}
    assert {(ended[run_id]["state"], ended[run_id]["exit_code"]) for run_id in there} == {("FAILED", 3)}
    assert len(alice.job(chain)["attempts"]) == 2


def test_a_silent_cluster_loses_nothing_and_hides_no_other(alice: Session) -> None:
    there = alice.submit("run", "--time", "5", "--", "sleep", "15", env={"SBATCH_CLUSTERS": OTHER})
    cancelled = alice.submit("run", "--time", "5", "--", "sleep", "300", env={"SBATCH_CLUSTERS": OTHER})
    here = alice.submit("run", "--time", "5", "--", "true")
    alice.wait_for(cancelled, ["RUNNING"])
    box = alice.box
    assert isinstance(box, Cluster)
    with box.frozen("slurmctld", NODE):
        alice.wait_for(here, ["COMPLETED"], timeout=120)
        assert alice.jobs()[cancelled]["state"] == "RUNNING"
    alice.wait_for(there, ["COMPLETED"])
    assert alice.deephpc("jobs", "cancel", cancelled).returncode == 0
    alice.wait_for(cancelled, ["CANCELLED"])
    left = "squeue -M all -h -u alice"
    wait_until(lambda: box.run(left).stdout.count("deephpc") == 0, 60, lambda: box.run(left).stdout)
