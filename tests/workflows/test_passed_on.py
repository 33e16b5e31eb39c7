"""Which variables of the submitting shell a run is given, and which are told that it is not."""

import pytest

from deephpc.workflows.passed_on import chosen_names, is_passed_on, left_out

SHELL = {
    "PATH": "/bin",
    "LD_LIBRARY_PATH": "/opt/lib",
    "WANDB_API_KEY": "secret",
    "HF_HOME": "/scratch/hf",
    "OMP_NUM_THREADS": "4",
    "https_proxy": "http://proxy:3128",
    "NCCL_DEBUG": "INFO",
    "PS1": "$ ",
    "MY_OWN": "1",
    "SLURM_JOB_ID": "4711",
    "SBATCH_QOS": "long",
    "DEEPHPC_SITE": "box",
    "BASH_FUNC_module%%": "() { :; }",
    "EUID": "1000",
}
REFUSED = {"SLURM_JOB_ID", "SBATCH_QOS", "DEEPHPC_SITE", "BASH_FUNC_module%%", "EUID"}


@pytest.mark.parametrize(
    ("pass_env", "chosen", "missed"),
    [
        ((), (), ("HF_HOME", "NCCL_DEBUG", "OMP_NUM_THREADS", "WANDB_API_KEY", "https_proxy")),
        (("WANDB_API_KEY", "HF_*"), ("HF_HOME", "WANDB_API_KEY"), ("NCCL_DEBUG", "OMP_NUM_THREADS", "https_proxy")),
        (("MY_OWN", "!OMP_*", "!https_proxy"), ("MY_OWN",), ("HF_HOME", "NCCL_DEBUG", "WANDB_API_KEY")),
        (("*", "!WANDB_*"), tuple(sorted(SHELL.keys() - {"WANDB_API_KEY", "PATH", "LD_LIBRARY_PATH"} - REFUSED)), ()),
        (("!*", "HF_HOME"), ("HF_HOME",), ()),
    ],
)
def test_the_setting_says_what_every_run_is_given_and_what_is_not_told(
    pass_env: tuple[str, ...], chosen: tuple[str, ...], missed: tuple[str, ...]
) -> None:
    given = chosen_names(SHELL, pass_env)
    assert tuple(sorted(given)) == chosen
    assert left_out(SHELL, pass_env, given) == missed


def test_what_is_given_by_name_or_to_all_is_not_missed() -> None:
    assert left_out(SHELL, (), {"WANDB_API_KEY", "HF_HOME", "NCCL_DEBUG"}) == ("OMP_NUM_THREADS", "https_proxy")
    assert is_passed_on("LD_LIBRARY_PATH")
    assert not any(map(is_passed_on, ("WANDB_API_KEY", "HF_HOME", "MY_OWN")))
