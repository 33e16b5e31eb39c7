"""What a partition does not have is refused before anything is queued, for every kind of run."""

from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.config import Settings, load_settings
from deephpc.errors import InputError
from deephpc.jobs.spec import JobKind, Resources
from deephpc.workflows.partition_limits import describe_excess
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobOptions, JobRequest, load_run_request
from tests.fakes.samples import NOON, TOKEN

SITE = """
name = "mine"
scheduler = "slurm"
[partitions.debug]
default = true
max_walltime = "0:05:00"
max_nodes = 2
cpus_per_node = 8
memory_mib = "6000M"
gpus_per_node = 4
[partitions.long]
max_walltime = "2-00:00:00"
cpus_per_node = 8
memory_mib = "6000M"
[partitions.open]
"""


def settings(tmp_path: Path, site: str = SITE) -> Settings:
    folder = tmp_path / ".config" / "deephpc" / "sites"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(site)
    return load_settings(site="mine", environ={}, home=tmp_path, has_slurm=True)


def planned(tmp_path: Path, resources: Resources, kind: JobKind = "run", site: str = SITE, **more: object) -> object:
    environ = more.pop("environ", {})
    options = JobOptions.model_validate({"resources": resources, **more})
    request: JobRequest = load_run_request(("true",), tmp_path, options).model_copy(update={"kind": kind})
    return plan_job(request, settings(tmp_path, site), NewRun("run-a-0001", TOKEN, NOON), environ=environ)  # type: ignore[arg-type]


HOUR = timedelta(hours=1)
TOO_MUCH = [
    (Resources(walltime=HOUR), "01:00:00 of time", "a limit of 00:05:00", "--time 00:05:00"),
    (Resources(gpus_per_node=9), "9 GPUs per node", "has 4", "--gpus-per-node 4"),
    (Resources(nodes=3), "3 nodes", "a limit of 2", "--nodes 2"),
    (Resources(cpus_per_task=4, tasks_per_node=3), "12 cores per node", "has 8", "--cpus-per-task 2"),
    (Resources(memory_mib=900 * 1024), "900G of memory per node", "has 6000M", "--mem 6000M"),
    (Resources(partition="long", gpus_per_node=1), "1 GPU per node", "partition long has none", "--gpus-per-node 0"),
    (Resources(partition="debug,long", walltime=timedelta(days=9)), "9-00:00:00 of time", "debug", "--time"),
]


@pytest.mark.parametrize("kind", ["run", "train", "predict", "serve"])
@pytest.mark.parametrize(("resources", "asked", "has", "remedy"), TOO_MUCH)
def test_what_the_partition_lacks_is_refused_with_its_numbers(
    tmp_path: Path, resources: Resources, asked: str, has: str, remedy: str, kind: JobKind
):
    with pytest.raises(InputError) as caught:
        planned(tmp_path, resources, kind)
    assert caught.value.message.startswith("this ")
    assert f"asks for {asked}, but partition " in caught.value.message
    assert has in caught.value.message
    assert remedy in caught.value.hint
    assert "site init --force" in caught.value.hint


@pytest.mark.parametrize(
    "resources",
    [
        Resources(),
        Resources(walltime=timedelta(minutes=5), nodes=2, cpus_per_task=8, memory_mib=6000, gpus_per_node=4),
        Resources(memory_mib=0),
        Resources(partition="debug,long", walltime=HOUR),
        Resources(partition="open", gpus_per_node=0, walltime=timedelta(days=90), nodes=4000),
    ],
)
def test_what_one_of_its_partitions_has_is_planned(tmp_path: Path, resources: Resources):
    assert planned(tmp_path, resources)


@pytest.mark.parametrize(
    ("resources", "more"),
    [
        (Resources(walltime=HOUR, qos="long"), {}),
        (Resources(nodes=3), {"raw_options": ("--reservation=course",)}),
        (Resources(walltime=HOUR), {"environ": {"SBATCH_RESERVATION": "course"}}),
    ],
)
def test_a_qos_or_a_reservation_may_allow_more_time_and_nodes_but_no_more_gpus(
    tmp_path: Path, resources: Resources, more: dict[str, object]
):
    assert planned(tmp_path, resources, **more)
    with pytest.raises(InputError, match="9 GPUs per node"):
        planned(tmp_path, resources.model_copy(update={"gpus_per_node": 9}), **more)


def test_what_is_beyond_the_partition_is_said(tmp_path: Path):
    asked = Resources(walltime=HOUR, qos="long")
    said = describe_excess(asked, settings(tmp_path).site)
    assert said == "01:00:00 of time is beyond partition debug, which has a limit of 00:05:00"
    assert describe_excess(asked.model_copy(update={"gpus_per_node": 9}), settings(tmp_path).site) == ""
    assert describe_excess(Resources(walltime=timedelta(minutes=5)), settings(tmp_path).site) == ""


def test_a_site_without_known_partitions_refuses_nothing(tmp_path: Path):
    assert planned(tmp_path, Resources(gpus_per_node=64, walltime=timedelta(days=90)), site='name = "mine"\n')
