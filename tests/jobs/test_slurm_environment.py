from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_environment import (
    contradicting_sbatch_variables,
    environment_for_sbatch,
    resources_from_sbatch_variables,
)


def test_resource_variables_become_fields() -> None:
    environ = {"SBATCH_ACCOUNT": "p", "SBATCH_TIMELIMIT": "10", "SBATCH_QOS": "", "SBATCH_EXCLUSIVE": ""}
    assert resources_from_sbatch_variables(environ) == {
        "SBATCH_ACCOUNT": {"account": "p"},
        "SBATCH_TIMELIMIT": {"walltime": "10"},
        "SBATCH_EXCLUSIVE": {"exclusive": True},
    }


def test_gpus_are_read_in_both_notations() -> None:
    assert resources_from_sbatch_variables({"SBATCH_GRES": "gpu:a100:3"}) == {
        "SBATCH_GRES": {"gpus_per_node": "3", "gpu_type": "a100"}
    }
    assert resources_from_sbatch_variables({"SBATCH_GPUS_PER_NODE": "2"}) == {
        "SBATCH_GPUS_PER_NODE": {"gpus_per_node": "2"}
    }


def test_what_resources_cannot_say_is_left_to_sbatch() -> None:
    environ = {"SBATCH_EXCLUSIVE": "user", "SBATCH_GRES": "gpu:2,ssd:1", "SBATCH_HINT": "nomultithread"}
    assert resources_from_sbatch_variables(environ) == {}
    assert environment_for_sbatch(environ) == environ


def test_contradicting_variables_do_not_reach_sbatch() -> None:
    environ = {"SBATCH_OUTPUT": "x", "SBATCH_JOB_NAME": "y", "SBATCH_PARTITION": "p", "PATH": "/bin"}
    assert contradicting_sbatch_variables(environ) == ("SBATCH_JOB_NAME", "SBATCH_OUTPUT")
    assert environment_for_sbatch(environ) == {"PATH": "/bin"}


@given(st.dictionaries(st.sampled_from(["SBATCH_GRES", "SBATCH_GPUS_PER_NODE", "SBATCH_EXCLUSIVE"]), st.text()))
def test_any_text_is_read_or_left_to_sbatch(environ: dict[str, str]) -> None:
    read = resources_from_sbatch_variables(environ)
    assert set(read) | set(environment_for_sbatch(environ)) == set(environ)
