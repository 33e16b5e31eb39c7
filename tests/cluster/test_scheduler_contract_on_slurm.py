"""The contract of all schedulers, kept by real Slurm for an ordinary user; by real pyslurm where a source is given.

`make test-pyslurm SRC=DIR` names the source (`DEEPHPC_PYSLURM_SRC`); without it the pyslurm half does not exist.
"""

import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.pyslurm.build import install_pyslurm
from tests.jobs import scheduler_contract

SOURCE = os.environ.get("DEEPHPC_PYSLURM_SRC", "")
SCHEDULERS = ("slurm", "pyslurm") if SOURCE else ("slurm",)
PYTHON = "~/deephpc-venv/bin/python"
CLAUSES = [clause.__name__ for clause in scheduler_contract.CLAUSES]
ASK_THE_FROZEN = """
import getpass, json, os, sys, time
from deephpc.jobs.scheduler import Question
from deephpc.jobs.slurm import SlurmScheduler
from deephpc.jobs.slurm_pyslurm import PyslurmScheduler
began = time.monotonic()
seen = PyslurmScheduler(SlurmScheduler(os.environ, getpass.getuser())).observe(Question(job_ids=("4000000000",)))
took = time.monotonic() - began
print(json.dumps({"s": took, "queue": seen.queue, "accounting": seen.accounting, "troubles": seen.troubles}))
"""


@cache
def faults(cluster: Cluster, scheduler: str) -> dict[str, str]:
    """Hold a scheduler to all clauses at once, on the login node as alice; what went wrong, by clause."""
    if scheduler == "pyslurm":
        install_pyslurm(cluster, Path(SOURCE))
    place = cluster.home("alice") / f"contract of {scheduler}"
    program = cluster.on_host("/scratch/scheduler_contract.py")
    shutil.copy(str(scheduler_contract.__file__), program)
    program.chmod(0o644)
    words = f"{PYTHON} {Path('/scratch') / program.name} {scheduler} '{place}'"
    said = cluster.run(f"mkdir -p '{place}' && {words}", timeout=500)
    answer: dict[str, str] = json.loads(said.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("clause", CLAUSES)
def test_real_slurm_keeps_the_contract(cluster: Cluster, scheduler: str, clause: str) -> None:
    assert faults(cluster, scheduler)[clause] == ""


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:])
@pytest.mark.parametrize(("daemon", "source"), [("slurmctld", "queue"), ("slurmdbd", "accounting")])
def test_a_frozen_daemon_is_silence_within_six_seconds(
    cluster: Cluster, scheduler: str, daemon: str, source: str
) -> None:
    assert faults(cluster, scheduler)["a_job_runs_to_its_end"] == ""
    with cluster.frozen(daemon):
        said = cluster.run([str(cluster.home("alice") / "deephpc-venv/bin/python"), "-c", ASK_THE_FROZEN], timeout=30)
    seen = json.loads(said.stdout)
    assert seen["s"] < 6
    assert seen[source] is None
    assert seen[{"queue": "accounting", "accounting": "queue"}[source]] is not None
    assert len(seen["troubles"]) == 1
