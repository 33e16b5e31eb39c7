"""A run is submitted once, whatever happens to slurmctld or to deephpc itself."""

import os
import random
import time
from contextlib import ExitStack

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster
MOMENTS = int(os.environ.get("DEEPHPC_TEST_RUNS", "40")) // 5


@pytest.fixture
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "once")
    session.write("quick.py", "print('done')\n")
    return session


def test_a_frozen_controller_and_a_repeated_command_leave_exactly_one_job(cluster: Cluster, alice: Session) -> None:
    words = ("train", "quick.py", "--time", "5", "--name", "frozen")
    with cluster.frozen("slurmctld"):
        answer = alice.deephpc(*words)
        assert answer.returncode == 3
        assert "repeat the same command" in answer.stderr
        row = next(job for job in alice.jobs().values() if "frozen" in job["run_id"])
        assert row["state"] == "SUBMITTING"
    again = alice.deephpc(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == row["run_id"]
    named = [name for _, name in alice.slurm_jobs() if name.startswith(row["run_id"])]
    assert len(named) == 1
    assert [run_id for run_id in alice.jobs() if "frozen" in run_id] == [row["run_id"]]
    assert alice.deephpc("jobs", "wait", row["run_id"]).returncode == 0


def test_a_controller_that_answers_late_leaves_one_job_without_a_repeated_command(
    cluster: Cluster, alice: Session
) -> None:
    with ExitStack() as at_the_end:
        with cluster.frozen("slurmctld"):
            process = at_the_end.enter_context(alice.start("train", "quick.py", "--time", "5", "--name", "late"))
            wait_until(lambda: _asks_slurm(cluster, "sbatch"), 60, lambda: "sbatch was not called")
            wait_until(lambda: not _asks_slurm(cluster, "sbatch"), 60, lambda: "sbatch waits for ever")
            assert process.popen.poll() is None
        assert process.wait() == 0
    run_ids = [run_id for run_id in alice.jobs() if "late" in run_id]
    assert len(run_ids) == 1
    assert len([name for _, name in alice.slurm_jobs() if name.startswith(run_ids[0])]) == 1


@pytest.mark.sweep
def test_killed_at_random_moments_a_submission_leaves_no_orphan_and_no_duplicate(alice: Session) -> None:
    chance = random.Random(MOMENTS)
    span = _seconds_of_one_submission(alice)
    known: list[str] = []
    for moment in range(MOMENTS):
        words = ("train", "quick.py", "--time", "5", "--name", f"killed-{moment:02d}")
        with alice.start(*words):  # killed as the block ends
            time.sleep(chance.uniform(0.15, 1.15) * span)
        answer = alice.deephpc(*words)
        assert answer.returncode == 0, answer.stderr
        known.append(answer.stdout.strip())
    runs = alice.jobs("--limit", "500", "--text", "killed-")
    in_slurm = [name.rsplit(".", 1)[0] for _, name in alice.slurm_jobs() if "killed-" in name]
    assert len(in_slurm) == len(set(in_slurm)), "a run has two jobs"
    assert set(in_slurm) == {run_id for run_id, job in runs.items() if job["job_id"]}, (
        "an orphan, or a job that is not there"
    )
    assert set(known) <= set(runs)
    assert not [run_id for run_id, job in runs.items() if job["job_id"] is None]


def test_killed_and_never_repeated_a_job_in_the_queue_is_adopted_by_the_next_look(alice: Session) -> None:
    span = _seconds_of_one_submission(alice)
    with alice.start("train", "quick.py", "--time", "5", "--name", "adopted"):  # killed as the block ends
        time.sleep(span * 0.9)

    def all_settled() -> bool:
        runs = alice.jobs("--text", "adopted")
        names = [name for _, name in alice.slurm_jobs() if "adopted" in name]
        return len(names) == len([job for job in runs.values() if job["job_id"]])

    wait_until(all_settled, 90, lambda: "a job in the queue is in no row")
    assert len([name for _, name in alice.slurm_jobs() if "adopted" in name]) <= 1


def _asks_slurm(cluster: Cluster, program: str) -> bool:
    """Whether a program of Slurm's, called by alice, waits for an answer on the login node."""
    return cluster.run(["pgrep", "-u", "alice", "-x", program], check=False).returncode == 0


def _seconds_of_one_submission(alice: Session) -> float:
    started = time.monotonic()
    alice.submit("train", "quick.py", "--time", "5", "--name", "timed")
    return time.monotonic() - started
