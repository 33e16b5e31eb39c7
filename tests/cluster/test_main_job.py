"""The main job on the real cluster, as an ordinary user: each end is told as what it was."""

import json
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "train.py"
ATE_ALL = "import time\nhoard = []\nwhile True:\n    hoard.append(bytearray(20 << 20))\n    time.sleep(0.02)\n"
SLEEPS = "import time\nprint('here', flush=True)\ntime.sleep(300)\n"
FIRST_SLEEPS = """
import os, time
print("attempt", os.environ["DEEPHPC_ATTEMPT"], flush=True)
if os.environ["DEEPHPC_ATTEMPT"] == "1":
    time.sleep(300)
"""
LISTENS = """
import os, pathlib, signal, time
kept = pathlib.Path(os.environ["DEEPHPC_OUTPUT_DIR"], "kept.txt")
def told(number, frame):
    kept.write_text("told in time")
    print("told", number, flush=True)
signal.signal(signal.SIGUSR1, told)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    return Session(cluster, "main job")


def test_a_real_training_on_a_login_node_prints_its_accuracy_and_completes(alice: Session) -> None:
    alice.box.run(["mkdir", "-p", f"{alice.folder}/examples/digits"])
    alice.write("examples/digits/train.py", DIGITS.read_text())
    words = "train examples/digits/train.py --cpus-per-task 2 --time 30 --wait -- --epochs 12"
    answer = alice.deephpc(*words.split())
    assert answer.returncode == 0, answer.stderr
    run_id = answer.stdout.strip()
    assert "test accuracy 0.9" in answer.stderr
    assert f"{run_id} ended COMPLETED" in answer.stderr
    detail = alice.job(run_id)
    assert detail["job"]["state"] == "COMPLETED"
    assert detail["metrics"]["test_accuracy"][-1][1] > 0.95
    assert detail["usage"]["core_hours"] > 0
    assert detail["usage"]["memory_peak_mib"] > 0
    shown = alice.deephpc("jobs", "show", run_id).stdout
    assert "▁" in shown or "█" in shown


def test_the_script_in_the_queue_is_the_one_the_dry_run_showed(alice: Session) -> None:
    alice.write("quick.py", "print('done')\n")
    before = alice.box.run(["bash", "-c", "cd && find . -newer /proc/self -type f | head"]).stdout
    shown = alice.deephpc("--json", "train", "quick.py", "--time", "30", "--dry-run", "--", "a b", "$(id)", "é\n'\"")
    assert shown.returncode == 0, shown.stderr
    assert before == alice.box.run(["bash", "-c", "cd && find . -newer /proc/self -type f | head"]).stdout
    run_id = alice.submit("train", "quick.py", "--time", "30", "--", "a b", "$(id)", "é\n'\"")
    script = json.loads(shown.stdout)["script"]
    assert alice.deephpc("jobs", "script", run_id).stdout == script
    job_id = alice.job(run_id)["job"]["job_id"]
    in_slurm = alice.box.run(["scontrol", "write", "batch_script", job_id, "-"], check=False)
    assert in_slurm.stdout.rstrip("\n") == script.rstrip("\n")


def test_words_reach_the_program_exactly_and_nothing_in_them_is_executed(alice: Session) -> None:
    alice.write("echo words.py", "import json, sys\nprint('WORDS ' + json.dumps(sys.argv[1:]))\n")
    words = [
        "a b",
        "$(touch pwned)",
        "`touch pwned`",
        "new\nline",
        "tab\tand\rreturn",
        "ünï→",
        "'\"\\",
        "#SBATCH --mem=1",
        "",
        "--json",
        "\n#SBATCH --hold",
    ]
    run_id = alice.submit("train", "echo words.py", "--time", "30", "--", *words)
    assert alice.deephpc("jobs", "wait", run_id).returncode == 0
    log = alice.deephpc("logs", run_id).stdout
    assert json.loads(log.split("WORDS ")[1].splitlines()[0]) == words
    assert "pwned" not in alice.box.run(["ls", alice.folder]).stdout


def test_a_program_that_exits_7_is_failed_and_wait_exits_6(alice: Session) -> None:
    alice.write("seven.py", "import sys\nprint('the last words')\nsys.exit(7)\n")
    answer = alice.deephpc("train", "seven.py", "--time", "30", "--wait")
    assert answer.returncode == 6
    assert "FAILED, exit code 7" in answer.stderr
    why = alice.deephpc("why", answer.stdout.strip())
    assert "the last words" in why.stdout
    assert "next:" in why.stdout


def test_a_job_that_ate_its_memory_is_out_of_memory_and_told_what_it_had(alice: Session) -> None:
    alice.write("hoard.py", ATE_ALL)
    hoard = ("train", "hoard.py", "--time", "30")
    asked = alice.submit(*hoard, "--mem", "200M")
    unasked = alice.submit(*hoard)  # the site gives 600 MiB a core
    by_core = alice.deephpc(*hoard, "--cpus-per-task", "2", env={"SBATCH_MEM_PER_CPU": "150M"}).stdout.strip()
    answer = alice.deephpc("jobs", "wait", asked, unasked, by_core)
    assert answer.returncode == 6
    assert answer.stderr.count("OUT_OF_MEMORY") >= 3, answer.stderr
    assert "200M" in alice.deephpc("why", asked).stdout
    for run_id, given in ((unasked, "600M"), (by_core, "300M")):
        why = alice.deephpc("why", run_id).stdout
        assert given in why, why
        assert "it had asked for" not in why
        assert "--mem" in why
    assert "asks for none" not in why  # of what the variable asked for


def test_a_job_at_its_limit_is_timeout_and_its_program_was_told_before(alice: Session) -> None:
    alice.write("listens.py", LISTENS)
    run_id = alice.submit("train", "listens.py", "--time", "2", "--grace", "30")
    job = alice.wait_for(run_id, ["TIMEOUT", "FAILED", "CANCELLED", "COMPLETED"])
    assert job["state"] == "TIMEOUT"
    assert alice.box.run(["cat", f"{job['folder']}/output/kept.txt"]).stdout == "told in time"


def test_a_cancelled_job_is_cancelled_pending_or_running(alice: Session) -> None:
    alice.write("sleeps.py", SLEEPS)
    running = alice.submit("train", "sleeps.py", "--time", "30")
    waiting = alice.submit("train", "sleeps.py", "--time", "30", "--dependency", f"afterok:{running}")
    alice.wait_for(running, ["RUNNING"])
    assert "another job must end first" in alice.deephpc("why", waiting).stdout
    assert alice.deephpc("jobs", "cancel", running, waiting).returncode == 0
    ends = ["CANCELLED", "FAILED", "COMPLETED", "TIMEOUT", "LOST"]
    assert alice.wait_for(running, ends)["state"] == "CANCELLED"
    assert alice.wait_for(waiting, ends)["state"] == "CANCELLED"


def test_a_job_whose_node_dies_is_requeued_and_completes(cluster: Cluster, alice: Session) -> None:
    alice.write("second.py", FIRST_SLEEPS)
    run_id = alice.submit("train", "second.py", "--time", "30", "--max-requeues", "2")
    alice.wait_for(run_id, ["RUNNING"])
    node = alice.jobs()[run_id]["nodes"]
    wait_until(
        lambda: "attempt 1" in alice.deephpc("logs", run_id).stdout, 30, lambda: "the first attempt wrote nothing"
    )
    cluster.power_off(node)
    try:
        job = alice.wait_for(run_id, ["COMPLETED", "FAILED", "CANCELLED", "LOST"])
    finally:
        cluster.power_on(node)
    assert job["state"] == "COMPLETED"
    detail = alice.job(run_id)
    assert [attempt["number"] for attempt in detail["attempts"]] == [1, 2]
    assert "attempt 2" in alice.deephpc("logs", run_id).stdout


def test_a_job_whose_node_dies_for_good_is_node_fail(cluster: Cluster, alice: Session) -> None:
    alice.write("sleeps.py", SLEEPS)
    run_id = alice.submit("train", "sleeps.py", "--time", "30", "--max-requeues", "0")
    node = alice.wait_for(run_id, ["RUNNING"])["nodes"]
    cluster.power_off(node)
    try:
        job = alice.wait_for(run_id, ["COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "LOST"])
    finally:
        cluster.power_on(node)
    assert job["state"] == "NODE_FAIL"


def test_an_array_runs_each_task_and_tells_which_failed(alice: Session) -> None:
    alice.write(
        "tasks.py",
        "import os, sys\nn = int(os.environ['DEEPHPC_TASK_ID'])\nprint('task', n)\nsys.exit(3 if n == 2 else 0)\n",
    )
    run_id = alice.submit("train", "tasks.py", "--time", "30", "--array", "0-5%3")
    answer = alice.deephpc("jobs", "wait", run_id)
    assert answer.returncode == 6
    job = alice.jobs()[run_id]
    assert job["tasks"] == {**{str(n): "COMPLETED" for n in range(6)}, "2": "FAILED"}
    assert "task 4" in alice.deephpc("logs", f"{run_id}_4").stdout
    assert "exit code 3" in alice.deephpc("why", run_id).stdout + answer.stderr
    failed = json.loads(alice.deephpc("--json", "jobs", "rerun", run_id, "--failed", "--dry-run").stdout)
    assert failed["plan"]["spec"]["array"]["tasks"] == [2]
    again = alice.submit("jobs", "rerun", f"{run_id}_2", f"{run_id}_4")
    assert alice.deephpc("jobs", "wait", f"{again}_4").returncode == 0
    assert alice.deephpc("jobs", "wait", again).returncode == 6
    assert alice.jobs()[again]["tasks"] == {"2": "FAILED", "4": "COMPLETED"}


def test_rerun_makes_a_new_run_of_the_same_request(alice: Session) -> None:
    alice.write("quick.py", "print('done')\n")
    first = alice.submit("train", "quick.py", "--time", "30", "--env", "COLOUR=deep red")
    assert alice.deephpc("jobs", "wait", first).returncode == 0
    answer = alice.deephpc("jobs", "rerun", first, "--wait")
    assert answer.returncode == 0, answer.stderr
    second = answer.stdout.strip()
    assert second != first
    detail = alice.job(second)
    assert detail["plan"]["spec"]["command"] == alice.job(first)["plan"]["spec"]["command"]
    secret = alice.box.run(["cat", f"{detail['job']['folder']}/secrets/env.sh"]).stdout
    assert "deep red" in secret


def test_another_user_sees_nothing_of_a_run(cluster: Cluster, alice: Session) -> None:
    alice.write("quick.py", "print('done')\n")
    run_id = alice.submit("train", "quick.py", "--time", "30", "--env", "TOKEN=hush-hush-hush")
    assert alice.deephpc("jobs", "wait", run_id).returncode == 0
    folder = alice.jobs()[run_id]["folder"]
    assert cluster.run(["ls", folder], user="bob", check=False).returncode != 0
    job_id = alice.jobs()[run_id]["job_id"]
    for words in (
        ["scontrol", "show", "job", job_id],
        ["deephpc", "jobs", "script", run_id],
        ["cat", f"{folder}/plan.json", f"{folder}/job.log"],
    ):
        assert "hush-hush-hush" not in cluster.run(words, check=False).stdout
