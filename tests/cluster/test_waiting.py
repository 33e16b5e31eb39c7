"""What is told of a run that waits for its turn, on the real cluster."""

import json
from typing import Any

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster

WHOLE = ("--nodes", "3", "--exclusive", "--max-requeues", "0")


@pytest.mark.parametrize("release", ["24.11", "22.05"])
def test_a_waiting_run_tells_when_it_may_start_who_is_before_it_and_where_it_is_sooner(
    request: pytest.FixtureRequest, release: str
) -> None:
    box: Cluster = request.getfixturevalue("cluster" if release == "24.11" else "cheap_cluster")
    user, other = Session(box, "waiting"), Session(box, "waiting", user="bob")
    for who, minutes in ((user, "2"), (other, "30"), (user, "20")):
        who.submit("run", "--time", minutes, "--partition", "debug", *WHOLE, "--", "sleep", "600")
    run_id = user.submit("run", "--time", "3", "--partition", "debug", *WHOLE, "--", "true")
    told: dict[str, Any] = {}

    number = user.jobs()[run_id]["job_id"]
    slurms_own = {"SLURM_TIME_FORMAT": "%Y-%m-%dT%H:%M:%SZ", "TZ": "UTC"}

    def has_slurms_estimate() -> bool:
        told.update(json.loads(user.deephpc("--json", "why", run_id).stdout))
        starts_at = told["outlook"] and told["outlook"]["starts_at"]
        return f"StartTime={starts_at} " in box.run(["scontrol", "show", "job", number], env=slurms_own).stdout

    wait_until(has_slurms_estimate, 60, lambda: str(told))
    outlook = told["outlook"]
    assert (outlook["partition"], outlook["ahead"]) == ("debug", 2)
    assert [one["partition"] for one in outlook["sooner"]] == ["short"]
    answer = user.deephpc("why", run_id).stdout
    assert "2 jobs wait before it in partition debug" in answer
    assert f"deephpc jobs cancel {run_id} && deephpc jobs rerun {run_id} --partition short" in answer
    with box.frozen("slurmctld"):
        silent = user.deephpc("why", run_id)
    assert (silent.returncode, "is PENDING" in silent.stdout) == (0, True), silent.stderr
    assert len(user.slurm_jobs("PENDING", "RUNNING")) == 3  # nothing that was tried was queued
