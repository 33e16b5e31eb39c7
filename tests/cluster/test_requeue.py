"""Runs that outlive their time limit on the real cluster: continued in the same job, in successors, and ended in time.

What one run waits for, the others wait for too: all are submitted first. Slurm holds a requeued job back for 11 s here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import put_layout

pytestmark = pytest.mark.cluster
#: Counts seconds; told of its end it keeps them and asks to be continued.
COUNTS = """
import os, pathlib, signal, sys, time
kept = pathlib.Path(os.environ["DEEPHPC_CHECKPOINT_DIR"], "seconds")
done = int(kept.read_text()) if kept.exists() else 0
print("attempt", os.environ["DEEPHPC_ATTEMPT"], "goes on from", done, flush=True)
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
while done < int(sys.argv[1]) and not told:
    time.sleep(1)
    done += 1
if told:
    kept.write_text(str(done))
    sys.exit(75)
print("counted to", done, flush=True)
"""
#: Says which signal it was told its end by, and asks to be continued; its second attempt is done at once.
SAVES = """
import os, signal, sys, time
def told(number, frame):
    with open(os.path.join(os.environ["DEEPHPC_CHECKPOINT_DIR"], signal.Signals(number).name), "w"):
        sys.exit(75)
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, told)
print("here", flush=True)
time.sleep(300 if os.environ["DEEPHPC_ATTEMPT"] == "1" else 0)
"""
COUNT = 18
#: The limit is a minute, and the program is told of it 48 s before.
SHORT = ("--time", "1", "--grace", "48")
SAVES_ONCE = '[ "$DEEPHPC_ATTEMPT" = 2 ] || { date > "$DEEPHPC_CHECKPOINT_DIR/$DEEPHPC_RANK"; %s exit 75; }'
RUNS = {
    "requeued": (*SHORT, "--", "python3", "counts.py", str(COUNT)),
    "chained": (*SHORT, "--chain", "--", "python3", "counts.py", str(COUNT)),
    "stuck": ("--time", "1", "--", "sh", "-c", "exit 75"),
    "stuck-chain": ("--time", "1", "--chain", "--", "sh", "-c", "exit 75"),
    "array": ("--time", "1", "--array", "1-3", "--", "sh", "-c",
              f'[ "$DEEPHPC_TASK_ID" != 2 ] || {SAVES_ONCE % ""}'),
    # one rank leaves at once, the others write their checkpoints meanwhile
    "ranks": ("--time", "1", "--nodes", "2", "--tasks-per-node", "2", "--launcher", "srun", "--", "sh", "-c",
              SAVES_ONCE % '[ "$DEEPHPC_RANK" = 3 ] || sleep 2; date > "$DEEPHPC_CHECKPOINT_DIR/late-$DEEPHPC_RANK";'),
    "image": ("--time", "1", "--image", "oci:/scratch/images/requeued", "--engine", "apptainer", "--", "sh", "-c",
              SAVES_ONCE % ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "requeue")
    session.write("counts.py", COUNTS)
    put_layout(cluster, "plain", "/scratch/images/requeued")
    return session


@pytest.fixture(scope="module")
def runs(alice: Session) -> dict[str, str]:
    """The ids of all runs, by their names above; all have ended."""
    run_ids = {name: alice.submit("run", "--name", name, *words) for name, words in RUNS.items()}
    alice.deephpc("jobs", "wait", *run_ids.values())
    return run_ids


def ended(alice: Session, run_id: str, state: str = "COMPLETED") -> dict[str, object]:
    job = alice.wait_for(run_id, ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "LOST"])
    assert job["state"] == state, alice.deephpc("why", run_id).stdout
    return alice.job(run_id)


def jobs_of(alice: Session, run_id: str) -> list[str]:
    return [number for number, name in alice.slurm_jobs() if name.startswith(run_id)]


def numbers(detail: dict[str, object]) -> list[int]:
    return [attempt["number"] for attempt in detail["attempts"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["requeued", "chained"])
def test_a_run_longer_than_its_limit_completes_once(alice: Session, runs: dict[str, str], how: str) -> None:
    detail = ended(alice, runs[how])
    log = alice.deephpc("logs", runs[how]).stdout
    begun = [(int(each), int(count)) for each, count in re.findall(r"^attempt (\d+) goes on from (\d+)$", log, re.M)]
    attempts = list(range(1, len(begun) + 1))  # two, or more where the machine is so busy that one gets less far
    assert [number for number, _ in begun] == attempts == numbers(detail)
    counts = [count for _, count in begun]
    assert counts[0] == 0
    assert 0 < counts[-1] < COUNT
    assert counts == sorted(counts)
    assert log.count(f"counted to {COUNT}") == 1
    assert len(jobs_of(alice, runs[how])) == (1 if how == "requeued" else len(attempts))
    assert detail["job"]["job_id"] == detail["attempts"][-1]["job_id"]  # type: ignore[index]


@pytest.mark.parametrize("how", ["stuck", "stuck-chain"])
def test_two_attempts_without_a_newer_checkpoint_are_the_last(alice: Session, runs: dict[str, str], how: str) -> None:
    assert numbers(ended(alice, runs[how], "FAILED")) == [1, 2]
    assert "left no newer checkpoint" in alice.deephpc("why", runs[how]).stdout


def test_one_task_of_an_array_is_continued_alone(alice: Session, runs: dict[str, str]) -> None:
    ended(alice, runs["array"])
    assert numbers(alice.job(f"{runs['array']}_2")) == [1, 2]
    assert numbers(alice.job(f"{runs['array']}_1")) == [1]


def test_ranks_that_ask_to_be_continued_end_none_that_still_saves(alice: Session, runs: dict[str, str]) -> None:
    detail = ended(alice, runs["ranks"])
    assert numbers(detail) == [1, 2]
    kept = alice.box.run(["ls", f"{detail['job']['folder']}/checkpoints"]).stdout.split()  # type: ignore[index]
    assert kept == ["0", "1", "2", "3", "late-0", "late-1", "late-2", "late-3"]


def test_exit_code_75_comes_out_of_an_image(alice: Session, runs: dict[str, str]) -> None:
    assert numbers(ended(alice, runs["image"])) == [1, 2]


def test_cancelled_while_it_waits_to_be_continued_a_run_ends(alice: Session) -> None:
    run_id = alice.submit("run", "--name", "cancelled", "--time", "1", "--", "sh", "-c", "exit 75")

    def waits_again() -> bool:
        detail = alice.job(run_id)
        return detail["job"]["state"] == "PENDING" and bool(detail["attempts"])

    wait_until(waits_again, 60, lambda: f"{run_id} was not queued again")
    assert "attempt 1 asked to be continued (exit code 75)" in alice.deephpc("why", run_id).stdout
    assert alice.deephpc("jobs", "cancel", run_id).returncode == 0
    assert numbers(ended(alice, run_id, "CANCELLED")) == [1]


def test_what_no_node_may_submit_the_next_command_does(cluster: Cluster, alice: Session) -> None:
    with nodes_without_sbatch(cluster):
        words = ("--time", "1", "--chain", "--", "sh", "-c", SAVES_ONCE % "")
        run_id = alice.submit("run", "--name", "unplaced", *words)
        detail = ended(alice, run_id)
    assert numbers(detail) == [1, 2]
    assert "this node cannot submit the next job" in alice.deephpc("logs", run_id).stdout
    assert len(jobs_of(alice, run_id)) == 2


def test_preempted_a_run_saves_what_it_can_and_goes_on(cluster: Cluster, alice: Session) -> None:
    alice.write("saves.py", SAVES)
    with preemption(cluster):
        words = ("--time", "30", "--exclusive", "--partition", "debug", "--max-requeues", "3")
        alone = alice.submit("run", "--name", "alone", *words, "--sbatch=--nodelist=c2", "--", "python3", "saves.py")
        ranks = ("--nodes", "1", "--tasks-per-node", "2", "--launcher", "srun", "--sbatch=--nodelist=c3")
        many = alice.submit("run", "--name", "many", *words, *ranks, "--", "python3", "saves.py")
        for run_id in (alone, many):
            wait_until(lambda run_id=run_id: "here" in alice.deephpc("logs", run_id).stdout, 60, lambda: "none began")  # type: ignore[misc]
        other = ["sbatch", "--partition=short", "--exclusive", "--nodelist=c2,c3", "--nodes=2", "--output=/dev/null"]
        alice.box.run([*other, "--wrap=true"])
        for run_id in (alone, many):
            assert numbers(ended(alice, run_id))[:2] == [1, 2]  # it may have to make room once more
    folder = alice.job(alone)["job"]["folder"]
    assert "SIGUSR1" in alice.box.run(["ls", f"{folder}/checkpoints"]).stdout.split()


@contextmanager
def preemption(cluster: Cluster) -> Iterator[None]:
    """Let jobs of the partition `short` take the place of those in `debug`, which have a minute to leave."""
    with cluster.configured(PreemptType="preempt/partition_prio", PreemptMode="REQUEUE"):
        cluster.root("scontrol update PartitionName=debug GraceTime=60")
        cluster.root("scontrol update PartitionName=short PriorityTier=10 PreemptMode=OFF")
        yield


@contextmanager
def nodes_without_sbatch(cluster: Cluster) -> Iterator[None]:
    for node in cluster.layout.computes:
        cluster.root("chmod 700 /usr/bin/sbatch", node=node)
    try:
        yield
    finally:
        for node in cluster.layout.computes:
            cluster.root("chmod 755 /usr/bin/sbatch", node=node)
