"""`deephpc site` and `deephpc doctor` on two releases of Slurm, healthy and with faults."""

import json
from typing import Any

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster

BOXES = {"24.11": "cluster", "22.05": "cheap_cluster"}


@pytest.fixture(params=list(BOXES))
def user(request: pytest.FixtureRequest) -> Session:
    box: Cluster = request.getfixturevalue(BOXES[request.param])
    return Session(box, "sites")


def checks(user: Session, *words: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    answer = user.deephpc("--json", "doctor", *words, env=env)
    return answer.returncode, {check["name"]: check for check in json.loads(answer.stdout)["checks"]}


def test_a_probe_tells_what_the_cluster_is(user: Session) -> None:
    answer = user.deephpc("--json", "site", "probe")
    assert answer.returncode == 0, answer.stderr
    site: dict[str, Any] = json.loads(answer.stdout)["site"]
    assert site["name"] == "box"
    assert site["gpu_request"] == "gpus-per-node"
    assert site["gpu_types"] == ["a100"]
    assert site["work_dir"] == "/scratch/$USER/deephpc/runs"
    assert site["partitions"]["debug"]["default"]
    assert site["partitions"]["short"]["max_walltime"] == "PT5M"


def test_a_written_profile_is_used_from_then_on(user: Session) -> None:
    user.box.run(["rm", "-rf", f"{user.box.home('alice')}/.config/deephpc/sites"])
    answer = user.deephpc("site", "init")
    assert answer.returncode == 0, answer.stderr
    try:
        assert user.deephpc("site", "init").returncode == 2
        shown = user.deephpc("--json", "config", "show")
        settings = {each["key"]: each["value"] for each in json.loads(shown.stdout)["settings"]}
        assert (settings["site"], settings["work_dir"]) == ("box", "/scratch/alice/deephpc/runs")
    finally:
        user.box.run(["rm", "-rf", f"{user.box.home('alice')}/.config/deephpc/sites"])


def test_a_healthy_cluster_passes_also_on_its_nodes(user: Session) -> None:
    code, found = checks(user, "--nodes")
    assert code == 0
    assert found["compute node"]["outcome"] == "ok", found["compute node"]
    assert found["controller"]["outcome"] == "ok"


def test_a_frozen_controller_fails_and_leaves_no_profile(user: Session) -> None:
    box: Any = user.box
    with box.frozen("slurmctld"):
        code, found = checks(user)
        init = user.deephpc("site", "init", "frozen")
    assert code == 3
    assert found["controller"]["outcome"] == "fail"
    assert init.returncode == 3
    assert "frozen" not in user.deephpc("site", "list").stdout


def test_a_frozen_accounting_only_warns(user: Session) -> None:
    box: Any = user.box
    with box.frozen("slurmdbd"):
        code, found = checks(user)
    assert (code, found["accounting"]["outcome"]) == (0, "warn")
