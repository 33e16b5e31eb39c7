"""Which Slurm is talked to: the clusters that are meant, and the variables by which its commands find a controller.

sbatch reads SBATCH_CLUSTERS and SLURM_CLUSTERS, squeue, scancel, scontrol and sinfo the second alone, sacct neither
(the programs of Slurm 22.05 and 24.11). So they are settled once, here, and jobs are sent and looked up by option.
"""

from collections.abc import Iterable, Mapping, Sequence

#: How every one of Slurm's commands finds its controller and proves who one is; all of them get the same.
CONTROLLER_VARIABLES = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_JWKS"})
#: What names the clusters that are meant; the first that is set counts, as for sbatch.
CLUSTER_VARIABLES = ("SBATCH_CLUSTERS", "SLURM_CLUSTERS")
#: Every cluster that there is, for sbatch, squeue and scancel.
ALL_CLUSTERS = "all"
_OPTIONS = ("--clusters=", "--cluster=")


def clusters_meant(environ: Mapping[str, str], raw_options: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the clusters a job may go to, as the user's own sbatch would settle it; empty for the one we are on.

    Parameters
    ----------
    raw_options
        The user's own words for sbatch, as `check_raw_options` returns them.
    """
    asked = [word.partition("=")[2] for word in raw_options if is_cluster_option(word)]
    texts = (*asked, *(environ.get(name, "") for name in CLUSTER_VARIABLES))
    text = next((text for text in texts if text.strip(" ,")), "")
    return tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))


def is_cluster_option(word: str) -> bool:
    """Whether a word for sbatch names clusters."""
    return word.startswith(_OPTIONS)


def on_clusters(clusters: Iterable[str]) -> list[str]:
    """Return the option that sends a command of Slurm's to clusters; none for the one we are on."""
    names = ",".join(name for name in clusters if name)
    return [f"--clusters={names}"] if names else []


def without_clusters(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that names no cluster."""
    return {name: value for name, value in environ.items() if name not in CLUSTER_VARIABLES}
