"""Launchers: how many ranks they ask for, and what the job script is told. Pure."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc import __version__
from deephpc.jobs.launcher import LAUNCH_SCRIPTS, LAUNCHERS, launch_variables, parse_launcher, plan_launch
from deephpc.jobs.script import render_script
from deephpc.jobs.slurm_options import Dialect, render_directives
from deephpc.jobs.spec import JobSpec, LauncherName, Resources
from deephpc.places import shipped
from tests.fakes.samples import a_spec

GOLDEN = Path(__file__).parent.parent / "golden"


def launched_spec(*, in_container: bool) -> JobSpec:
    asked = Resources(nodes=2, gpus_per_node=4, cpus_per_task=8, walltime=timedelta(hours=8))
    resources, launch = plan_launch("horovod", asked, mpi="pmix", interface="ib0")
    return a_spec(
        Path("/scratch/runs/train-digits-7f3a"), "python3", "train.py", kind="train", workdir=Path("/home/me"),
        resources=resources, launch=launch, in_container=in_container,
    )  # fmt: skip


@pytest.mark.parametrize("in_container", [False, True], ids=["launched", "launched-in-image"])
def test_a_script_with_a_launcher_is_as_the_golden_file_has_it(in_container: bool, request: pytest.FixtureRequest):
    """Set WRITE_GOLDEN=1 to write the files anew, then read the difference."""
    spec = launched_spec(in_container=in_container)
    text = render_script(spec, render_directives(spec, Dialect())).replace(f"deephpc {__version__}", "deephpc VERSION")
    golden = GOLDEN / f"job-{request.node.callspec.id}.sh"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("in_container", [False, True], ids=["native", "image"])
def test_a_rendered_script_passes_shellcheck(in_container: bool, tmp_path: Path):
    spec = launched_spec(in_container=in_container)
    (tmp_path / "job.sh").write_text(render_script(spec, render_directives(spec, Dialect())), encoding="utf-8")
    program = Path(sys.executable).with_name("shellcheck")
    words = [program if program.exists() else "shellcheck", "--norc", tmp_path / "job.sh"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("name", "asked", "ranks"),
    [
        ("horovod", Resources(gpus_per_node=4), 4),
        ("torchrun", Resources(gpus_per_node=4), 4),
        ("torchrun", Resources(gpus_per_node=4, tasks_per_node=2), 2),
        ("horovod", Resources(nodes=3), 1),
        ("srun", Resources(gpus_per_node=4), 1),
        ("srun", Resources(tasks_per_node=16), 16),
    ],
)
def test_a_gpu_gets_a_rank_where_nobody_says_otherwise(name: LauncherName, asked: Resources, ranks: int):
    resources, launch = plan_launch(name, asked)
    assert resources.tasks_per_node == ranks
    assert resources.nodes == asked.node_count
    assert launch is not None
    assert launch.launcher == name


def test_the_scheduler_is_asked_for_as_many_tasks_as_there_will_be_ranks():
    directives = render_directives(launched_spec(in_container=False), Dialect())
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "#SBATCH --cpus-per-task=8"} <= set(directives)


def test_without_a_launcher_all_stays_as_it_was():
    asked = Resources(nodes=2, gpus_per_node=4)
    assert plan_launch(None, asked, mpi="pmix", interface="ib0") == (asked, None)
    assert launch_variables(a_spec(Path("/r"), "true")) == {}


def test_mpi_is_started_as_the_site_wants_for_srun_alone():
    mpi = {name: launch.mpi for name in LAUNCHERS if (launch := plan_launch(name, Resources(), mpi="pmix")[1])}
    assert mpi == {"srun": "pmix", "horovod": "none", "torchrun": "none"}
    spec = launched_spec(in_container=False)
    assert launch_variables(spec)["DEEPHPC_INTERFACE"] == "ib0"
    assert "DEEPHPC_MPI" not in launch_variables(
        spec.model_copy(update={"launch": plan_launch("srun", Resources())[1]})
    )


def test_a_word_that_names_no_launcher_is_refused_with_those_there_are():
    assert parse_launcher("none") is None
    assert parse_launcher("torchrun") == "torchrun"
    with pytest.raises(ValueError, match=r"'mpirun' is no launcher; there are auto, none, srun, horovod, torchrun"):
        parse_launcher("mpirun")


def test_every_script_it_needs_is_shipped():
    names = {path.name for pattern in LAUNCH_SCRIPTS for path in shipped("jobscripts").glob(pattern)}
    assert {"launch.sh", "launch_rank.sh", "launch_layout.sh", "launch_rendezvous.py", "listener.sh"} <= names
