"""Environment modules as two systems have them: Environment Modules on one node of the real cluster, Lmod on the other.

Both are Debian's packages. Each node is login node and compute node of its system: runs are submitted and run there.
"""

from collections.abc import Iterator, Mapping

import pytest

from tests.cluster.acceptance import Session
from tests.cluster.cluster import Cluster
from tests.cluster.rootfs import LMOD

pytestmark = pytest.mark.cluster
FOLDER = "/scratch/modules"
SYSTEMS = {"Environment Modules": "c1", "Lmod": "c2"}
INIT = {"Environment Modules": "/usr/share/modules/init/bash", "Lmod": "/usr/share/lmod/lmod/init/bash"}
OF_THE_OTHER = "/usr/share/modules /etc/environment-modules /etc/profile.d/modules.sh"
CUDA = "#%Module1.0\nsetenv CUDA_HOME /opt/cuda-12\nprepend-path PATH /opt/cuda-12/bin\n"
GCC = "#%Module1.0\nsetenv GCC_HOME /opt/gcc-13\nprepend-path LD_LIBRARY_PATH /opt/gcc-13/lib\n"
SHOW = 'echo "cuda=${CUDA_HOME:-} gcc=${GCC_HOME:-} list=$LOADEDMODULES"'
ONLY_CUDA = "cuda=/opt/cuda-12 gcc= list=cuda/12"
GONE = "mkdir -p own/here && echo '#%Module1.0' >own/here/1 && module use $PWD/own && module load here/1 && rm -r own"
#: What the submitting shell does, what is asked for, the program, and what it prints.
CASES: Mapping[str, tuple[str, str, str, str]] = {
    "loaded and asked for": ("module load cuda/12", "--module cuda/12", SHOW, ONLY_CUDA),
    "loaded": ("module load gcc/13 cuda/12", "", SHOW, "cuda=/opt/cuda-12 gcc=/opt/gcc-13 list=gcc/13:cuda/12"),
    "another asked for": ("module load gcc/13", "--module cuda/12", SHOW, ONLY_CUDA),
    "loaded by the program": ("true", "", f"module load cuda/12; {SHOW}", ONLY_CUDA),
    "loaded by its script": ("true", "", "bash ./loads.sh", ONLY_CUDA),
    "swapped by the program": ("module load gcc/13", "", f"module purge; module load cuda/12; {SHOW}", ONLY_CUDA),
    "gone meanwhile": (f"{GONE} && module load cuda/12", "", SHOW, ONLY_CUDA),
    "missing": ("true", "--module no/such", SHOW, "module load no/such failed"),
}


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Iterator[Session]:
    session = Session(cluster, "modules")
    for name, text in (("cuda/12", CUDA), ("gcc/13", GCC)):
        path = cluster.on_host(f"{FOLDER}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    session.write("loads.sh", f"module load cuda/12\n{SHOW}\n")
    away = 'for each in {}; do mkdir -p "/opt/away${{each%/*}}" && mv "$each" "/opt/away$each"; done'
    cluster.root(["bash", "-c", f"{away.format(OF_THE_OTHER)} && cp -a {LMOD}/. /"], node="c2")
    yield session
    back = "rm -r /usr/share/lmod /etc/lmod /etc/profile.d/lmod.sh && cp -a /opt/away/. / && rm -r /opt/away"
    cluster.root(["bash", "-c", back], node="c2")


@pytest.fixture(scope="module")
def logs(alice: Session) -> dict[tuple[str, str], str]:
    """What each run printed, and what `why` says of it."""
    runs: dict[tuple[str, str], str] = {}
    for system, node in SYSTEMS.items():
        for case, (lines, asked, program, _) in CASES.items():
            alice.write("program.sh", program)
            run = f'deephpc run --time 5 --sbatch --nodelist={node} {asked} -- bash -c "$(cat program.sh)"'
            words = ["bash", "-c", f"export MODULEPATH={FOLDER}; . {INIT[system]}; {lines} && {run}"]
            said = alice.box.run(words, node=node, user="alice", cwd=alice.folder)
            runs[system, case] = said.stdout.strip()
    alice.deephpc("jobs", "wait", *runs.values())
    told = {key: alice.deephpc("logs", run_id).stdout for key, run_id in runs.items()}
    return {key: text + alice.deephpc("why", runs[key]).stdout for key, text in told.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_modules_are_loaded_whole_and_the_program_knows_the_command(
    logs: dict[tuple[str, str], str], system: str, case: str
) -> None:
    assert CASES[case][3] in logs[system, case]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loaded_module_that_is_not_there_any_more_is_told(logs: dict[tuple[str, str], str], system: str) -> None:
    assert "module here/1, loaded where this run was submitted" in logs[system, "gone meanwhile"]
