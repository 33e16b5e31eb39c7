"""Who is told that a run's end is near, and when, on both releases of Slurm: all runs of both wait side by side."""

from typing import Any

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster
RELEASES = ("24.11", "22.05")
#: Keeps a checkpoint named for the signal that told it of its end, and asks to be continued; then it is done.
SAVES = """
import os, signal, sys, time
def told(number, frame):
    with open(os.path.join(os.environ["DEEPHPC_CHECKPOINT_DIR"], signal.Signals(number).name), "w"):
        sys.exit(75)
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, told)
time.sleep(300 if os.environ["DEEPHPC_ATTEMPT"] == "1" else 0)
"""
#: Starts two such programs and waits for them, as starters of several processes on a node do; it hears of nothing.
STARTS = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "saves.py"]) for _ in range(2)]
sys.exit(max(child.wait() for child in children))
"""
#: Queues its own job again each time it has saved, as some frameworks do, and says nothing of it.
REQUEUES = """
import os, subprocess, sys, time
attempt = int(os.environ["DEEPHPC_ATTEMPT"])
if attempt < 4:
    saved = os.path.join(os.environ["DEEPHPC_CHECKPOINT_DIR"], f"epoch-{attempt}")
    open(saved, "w").close()
    os.utime(saved, (time.time() + 90,) * 2)  # as if it had worked for 90 s
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
    time.sleep(300)
"""
SHORT = ("--time", "1", "--grace", "40")
RUNS: dict[str, tuple[str, ...]] = {
    "wrapper": (*SHORT, "--", "bash", "-c", "python3 saves.py; exit $?"),
    "wrapper with a trap": (*SHORT, "--", "bash", "-c", "trap 'echo bye' EXIT; python3 saves.py"),
    "pipeline": (*SHORT, "--", "bash", "-c", "set -o pipefail; python3 saves.py | tee said"),
    "starter": (*SHORT, "--", "python3", "starts.py"),
    "step on two nodes": (*SHORT, "--nodes", "2", "--", "bash", "-c", "srun python3 saves.py; exit $?"),
    "deaf step": (*SHORT, "--", "bash", "-c", "srun sleep 300; exit $?"),
    "partition's limit": ("--partition", "short", "--", "python3", "saves.py"),
    "extended": ("--time", "1", "--grace", "0", "--", "python3", "saves.py"),
    "lowered": ("--time", "5", "--grace", "0", "--", "python3", "saves.py"),
    "edited": ("--time", "5", "--sbatch", "--begin=now+10", "--", "python3", "edited.py"),
    "alone on two nodes": ("--time", "5", "--nodes", "2", "--", "hostname"),
    "requeues itself": ("--time", "5", "--max-requeues", "1", "--", "python3", "requeues.py"),
}
CONTINUED = ("wrapper", "wrapper with a trap", "pipeline", "starter", "step on two nodes", "partition's limit")


class Ends:
    """All runs on one cluster."""

    def __init__(self, box: Cluster) -> None:
        self.session = Session(box, "endings")
        for name, text in (("saves.py", SAVES), ("starts.py", STARTS), ("requeues.py", REQUEUES)):
            self.session.write(name, text)
        self.session.write("edited.py", "print('as submitted')\n")
        self.runs = {name: self.session.submit("run", *words) for name, words in RUNS.items()}
        self.session.write("edited.py", "print('as edited')\n")
        self.session.write("trains.py", "import os\nprint('rank=' + os.environ['DEEPHPC_RANK'])\n")
        self.runs["trained by two"] = self.session.submit("train", "trains.py", "--time", "5", "--nodes", "2")
        self.limited = self._submit_under_limits()

    def _submit_under_limits(self) -> str:
        shown = "ulimit -S -t; ulimit -S -f; ulimit -S -v; ulimit -S -u; srun bash -c 'ulimit -S -t'"
        words = [
            "bash",
            "-c",
            f'ulimit -S -t 1234 -f 12345678 -v 12345678 -u 1234; deephpc run --time 5 -- bash -c "{shown}"',
        ]
        return self.session.box.run(words, user="alice", cwd=self.session.folder).stdout.strip()

    def show(self, name: str) -> dict[str, Any]:
        return self.session.job(self.runs[name])

    def change_limits(self) -> None:
        """Change two time limits once these runs work; only an administrator may extend one."""
        box, jobs = self.session.box, {name: self.show(name)["job"]["job_id"] for name in ("extended", "lowered")}
        for name, minutes in (("extended", 5), ("lowered", 1)):
            self.session.wait_for(self.runs[name], ["RUNNING"])
            box.run(["scontrol", "update", f"JobId={jobs[name]}", f"TimeLimit={minutes}"], user="root")

    def cancel_late(self) -> None:
        """Cancel the extended run by Slurm's own command, past the limit that it had at its start."""
        job_id, box = self.show("extended")["job"]["job_id"], self.session.box
        wait_until(lambda: self._age_s(job_id) > 65, 120, lambda: f"{job_id} has run for {self._age_s(job_id)} s")
        box.run(["scancel", job_id])

    def _age_s(self, job_id: str) -> float:
        said = self.session.box.run(["squeue", "-h", "-j", job_id, "-o", "%M"]).stdout.strip()
        minutes, seconds = said.split(":")
        return int(minutes) * 60 + int(seconds)


@pytest.fixture(scope="module")
def ends(cluster: Cluster, cheap_cluster: Cluster) -> dict[str, Ends]:
    with cluster.configured(KillWait="30"), cheap_cluster.configured(KillWait="30"):  # as at sites: 5 s are few here
        both = {"24.11": Ends(cluster), "22.05": Ends(cheap_cluster)}
        for one in both.values():
            one.change_limits()
        for one in both.values():
            one.cancel_late()
        for one in both.values():
            one.session.deephpc("jobs", "wait", one.limited, *one.runs.values())
        return both


@pytest.mark.parametrize("name", CONTINUED)
@pytest.mark.parametrize("release", RELEASES)
def test_who_listens_in_the_programs_tree_and_steps_saves_and_is_continued(
    ends: dict[str, Ends], release: str, name: str
) -> None:
    shown = ends[release].show(name)
    assert shown["job"]["state"] == "COMPLETED", shown
    assert [attempt["told"] for attempt in shown["attempts"]] == [True, None]
    kept = f"{shown['job']['folder']}/checkpoints"
    assert ends[release].session.box.run(["ls", kept]).stdout.split() == ["SIGUSR1"]


@pytest.mark.parametrize("release", RELEASES)
def test_a_run_without_a_time_limit_is_told_near_the_end_of_the_partitions(ends: dict[str, Ends], release: str) -> None:
    one = ends[release]
    folder = one.show("partition's limit")["job"]["folder"]
    events = one.session.box.run(["cat", f"{folder}/events.jsonl"]).stdout
    (told_s,) = [int(line.rpartition(":")[2].strip("}")) for line in events.splitlines() if '"event":"grace"' in line]
    assert 27 <= told_s <= 45  # of 60 s; at most half of a limit is kept for saving


@pytest.mark.parametrize("release", RELEASES)
def test_where_nobody_listens_the_log_the_run_and_why_say_so(ends: dict[str, Ends], release: str) -> None:
    one, run_id = ends[release], ends[release].runs["deaf step"]
    shown = one.show("deaf step")
    assert (shown["job"]["state"], shown["attempts"][0]["told"]) == ("TIMEOUT", False)
    assert "nothing in the program listens for SIGUSR1" in one.session.deephpc("logs", run_id).stdout
    assert "nothing in it listened for SIGUSR1" in one.session.deephpc("jobs", "show", run_id).stdout
    assert "survive-the-time-limit" in one.session.deephpc("why", run_id).stdout


@pytest.mark.parametrize("release", RELEASES)
def test_the_limit_that_a_run_has_at_its_end_decides_whether_it_goes_on(ends: dict[str, Ends], release: str) -> None:
    extended, lowered = ends[release].show("extended"), ends[release].show("lowered")
    assert (extended["job"]["state"], len(extended["attempts"])) == ("CANCELLED", 1)
    assert "asked to be continued" in ends[release].session.deephpc("why", extended["job"]["run_id"]).stdout
    assert (lowered["job"]["state"], len(lowered["attempts"])) == ("COMPLETED", 2)


@pytest.mark.parametrize("release", RELEASES)
def test_attempts_that_saved_are_free_though_the_program_queued_itself_again(
    ends: dict[str, Ends], release: str
) -> None:
    shown = ends[release].show("requeues itself")
    assert shown["job"]["state"] == "COMPLETED", shown
    assert [attempt["free"] for attempt in shown["attempts"]] == [False, True, True, True]


@pytest.mark.parametrize("release", RELEASES)
def test_a_file_that_was_edited_while_its_run_waited_is_named(ends: dict[str, Ends], release: str) -> None:
    one = ends[release]
    edited = f"{one.session.folder}/edited.py"
    assert [attempt["edited"] for attempt in one.show("edited")["attempts"]] == [[edited]]
    log = one.session.deephpc("logs", one.runs["edited"]).stdout
    assert f"{edited} was edited after this run was submitted" in log
    assert "as edited" in log
    assert f"edited     {edited}" in one.session.deephpc("jobs", "show", one.runs["edited"]).stdout


@pytest.mark.parametrize("release", RELEASES)
def test_limits_of_the_login_shell_that_would_end_a_program_stay_there(ends: dict[str, Ends], release: str) -> None:
    one = ends[release]
    assert one.session.job(one.limited)["job"]["state"] == "COMPLETED"
    log = one.session.deephpc("logs", one.limited).stdout
    assert "unlimited" in log
    assert "1234" not in log.replace(one.limited, "")


@pytest.mark.parametrize("release", RELEASES)
def test_nodes_that_did_nothing_are_named(ends: dict[str, Ends], release: str) -> None:
    one, run_id = ends[release], ends[release].runs["alone on two nodes"]
    assert one.session.job(run_id)["job"]["state"] == "COMPLETED"
    assert "1 of its 2 nodes did nothing" in one.session.deephpc("why", run_id).stdout
    assert one.show("alone on two nodes")["idle"] == "1 of its 2 nodes"
    assert [one.show(name)["idle"] for name in ("step on two nodes", "trained by two")] == ["", ""]
    log = one.session.deephpc("logs", one.runs["trained by two"]).stdout
    assert sorted(word for word in log.split() if word.startswith("rank=")) == ["rank=0", "rank=1"]
