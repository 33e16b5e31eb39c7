"""What a module needs: who wins over it, and whether the partition has it."""

from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.catalogue.module import Module, ModuleResources
from deephpc.config import Settings, load_settings
from deephpc.errors import InputError
from deephpc.jobs.spec import Resources
from deephpc.workflows.module_resources import fit_module
from tests.fakes.samples import NOON

SITE = """
name = "mine"
scheduler = "slurm"
[defaults]
cpus_per_task = 2
memory_mib = "4G"
[partitions.cpu]
default = true
cpus_per_node = 32
memory_mib = "64G"
max_walltime = "2:00:00"
max_nodes = 2
[partitions.gpu]
cpus_per_node = 64
memory_mib = "480G"
gpus_per_node = 4
gpu_type = "nvidia_v100"
[partitions.open]
gpus_per_node = 8
"""
MODULE = Module(
    name="plankton",
    source="test",
    as_of=NOON,
    training=ModuleResources(cpus=8, memory_mb=16_000, gpus=1, gpu_compute_capability=8.0),
    inference=ModuleResources(cpus=4),
)


def settings(tmp_path: Path, user: str = "", site: str = SITE) -> Settings:
    sites = tmp_path / "config" / "deephpc" / "sites"
    sites.mkdir(parents=True, exist_ok=True)
    (sites / "mine.toml").write_text(site)
    (sites.parent / "config.toml").write_text(f'site = "mine"\n{user}')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    return load_settings(environ=environ, home=tmp_path, has_slurm=True)


def test_the_catalogue_says_what_nobody_else_does(tmp_path: Path) -> None:
    fit = fit_module(MODULE, "training", Resources(partition="gpu"), settings(tmp_path))
    assert (fit.asked.cpus_per_task, fit.asked.memory_mib, fit.asked.gpus_per_node) == (8, 15259, 1)
    assert "plankton needs" in fit.notes[0]


def test_the_command_line_wins(tmp_path: Path) -> None:
    asked = Resources(partition="cpu", cpus_per_task=1, memory_mib=100, gpus_per_node=0)
    fit = fit_module(MODULE, "training", asked, settings(tmp_path))
    assert fit.asked == asked
    assert fit.notes == ()


def test_the_users_settings_win_over_the_catalogue_and_that_over_the_sites(tmp_path: Path) -> None:
    mine = settings(tmp_path, "[defaults]\ncpus_per_task = 3\n")
    fit = fit_module(MODULE, "training", Resources(partition="gpu"), mine)
    asked = mine.resources(fit.asked)
    assert (asked.cpus_per_task, asked.memory_mib) == (3, 15259)


def test_cores_are_shared_by_the_tasks_of_a_node(tmp_path: Path) -> None:
    fit = fit_module(MODULE, "inference", Resources(tasks_per_node=3), settings(tmp_path))
    assert fit.asked.cpus_per_task == 2


def test_a_module_that_says_nothing_gets_the_defaults(tmp_path: Path) -> None:
    silent = MODULE.model_copy(update={"training": None})
    assert fit_module(silent, "training", Resources(), settings(tmp_path)).asked == Resources()


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        (
            Resources(),
            "training of plankton asks for 1 GPU per node, but partition cpu has none",
            "that fits --partition gpu or open; or ask for less: --gpus-per-node 0",
        ),
        (
            Resources(partition="gpu", gpus_per_node=5),
            "asks for 5 GPUs per node, but partition gpu has 4",
            "--partition open; or ask for less: --gpus-per-node 4",
        ),
        (
            Resources(gpus_per_node=0, cpus_per_task=40),
            "asks for 40 cores per node, but partition cpu has 32",
            "--partition gpu or open; or ask for less: --cpus-per-task 32",
        ),
        (
            Resources(gpus_per_node=0, memory_mib=100 * 1024),
            "asks for 100G of memory per node, but partition cpu has 64G",
            "--mem 64G",
        ),
        (Resources(gpus_per_node=0, nodes=3), "asks for 3 nodes, but partition cpu has a limit of 2", "--nodes 2"),
        (
            Resources(gpus_per_node=0, walltime=timedelta(hours=3)),
            "of time, but partition cpu has a limit of",
            "--time",
        ),
        (
            Resources(partition="cpu", gpus_per_node=64),
            "asks for 64 GPUs per node",
            "no partition of mine has it; or ask for less",
        ),
    ],
)
def test_what_the_partition_lacks_is_said_before_submission(
    tmp_path: Path, asked: Resources, message: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        fit_module(MODULE, "training", asked, settings(tmp_path))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_one_fitting_partition_of_several_is_enough(tmp_path: Path) -> None:
    fit = fit_module(MODULE, "training", Resources(partition="cpu,gpu"), settings(tmp_path))
    assert fit.asked.gpus_per_node == 1


def test_partitions_that_nobody_described_are_left_to_the_scheduler(tmp_path: Path) -> None:
    bare = settings(tmp_path, site='name = "mine"\n')
    assert fit_module(MODULE, "training", Resources(partition="any"), bare).asked.gpus_per_node == 1


def test_no_gpus_are_asked_for_where_the_partition_alone_decides(tmp_path: Path) -> None:
    site = SITE.replace('scheduler = "slurm"', 'scheduler = "slurm"\ngpu_request = "none"')
    assert fit_module(MODULE, "training", Resources(), settings(tmp_path, site=site)).asked.gpus_per_node is None


def test_older_gpus_than_the_module_needs_are_noted(tmp_path: Path) -> None:
    fit = fit_module(MODULE, "training", Resources(partition="gpu"), settings(tmp_path))
    assert "needs GPUs of compute capability 8, says its catalogue entry; nvidia_v100 has 7" in fit.notes[-1]
    newer = fit_module(MODULE, "training", Resources(partition="gpu", gpu_type="a100"), settings(tmp_path))
    assert len(newer.notes) == 1


def test_numbers_no_job_could_ask_for_are_passed_over(tmp_path: Path) -> None:
    wild = ModuleResources(cpus=10**9, gpus=1000, gpu_compute_capability=100.0)
    fit = fit_module(
        MODULE.model_copy(update={"training": wild}),
        "training",
        Resources(partition="gpu", gpus_per_node=1),
        settings(tmp_path),
    )
    assert fit.asked.cpus_per_task is None
    assert fit.notes == ()
