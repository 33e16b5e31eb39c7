"""Which variables of the submitting shell a run is given, and which of those that matter it is not (pure)."""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from deephpc.jobs.slurm_controller import CONTROLLER_VARIABLES
from deephpc.workflows.request import may_be_set

_PASSED_ON = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|LIBRARY_PATH|PYTHONPATH|VIRTUAL_ENV|CONDA_\w+"
    r"|RCLONE_CONFIG|AWS_(?:PROFILE|CONFIG_FILE|SHARED_CREDENTIALS_FILE|ENDPOINT_URL(?:_S3)?|REGION|DEFAULT_REGION|CA_BUNDLE)"
    r"|MAMBA_\w+|MODULEPATH|MODULESHOME|MODULERCFILE|MODULES_(?!LM)\w+|LMOD_(?!FAMILY_)\w+|SBATCH_\w+|SCRATCH|WORK|PROJECT"
)
#: What changes how or whether machine learning works, where the program reads it: credentials and caches of hubs and
#: trackers, threads, communication, frameworks' switches, proxies.
_MATTERS = re.compile(
    r"(?:WANDB|MLFLOW|COMET|NEPTUNE|CLEARML|AIM|HF|HUGGINGFACE|HUGGING_FACE|TRANSFORMERS|DATASETS|KAGGLE|OPENAI|ANTHROPIC)_\w+"
    r"|(?:TORCH|PYTORCH|TF|TFDS|KERAS|JAX|XLA|NCCL|GLOO|HOROVOD|UCX|FI|OMPI|CUDA|CUBLAS|CUDNN|HIP|ROCR|TRITON)_\w+"
    r"|(?:OMP|MKL|OPENBLAS|NUMEXPR|NUMBA|VECLIB)_\w+|KMP_\w+"
    r"|(?:http|https|ftp|all)_proxy|(?:HTTP|HTTPS|FTP|ALL)_PROXY|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)|GOOGLE_APPLICATION_CREDENTIALS|XDG_CACHE_HOME|PYTHONHASHSEED"
)


def is_passed_on(name: str) -> bool:
    """Whether every job inherits a variable: of the login, conda, venvs, SBATCH_…, Slurm's controller.

    Of environment modules where they are and how they are set up passes, not which are loaded: jobs load them anew.
    """
    return name in CONTROLLER_VARIABLES or _PASSED_ON.fullmatch(name) is not None


def loaded_modules(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the environment modules loaded in a shell, in their order (Lmod and Environment Modules alike)."""
    return tuple(name for name in environ.get("LOADEDMODULES", "").split(":") if name)


def chosen_names(environ: Mapping[str, str], pass_env: Sequence[str]) -> tuple[str, ...]:
    """Return the variables that the setting `pass_env` gives to every run, as `--env NAME` gives them to one.

    A pattern does not take what jobs inherit anyway (an image has a PATH of its own), nor what `--env` refuses.

    Parameters
    ----------
    pass_env
        Names, or patterns with `*`; behind a `!` those that are meant to stay here. The last that fits decides.
    """
    return tuple(
        name for name in environ if _choice(name, pass_env) is True and may_be_set(name) and not is_passed_on(name)
    )


def left_out(environ: Mapping[str, str], pass_env: Sequence[str], given: Collection[str]) -> tuple[str, ...]:
    """Return the variables that matter, are set here, and that a run is not given though nobody said so.

    Parameters
    ----------
    given
        The names of those that it is given.
    """
    return tuple(
        sorted(
            name
            for name in environ
            if _MATTERS.fullmatch(name)
            and not is_passed_on(name)
            and name not in given
            and _choice(name, pass_env) is None
        )
    )


def _choice(name: str, pass_env: Sequence[str]) -> bool | None:
    fitting = [each for each in pass_env if fnmatchcase(name, each.removeprefix("!"))]
    return not fitting[-1].startswith("!") if fitting else None
