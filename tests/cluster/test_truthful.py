"""The record is right when Slurm's daemons are frozen, dead, forgetful or absent, and cheap however much there is."""

import json
import os
from typing import Any

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster
#: Runs that have ended, and runs in the queue that are no array; more in `make test-long`.
FINISHED = int(os.environ.get("DEEPHPC_TEST_RUNS", "40"))
SINGLES = FINISHED // 2
MANY = 3000
#: Jobs that were given the id of a run before or since: account, name, submitted how much later.
OTHERS = (("bob", "old", -900_000), ("alice", "sweep", -800_000), ("alice", "run-x-0000.00000000", 30))
#: Copies the account of a job into one that failed, of half a million seconds.
COPY = """create temporary table t
select * from box_job_table where id_job = {number} and job_name like 'run-%' limit 1;
update t set job_db_inx = job_db_inx + {place} * 1000, id_user = {user}, job_name = '{name}', state = 5,
exit_code = 256, time_submit = {at}, time_eligible = {at}, time_start = {at}, time_end = {at} + 500000;
insert into box_job_table select * from t;"""
COUNTING = """#!/bin/sh
echo "$0 $*" >> "$CALLS"
exec /usr/bin/{name} "$@"
"""


@pytest.fixture
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "truth")
    session.write("ends.py", "import sys\nsys.exit(int(sys.argv[1]))\n")
    return session


@pytest.mark.sweep
def test_with_many_finished_jobs_purged_and_slurmdbd_frozen_or_dead_none_is_misstated(
    cluster: Cluster, alice: Session
) -> None:
    one = "deephpc -q train ends.py --time 5 --name purged -- $((i % 4 ? 0 : 9))"
    script = f"for i in $(seq {FINISHED}); do {one} || exit 1; done"
    run_ids = cluster.run(script, cwd=alice.folder, timeout=1000).stdout.split()
    assert len(set(run_ids)) == FINISHED

    def all_ended() -> bool:
        return not [name for _, name in alice.slurm_jobs("PENDING", "RUNNING", "COMPLETING") if "purged" in name]

    wait_until(all_ended, 420, lambda: "the jobs did not end")
    cluster.purge_jobs()
    listed = ("--limit", "10000", "--text", "purged")
    with cluster.frozen("slurmdbd"):
        answer = alice.deephpc("jobs", "--json", *listed)
        assert answer.returncode == 0, answer.stderr
        assert "sacct gave no answer within 5 s" in answer.stderr
        jobs = {job["run_id"]: job for job in json.loads(answer.stdout)["jobs"]}
        assert {jobs[run_id]["state"] for run_id in run_ids[3::4]} == {"FAILED"}
        assert {jobs[run_id]["exit_code"] for run_id in run_ids[3::4]} == {9}
        rest = [run_id for number, run_id in enumerate(run_ids, 1) if number % 4]
        assert {jobs[run_id]["state"] for run_id in rest} == {"COMPLETED"}
    with cluster.stopped("slurmdbd"):
        again = alice.jobs(*listed)
        assert {run_id: job["state"] for run_id, job in again.items()} == {
            run_id: job["state"] for run_id, job in jobs.items()
        }


def test_the_record_comes_back_equal_from_the_run_folders(alice: Session) -> None:
    run_id = alice.submit("train", "ends.py", "--time", "30", "--", "0")
    assert alice.deephpc("jobs", "wait", run_id).returncode == 0
    wait_until(lambda: _all_final(alice), 150, lambda: "runs of earlier tests do not end")
    before = alice.jobs("--limit", "10000")
    alice.box.run("rm ~/.local/state/deephpc/deephpc.db")
    assert alice.deephpc("jobs", "rebuild").returncode == 0
    after = alice.jobs("--limit", "10000")
    assert after == before


def _all_final(alice: Session) -> bool:
    unsettled = {"SUBMITTING", "PENDING", "RUNNING", "COMPLETING"}
    return not unsettled & {str(job["state"]) for job in alice.jobs("--limit", "10000").values()}


def test_without_any_accounting_ends_are_still_told_right(cluster: Cluster, alice: Session) -> None:
    with cluster.without_accounting():
        good = alice.submit("train", "ends.py", "--time", "30", "--", "0")
        bad = alice.submit("train", "ends.py", "--time", "30", "--", "9")
        gone = alice.submit("run", "--time", "30", "--", "sleep", "300")
        alice.wait_for(gone, ["RUNNING"])
        assert alice.deephpc("jobs", "cancel", gone).returncode == 0
        assert alice.deephpc("jobs", "wait", good).returncode == 0
        answer = alice.deephpc("jobs", "wait", bad)
        assert answer.returncode == 6
        assert "exit code 9" in answer.stderr
        cluster.purge_jobs()
        ends = ["CANCELLED", "COMPLETED", "FAILED", "LOST"]
        assert alice.wait_for(gone, ends)["state"] == "CANCELLED"


def test_a_job_that_no_source_knows_is_lost_and_never_completed(cluster: Cluster, alice: Session) -> None:
    with cluster.without_accounting():
        run_id = alice.submit("run", "--time", "30", "--max-requeues", "0", "--", "sleep", "300")
        job = alice.wait_for(run_id, ["RUNNING"])
        node = str(job["nodes"])
        cluster.power_off(node)
        try:
            cluster.root(["scancel", str(job["job_id"])], check=False)
            cluster.root(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=False)
            ended = alice.wait_for(run_id, ["LOST", "COMPLETED", "NODE_FAIL", "FAILED", "CANCELLED"])
        finally:
            cluster.power_on(node)
        assert ended["state"] in ("LOST", "NODE_FAIL", "CANCELLED")


def look(alice: Session, run_id: str, seen: dict[str, Any]) -> dict[str, Any]:
    seen.update(alice.jobs("--limit", "500")[run_id])
    return seen


def test_other_jobs_of_the_same_id_are_nothing_of_a_runs(cluster: Cluster, alice: Session) -> None:
    run_id = alice.submit("run", "--time", "5", "--", "sh", "-c", "while [ ! -e go ]; do sleep 0.2; done")
    number = alice.wait_for(run_id, ["RUNNING"])["job_id"]
    wait_until(lambda: number in cluster.run(["sacct", "-n", "-o", "JobID"]).stdout.split(), 60, lambda: "no account")
    for place, (user, name, later_s) in enumerate(OTHERS, 1):
        facts = {"number": number, "place": place, "name": name, "at": f"unix_timestamp() + {later_s}"}
        account = cluster.run(["id", "-u", user]).stdout.strip()
        cluster.root(["mysql", "slurm_acct_db", "-e", COPY.format(**facts, user=account)])
    seen: dict[str, Any] = {}
    with cluster.frozen("slurmctld"):  # accounting that was silent a moment ago is left alone for a minute
        wait_until(lambda: look(alice, run_id, seen)["source"] == "accounting", 120, lambda: f"accounting: {seen}")
    assert (seen["state"], seen["attempt"]) == ("RUNNING", 1)
    alice.write("go", "")
    assert alice.deephpc("jobs", "wait", run_id).returncode == 0
    alice.box.run(["rm", f"{alice.folder}/go"])
    usage = alice.job(run_id)["usage"]
    assert (usage["source"], usage["elapsed_s"] < 600) == ("accounting", True)


@pytest.mark.sweep
def test_three_thousand_jobs_cost_one_squeue_and_one_sacct(cluster: Cluster, alice: Session) -> None:
    for name in ("squeue", "sacct"):
        path = alice.write(name, COUNTING.format(name=name))
        cluster.run(["chmod", "755", path])
    array = alice.submit("run", "--time", "30", "--sbatch=--hold", "--array", f"0-{MANY - SINGLES - 1}", "--", "true")
    singles = cluster.run(
        f"for i in $(seq {SINGLES}); do deephpc -q run --time 5 --sbatch=--hold -- true; done", cwd=alice.folder
    ).stdout.split()
    calls = f"{alice.folder}/calls"
    env = {"PATH": f"{alice.folder}:{cluster.home('alice')}/deephpc-venv/bin:/usr/bin:/bin", "CALLS": calls}
    answer = alice.deephpc("jobs", "--json", "--limit", "10000", env=env)
    assert answer.returncode == 0, answer.stderr
    jobs = {job["run_id"]: job for job in json.loads(answer.stdout)["jobs"]}
    assert set(jobs[array]["tasks"].values()) == {"PENDING"}
    assert {jobs[run_id]["state"] for run_id in singles} == {"PENDING"}
    lines = cluster.run(["cat", calls]).stdout.splitlines()
    assert len([line for line in lines if "/squeue " in line]) == 1
    assert len([line for line in lines if "/sacct " in line]) <= 1
    assert alice.deephpc("jobs", "cancel", array, *singles).returncode == 0
