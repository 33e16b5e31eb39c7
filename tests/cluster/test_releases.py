"""What deephpc writes is accepted by two releases of Slurm, with and without accounting, in both GPU dialects."""

import json
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster

SHAPES = {
    "plain": ["--time", "5"],
    "wide": ["--time", "1:00:00", "--nodes", "2", "--tasks-per-node", "2", "--cpus-per-task", "2", "--mem", "1G"],
    "gpus": ["--time", "5", "--gpus-per-node", "2"],
    "typed gpus": ["--time", "5", "--gpus-per-node", "a100:1"],
    "array": ["--time", "5", "--array", "0-9%3"],
    "everything": ["--time", "5", "--partition", "debug", "--exclusive", "--max-requeues", "0", "--grace", "30",
                   "--mail-user", "a@example.org", "--sbatch", "--nice=10"],
}  # fmt: skip
RECORDED = Path(__file__).parent.parent / "recorded"
REASONS = """\
import ctypes, re
library = ctypes.CDLL("/usr/lib/x86_64-linux-gnu/slurm-wlm/libslurmfull.so")
named = [name for name in ("job_state_reason_string", "job_reason_string") if hasattr(library, name)]
text = getattr(library, named[0])
text.restype = ctypes.c_char_p
for number in range(400):
    word = text(number).decode()
    if re.fullmatch(r"(?!Inv\\w+Reason)[A-Z]\\w+", word):
        print(word)
"""
GPU_SITES = ("gres", "gpus-per-node")


def _boxes(request: pytest.FixtureRequest, release: str) -> Any:
    return request.getfixturevalue("cluster" if release == "24.11" else "cheap_cluster")


@pytest.mark.parametrize("accounting", ["with accounting", "without accounting"])
@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_scripts_of_every_shape_pass_sbatch_test_only(
    request: pytest.FixtureRequest, release: str, accounting: str
) -> None:
    box: Cluster = _boxes(request, release)
    switched: AbstractContextManager[Any] = (
        box.without_accounting() if accounting.startswith("without") else nullcontext()
    )
    user = Session(box, "shapes")
    user.write("quick.py", "print('done')\n")
    sites = f"{box.home('alice')}/.config/deephpc/sites"
    box.run(["mkdir", "-p", sites])
    with switched:
        box.wait_idle()
        assert release in box.run(["sbatch", "--version"]).stdout
        for gpu_request in GPU_SITES:
            box.run(
                ["tee", f"{sites}/{gpu_request}.toml"], stdin=f'name = "{gpu_request}"\ngpu_request = "{gpu_request}"\n'
            )
            for words in SHAPES.values():
                answer = user.deephpc("--site", gpu_request, "--json", "train", "quick.py", *words, "--dry-run")
                assert answer.returncode == 0, answer.stderr
                script = json.loads(answer.stdout)["script"]
                user.write("shape.sh", script)
                verdict = box.run(["sbatch", "--test-only", "shape.sh"], cwd=user.folder, check=False)
                assert verdict.returncode == 0, f"{words}: {verdict.stderr}"
    box.run(["rm", "-r", sites])


#: What a shell may say of clusters, accounts and output; the jobs are those of alice, and alive whatever it says.
SPELLINGS = {
    "SBATCH_CLUSTERS": ("box", "BOX", ""),
    "SLURM_CLUSTERS": ("box", "", "nowhere"),
    "USER": ("nobody", "bob", ""),
    "LOGNAME": ("root", "bob"),
    "SQUEUE_FORMAT": ("%i", "%j"),
    "SQUEUE_STATES": ("PENDING", "FAILED"),
    "SQUEUE_USERS": ("bob",),
    "SQUEUE_PARTITION": ("short",),
    "SACCT_FORMAT": ("jobid",),
    "SLURM_TIME_FORMAT": ("relative",),
    "SLURM_BITSTR_LEN": ("5",),
    "SBATCH_ACCOUNT": ("root", ""),
    "SBATCH_PARTITION": ("short",),
    "SBATCH_JOB_NAME": ("mine",),
}
#: Says that it lives until it is let go.
WAITS = ("sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.2; done')
#: Asks once to be continued in another job.
TWICE = 'echo >>"$DEEPHPC_CHECKPOINT_DIR/steps"; [ "$(wc -l <"$DEEPHPC_CHECKPOINT_DIR/steps")" = 2 ] || exit 75'


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_a_live_run_is_running_however_clusters_accounts_and_output_are_spelled(
    request: pytest.FixtureRequest, release: str
) -> None:
    box: Cluster = _boxes(request, release)
    user = Session(box, "spelled")
    go, there = f"{user.folder}/go", {"SBATCH_CLUSTERS": "box"}
    waits = ("--time", "5", "--max-requeues", "0", "--mem", "50M")
    chances = random.Random(release)
    alive = {
        user.submit("run", *waits, *more, "--", *WAITS, go, env=env)
        for more, env in (
            ((), there),
            (("--array", "0-1"), {"SLURM_CLUSTERS": "box"}),
            (("--sbatch", "--clusters=box"), {"SBATCH_CLUSTERS": "nowhere", "USER": "nobody"}),
            ((), {"USER": "bob"}),
        )
    }
    chained = user.submit("run", "--time", "5", "--mem", "50M", "--max-requeues", "3", "--chain", "--", "sh", "-c",
                          TWICE, env=there)  # fmt: skip
    for run_id in alive:
        user.wait_for(run_id, ["RUNNING"])
    for _ in range(10):
        names = chances.sample(sorted(SPELLINGS), chances.randint(2, 7))
        spelled = {name: chances.choice(SPELLINGS[name]) for name in names}
        jobs = user.jobs("--limit", "500", env=spelled)
        told = {(run_id, jobs[run_id]["state"], jobs[run_id]["source"], jobs[run_id]["reason"]) for run_id in alive}
        assert told == {(run_id, "RUNNING", "queue", "") for run_id in alive}, spelled
    box.run(["touch", go])
    answer = user.deephpc("jobs", "wait", *alive, chained, env={"USER": "nobody", "SLURM_CLUSTERS": "nowhere"})
    assert answer.returncode == 0, answer.stderr
    jobs = user.jobs("--limit", "500")
    assert {jobs[run_id]["state"] for run_id in (*alive, chained)} == {"COMPLETED"}
    ids = [str(jobs[run_id]["job_id"]) for run_id in (*alive, chained)]
    assert len([job_id for job_id in ids if job_id.endswith(";box")]) == 4
    box.run(["rm", go])


@pytest.mark.parametrize("gpu_request", GPU_SITES)
@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_a_gpu_job_gets_its_gpu_in_either_dialect(
    request: pytest.FixtureRequest, release: str, gpu_request: str
) -> None:
    box: Cluster = _boxes(request, release)
    user = Session(box, "gpus")
    sites = f"{box.home('alice')}/.config/deephpc/sites"
    box.run(["mkdir", "-p", sites])
    box.run(["tee", f"{sites}/dialect.toml"], stdin=f'name = "dialect"\ngpu_request = "{gpu_request}"\n')
    words = (
        "run",
        "--time",
        "5",
        "--gpus-per-node",
        "2",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo GPUS $SLURM_GPUS_ON_NODE $CUDA_VISIBLE_DEVICES",
    )
    answer = user.deephpc("--site", "dialect", *words)
    box.run(["rm", "-r", sites])
    assert answer.returncode == 0, answer.stderr
    assert "GPUS 2 0,1" in answer.stderr


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_what_sbatch_refuses_by_itself_is_refused_at_once_in_its_words(
    request: pytest.FixtureRequest, release: str
) -> None:
    box: Cluster = _boxes(request, release)
    user = Session(box, "refused")
    mixed = ("run", "--time", "5", "--sbatch", "--core-spec=1 --thread-spec=1", "--", "true")
    plain = ("run", "--time", "5", "--", "true")
    for words, env, said, hint in (
        (mixed, {}, "mutually exclusive", "--sbatch"),
        (plain, {"SBATCH_CLUSTERS": "atlantis"}, "No cluster 'atlantis' known by database", "SBATCH_CLUSTERS"),
        (plain, {"SBATCH_DISTRIBUTION": "wild"}, "Invalid --distribution specification", "env | grep SBATCH_"),
    ):
        answer = user.deephpc(*words, env=env)
        assert (answer.returncode, said in answer.stderr, hint in answer.stderr) == (2, True, True), answer.stderr
    assert user.slurm_jobs("PENDING", "RUNNING") == []


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_the_reasons_that_are_explained_are_those_of_the_program(request: pytest.FixtureRequest, release: str) -> None:
    box: Cluster = _boxes(request, release)
    (recorded,) = RECORDED.glob(f"slurm-{release}*-reasons.txt")
    names = box.run(["python3", "-"], stdin=REASONS).stdout.split()
    assert set(names) - {"None"} == set(recorded.read_text(encoding="utf-8").splitlines()[1:])


@pytest.mark.parametrize(
    ("release", "limit", "reason", "next_step"),
    [
        ("24.11", "MaxJobs=1", "AssocMaxJobsLimit", "wait for your other jobs to end"),
        ("22.05", "GrpTRESRunMins=cpu=12", "AssocGrpCPURunMinutesLimit", "wait, or ask for less --time"),
    ],
)
def test_a_job_kept_by_a_limit_of_its_account_says_which_and_what_to_do(
    request: pytest.FixtureRequest, release: str, limit: str, reason: str, next_step: str
) -> None:
    box: Cluster = _boxes(request, release)
    user = Session(box, "limits")
    change = "sacctmgr -i modify user where name=alice account=proj1 set"
    box.root(f"{change} {limit}")
    user.submit("run", "--time", "10", "--", "sleep", "600")
    run_id = user.submit("run", "--time", "10", "--cpus-per-task", "2", "--", "true")
    told = ""

    def is_kept() -> bool:
        nonlocal told
        told = user.deephpc("why", run_id).stdout
        return reason in told

    try:
        wait_until(is_kept, 60, lambda: told)
    finally:
        box.root(f"{change} {limit.rpartition('=')[0]}=-1")
    assert next_step in told


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_the_probed_site_runs_a_job(request: pytest.FixtureRequest, release: str) -> None:
    box: Cluster = _boxes(request, release)
    user = Session(box, "probed")
    assert user.deephpc("site", "init", "probed", "--force").returncode == 0
    shown = user.deephpc("site", "show", "probed")
    assert "debug" in shown.stdout
    for words, said in (
        (
            ("--partition", "short", "--time", "1:00:00"),
            "01:00:00 of time, but partition short has a limit of 00:05:00",
        ),
        (("--time", "5", "--gpus-per-node", "9"), "9 GPUs per node, but partition debug has 4"),
        (("--time", "5", "--mem", "900G"), "900G of memory per node, but partition debug has 6000M"),
    ):
        refused = user.deephpc("--site", "probed", "run", *words, "--", "true")
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    leave = ("--partition", "short", "--time", "1:00:00", "--qos", "normal", "--dry-run")
    allowed = user.deephpc("--site", "probed", "run", *leave, "--", "true")
    assert (allowed.returncode, "unless --qos normal allows that" in allowed.stderr) == (0, True), allowed.stderr
    answer = user.deephpc("--site", "probed", "run", "--time", "5", "--wait", "--", "echo", "it runs")
    box.run(["rm", f"{box.home('alice')}/.config/deephpc/sites/probed.toml"])
    assert answer.returncode == 0, answer.stderr
    assert "it runs" in answer.stderr


def test_doctor_finds_a_healthy_cluster_healthy_and_names_a_dead_controller(cluster: Cluster) -> None:
    user = Session(cluster, "doctor")
    healthy = user.deephpc("doctor")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    with cluster.stopped("slurmctld"):
        ill = user.deephpc("doctor")
    assert ill.returncode == 3
    assert "controller" in ill.stdout
