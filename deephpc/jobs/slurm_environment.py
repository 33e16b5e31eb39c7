"""The users' own SBATCH_… variables: those that say a resource, those that contradict what deephpc sets, and the rest.

sbatch lets a variable win over an `#SBATCH` line (sbatch(1) of Slurm 22.05 and 24.11, INPUT ENVIRONMENT VARIABLES), so
what we have read or settled ourselves must not reach it a second time.
"""

import re
from collections.abc import Mapping

_RESOURCE_FIELDS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_TIMELIMIT": "walltime",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_MEM_PER_NODE": "memory_mib",
}

#: Facts deephpc settles for every job: name, output, array, signal, restarts, environment, and not to wait for its end.
_SETTLED = frozenset(
    {
        "SBATCH_ARRAY_INX",
        "SBATCH_COMMENT",
        "SBATCH_ERROR",
        "SBATCH_EXPORT",
        "SBATCH_GET_USER_ENV",
        "SBATCH_INPUT",
        "SBATCH_JOB_NAME",
        "SBATCH_NO_REQUEUE",
        "SBATCH_OPEN_MODE",
        "SBATCH_OUTPUT",
        "SBATCH_REQUEUE",
        "SBATCH_SIGNAL",
        "SBATCH_WAIT",
    }
)

#: `4`, `a100:4` (SBATCH_GPUS_PER_NODE) or the same after `gpu:` (SBATCH_GRES).
_GPUS = re.compile(r"(?:(?P<type>[A-Za-z][\w.-]*):)?(?P<count>\d{1,4})")


def resources_from_sbatch_variables(environ: Mapping[str, str]) -> dict[str, dict[str, str | bool]]:
    """Return `{variable: {field of Resources: value}}` for the resource variables that are set.

    Values are Slurm's texts, for Resources to check. A variable set to nothing says nothing, except SBATCH_EXCLUSIVE,
    where it means yes. What Resources cannot say (SBATCH_EXCLUSIVE=user, SBATCH_GRES with more than GPUs) is left to
    sbatch.
    """
    found: dict[str, dict[str, str | bool]] = {
        variable: {field: environ[variable]} for variable, field in _RESOURCE_FIELDS.items() if environ.get(variable)
    }
    if environ.get("SBATCH_EXCLUSIVE", "user") in ("", "exclusive"):
        found["SBATCH_EXCLUSIVE"] = {"exclusive": True}
    gres = environ.get("SBATCH_GRES", "")
    for variable, text in (
        ("SBATCH_GRES", gres.removeprefix("gpu:") if gres.startswith("gpu:") else "1" if gres == "gpu" else ""),
        ("SBATCH_GPUS_PER_NODE", environ.get("SBATCH_GPUS_PER_NODE", "")),
    ):
        match = _GPUS.fullmatch(text)
        if match is not None:
            found[variable] = {
                "gpus_per_node": match["count"],
                **({"gpu_type": match["type"]} if match["type"] else {}),
            }
    return found


def contradicting_sbatch_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that are set and would undo what deephpc settles for every job."""
    return tuple(sorted(name for name in environ if name in _SETTLED))


def environment_for_sbatch(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to submit with: without what became resources and without what contradicts us.

    Every other SBATCH_… variable passes through untouched.
    """
    dropped = {*resources_from_sbatch_variables(environ), *contradicting_sbatch_variables(environ)}
    return {name: value for name, value in environ.items() if name not in dropped}
