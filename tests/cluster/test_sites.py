"""Sites of other shapes: a policy that moves, speaks and refuses, whole nodes, wrappers that talk, what is hidden."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster

#: As job_submit.lua of sites is: it sorts by what is asked for, tells of it, and refuses with a link.
POLICY = """\
function slurm_job_submit(job, partitions, uid)
  if job.time_limit == 1 then
    slurm.log_user("jobs of a minute are refused: join them (https://example.org/arrays)")
    return slurm.ERROR
  end
  if job.gres ~= nil or job.tres_per_node ~= nil then
    job.partition = "gpu"
    job.time_limit = 7
    slurm.log_user("GPU jobs go to partition gpu; yours was moved there\\nproj1 has 1200 core-hours left")
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid) return slurm.SUCCESS end
return slurm.SUCCESS
"""
SAID = ["GPU jobs go to partition gpu; yours was moved there", "proj1 has 1200 core-hours left"]
PRIVATE = "accounts,events,jobs,nodes,partitions,reservations,usage,users"
#: Wrappers that greet on stdout, and warn on stderr, before the real program answers.
WRAPPER = "#!/bin/sh\necho 'Welcome to the 1 cluster'\necho\necho 'maintenance on 12_1' >&2\nexec /usr/bin/{} \"$@\"\n"
RUN = ("run", "--time", "5", "--max-requeues", "0")
WAITS = ("sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.2; done')


@pytest.fixture(params=["24.11", "22.05"])
def box(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue("cluster" if request.param == "24.11" else "cheap_cluster")
    return found


@pytest.fixture
def site() -> Iterator[ExitStack]:
    """What a test changes of a cluster, until it ends."""
    with ExitStack() as stack:
        yield stack


def walk(user: Session, *more: str) -> dict[str, dict[str, Any]]:
    """Go through the lives of jobs: one completes, one is cancelled as it runs, one while it is held; return them."""
    words = (*RUN, *more)
    good = user.submit(*words, "--", "echo", "done")
    running = user.submit(*words, "--", *WAITS, "never")
    held = user.submit(*words, "--sbatch=--hold", "--", "true")
    user.wait_for(running, ["RUNNING"])
    assert "release" in user.deephpc("why", held).stdout
    assert user.deephpc("jobs", "cancel", running, held).returncode == 0
    assert user.deephpc("jobs", "wait", good).returncode == 0
    assert user.deephpc("jobs", "wait", running, held).returncode == 6
    assert "done" in user.deephpc("logs", good).stdout
    details = {run_id: user.job(run_id) for run_id in (good, running, held)}
    assert [detail["job"]["state"] for detail in details.values()] == ["COMPLETED", "CANCELLED", "CANCELLED"]
    assert "LOST" not in {event["to_state"] for detail in details.values() for event in detail["events"]}
    assert all(user.deephpc("why", run_id).returncode == 0 for run_id in details)
    return details


def test_a_policy_that_moves_speaks_and_refuses_is_told_where_all_is_private(box: Cluster, site: ExitStack) -> None:
    site.enter_context(box.policy(POLICY, PrivateData=PRIVATE))
    box.wait_idle()
    user = Session(box, "policy")
    details = walk(user, "--gpus-per-node", "1")
    for detail in details.values():
        granted = detail["granted"]
        assert detail["said"] == SAID
        assert (granted["partition"], granted["walltime"], granted["gpus"]) == ("gpu", "PT7M", 1)
    moved = user.deephpc(*RUN, "--gpus-per-node", "1", "--", "true")
    assert moved.stderr.splitlines() == [f"note: the site says: {line}" for line in SAID]
    shown = user.deephpc("jobs", "show", moved.stdout.strip()).stdout
    assert "the site says\n" + "".join(f"  {line}\n" for line in SAID) in shown
    assert "  time limit  00:05:00    00:07:00\n" in shown
    looked = user.deephpc("doctor")
    assert looked.returncode == 0, looked.stdout
    assert "this site shows them to nobody" in looked.stdout
    refused = user.deephpc("run", "--time", "1", "--", "true")
    assert (refused.returncode, "join them (https://example.org/arrays)" in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize("box", ["24.11"], indirect=True)
def test_whole_nodes_of_threads_without_accounting_are_a_site_like_any_other(box: Cluster, site: ExitStack) -> None:
    site.enter_context(box.whole_nodes(threads=2))
    site.enter_context(box.without_accounting())
    box.wait_idle()
    user = Session(box, "whole")
    details = walk(user, "--cpus-per-task", "2")
    good, running, _ = (detail["granted"] for detail in details.values())
    assert (good["cpus"], running["cpus"], good["account"]) == (box.layout.cpus, box.layout.cpus, "")


@pytest.mark.parametrize("box", ["22.05"], indirect=True)
def test_wrappers_that_talk_and_a_hidden_partition_are_no_hindrance(box: Cluster, site: ExitStack) -> None:
    for name, more in (("secret", "hidden=yes allowgroups=proj"), ("theirs", "allowgroups=bob")):
        box.root(f"scontrol create partitionname={name} nodes=ALL maxtime=7:00 {more}")
        site.callback(box.root, f"scontrol delete partitionname={name}")
    site.callback(box.calm)
    user = Session(box, "wrapped")
    wrappers = f"{user.folder}/bin"
    box.run(["mkdir", wrappers])
    for name in ("sbatch", "squeue", "sacct", "scancel"):
        box.run(["chmod", "755", user.write(f"bin/{name}", WRAPPER.format(name))])
    user.env["PATH"] = f"{wrappers}:{box.home('alice')}/deephpc-venv/bin:/usr/bin:/bin"
    for detail in walk(user, "--partition", "secret").values():
        assert detail["granted"]["partition"] == "secret"
        assert detail["said"] == ["Welcome to the 1 cluster", "maintenance on 12_1"]
    array = user.submit(*RUN, "--array", "0-2", "--", "true")
    assert user.deephpc("jobs", "wait", array).returncode == 0
    assert user.deephpc("site", "init", "hidden").returncode == 0
    answers = [
        user.deephpc("--site", "hidden", *RUN, "--partition", each, "--", "true") for each in ("secret", "theirs")
    ]
    box.run(["rm", f"{box.home('alice')}/.config/deephpc/sites/hidden.toml"])
    assert [answer.returncode for answer in answers] == [0, 2], answers
    assert "has no partition 'theirs'" in answers[1].stderr
