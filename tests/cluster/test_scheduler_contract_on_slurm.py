"""The contract of all schedulers, kept by real Slurm for an ordinary user; by real pyslurm where a source is given.

`make test-pyslurm SRC=DIR` names the source (`DEEPHPC_PYSLURM_SRC`); without it the pyslurm half does not exist.
"""

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.pyslurm.build import install_pyslurm
from tests.jobs import scheduler_contract

SOURCE = os.environ.get("DEEPHPC_PYSLURM_SRC", "")
SCHEDULERS = ("slurm", "pyslurm") if SOURCE else ("slurm",)
PYTHON = "~/deephpc-venv/bin/python"
CLAUSES = [clause.__name__ for clause in scheduler_contract.CLAUSES]
ASK_PYSLURM = """
import getpass, json, os, sys, time
from deephpc.jobs.scheduler import Question
from deephpc.jobs.slurm import SlurmScheduler
from deephpc.jobs.slurm_pyslurm import PyslurmScheduler
began = time.monotonic()
seen = PyslurmScheduler(SlurmScheduler(os.environ, getpass.getuser())).observe(Question(job_ids=("60000000",)))
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
    said = cluster.run(f"mkdir -p '{place}' && {words}")
    answer: dict[str, str] = json.loads(said.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("clause", CLAUSES)
def test_real_slurm_keeps_the_contract(cluster: Cluster, scheduler: str, clause: str) -> None:
    assert faults(cluster, scheduler)[clause] == ""


def asked(cluster: Cluster) -> dict[str, Any]:
    """Ask pyslurm, as alice, about a job nobody knows."""
    said = cluster.run([str(cluster.home("alice") / "deephpc-venv/bin/python"), "-c", ASK_PYSLURM])
    answer: dict[str, Any] = json.loads(said.stdout)
    return answer


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:])
@pytest.mark.parametrize(
    ("daemon", "silent", "other"), [("slurmctld", "queue", ""), ("slurmdbd", "accounting", "queue")]
)
def test_a_frozen_daemon_is_silence_within_six_seconds(
    cluster: Cluster, scheduler: str, daemon: str, silent: str, other: str
) -> None:
    assert faults(cluster, scheduler)["a_job_runs_to_its_end"] == ""
    with cluster.frozen(daemon):
        seen = asked(cluster)
    assert seen["s"] < 6
    assert seen[silent] is None
    assert seen["troubles"]
    assert not other or seen[other] == {}


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:])
def test_a_site_without_accounting_is_no_trouble(cluster: Cluster, scheduler: str) -> None:
    assert faults(cluster, scheduler)["a_job_runs_to_its_end"] == ""
    with cluster.without_accounting():
        seen = asked(cluster)
    assert (seen["queue"], seen["accounting"], seen["troubles"]) == ({}, {}, [])


if len(SCHEDULERS) == 1:  # no pyslurm source was given: these tests do not exist, rather than being skipped
    del test_a_frozen_daemon_is_silence_within_six_seconds, test_a_site_without_accounting_is_no_trouble
