"""What a job finds on its node before the image starts: a folder as the node's root, variables as Slurm sets them."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.places import shipped

SCRIPT = shipped("jobscripts") / "devices.sh"
HARNESS = """
set -u
private=$1 root=$2 gpus_wanted=$3 gpu_vendor=$4
binds=()
note() { printf '%s\\n' "$1" >&2; }
. "$5"
[ "$6" = - ] || ulimit -l "$6"
find_devices "$root"
printf 'gpu=%s\\ndriver=%s\\nfacts=%s\\n' "$gpu" "$gpu_driver" "$gpu_facts"
for word in ${binds[@]+"${binds[@]}"}; do printf 'bind=%s\\n' "$word"; done
for word in ${device_files[@]+"${device_files[@]}"}; do printf 'file=%s\\n' "$word"; done
for word in $(device_variables); do printf 'variable=%s\\n' "$word"; done
"""
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc\n"


@dataclass(frozen=True)
class Found:
    """What find_devices left behind."""

    text: str
    notes: str

    def all(self, name: str) -> list[str]:
        return [line.partition("=")[2] for line in self.text.splitlines() if line.startswith(f"{name}=")]

    def one(self, name: str) -> str:
        return self.all(name)[0]


Find = Callable[..., Found]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    root = tmp_path / "node"
    (root / "dev").mkdir(parents=True)
    return root


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    return folder


@pytest.fixture
def find(node: Path, private: Path) -> Find:
    def run(gpus: int = 2, vendor: str = "", memlock: str = "-", **environ: str) -> Found:
        words = ["bash", "-c", HARNESS, "harness", private, node, str(gpus), vendor, SCRIPT, memlock]
        done = subprocess.run(
            words, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=300, check=True
        )
        return Found(done.stdout, done.stderr)

    return run


def nvidia(node: Path, minors: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """Give the node GPUs; `minors` are theirs, in the order of PCI addresses."""
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{minor}" for minor in minors)):
        (node / "dev" / name).touch()
    (node / "dev/nvidia-caps").mkdir()
    (node / "proc/driver/nvidia").mkdir(parents=True)
    (node / "proc/driver/nvidia/version").write_text(NVRM)
    for place, minor in enumerate(minors):
        folder = node / f"proc/driver/nvidia/gpus/0000:{place + 1:02x}:00.0"
        folder.mkdir(parents=True)
        words = (
            f"Model: \t\t NVIDIA A100-SXM4-40GB\nBus Location: \t 0000:{place + 1:02x}:00.0\nDevice Minor: \t {minor}\n"
        )
        (folder / "information").write_text(words)


DRIVER_FILES = ["/dev/nvidia-caps", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"]


def test_a_node_with_nothing_gives_nothing(find: Find):
    found = find(gpus=0)
    assert (found.one("gpu"), found.one("facts"), found.all("bind"), found.all("file")) == ("", "", [], [])
    assert found.notes == ""


def test_the_vendor_is_known_by_the_device_files(find: Find, node: Path):
    nvidia(node)
    found = find(CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_GPUS="2,3")
    assert (found.one("gpu"), found.one("driver")) == ("nvidia", "550.54.14")
    assert found.one("facts") == "vendor=nvidia driver=550.54.14 SLURM_JOB_GPUS=2,3 CUDA_VISIBLE_DEVICES=0,1"


def test_an_open_kernel_module_words_its_version_otherwise(find: Find, node: Path):
    nvidia(node)
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)\n"
    (node / "proc/driver/nvidia/version").write_text(text)
    assert find().one("driver") == "570.86.15"


def test_what_the_site_says_goes_before_what_is_seen(find: Find, node: Path):
    nvidia(node)
    (node / "dev/kfd").touch()
    assert find(vendor="amd").one("gpu") == "amd"


def test_only_the_allocated_device_files_are_named(find: Find, node: Path):
    nvidia(node)
    assert find(SLURM_JOB_GPUS="1,3").all("file") == ["/dev/nvidia1", "/dev/nvidia3", *DRIVER_FILES]


def test_a_step_has_fewer_than_its_job(find: Find, node: Path):
    nvidia(node)
    assert find(SLURM_JOB_GPUS="1,3", SLURM_STEP_GPUS="3").all("file")[:2] == ["/dev/nvidia3", DRIVER_FILES[0]]


def test_slurm_counts_by_pci_address_and_the_files_need_not(find: Find, node: Path):
    nvidia(node, minors=(2, 3, 0, 1))
    assert find(SLURM_JOB_GPUS="0,1").all("file")[:2] == ["/dev/nvidia2", "/dev/nvidia3"]


@pytest.mark.parametrize("said", ["", "MIG-5fa1", "0,7", "0:1"])
def test_where_slurm_does_not_say_all_are_named(find: Find, node: Path, said: str):
    nvidia(node)
    assert find(SLURM_JOB_GPUS=said).all("file") == [*(f"/dev/nvidia{n}" for n in range(4)), *DRIVER_FILES]


def test_gpus_of_amd_come_with_their_render_nodes(find: Find, node: Path):
    (node / "dev/kfd").touch()
    (node / "dev/dri").mkdir()
    (node / "sys/module/amdgpu").mkdir(parents=True)
    (node / "sys/module/amdgpu/version").write_text("6.8.5\n")
    found = find(ROCR_VISIBLE_DEVICES="0,1")
    assert found.one("facts") == "vendor=amd driver=6.8.5 ROCR_VISIBLE_DEVICES=0,1"
    assert found.all("file") == ["/dev/kfd", "/dev/dri"]


def test_gpus_that_are_not_there_are_noted(find: Find):
    found = find(gpus=2)
    assert found.one("gpu") == ""
    assert "2 GPUs were allocated, but this node shows no device" in found.notes


def test_a_job_without_gpus_gets_no_device_of_one(find: Find, node: Path):
    nvidia(node)
    found = find(gpus=0)
    assert (found.one("gpu"), found.all("file")) == ("", [])


def test_every_variable_of_slurms_gpu_plugins_may_pass(find: Find):
    expected = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"}
    assert expected <= set(find(gpus=0).all("variable"))


def test_the_pipe_of_a_shared_gpu_is_bound(find: Find, node: Path, tmp_path: Path):
    nvidia(node)
    (tmp_path / "mps").mkdir()
    assert find(CUDA_MPS_PIPE_DIRECTORY=str(tmp_path / "mps")).all("bind") == [f"{tmp_path}/mps:{tmp_path}/mps"]
    assert find(CUDA_MPS_PIPE_DIRECTORY="/not/there").all("bind") == []


def fabric(node: Path) -> Path:
    """InfiniBand as Debian lays it out: a provider is a link to the library of the same device."""
    (node / "dev/infiniband").mkdir()
    (node / "dev/infiniband/uverbs0").touch()
    (node / "dev/gdrdrv").touch()
    libraries = (
        node
        / "usr/lib"
        / f"{subprocess.run(['uname', '-m'], capture_output=True, text=True, check=True).stdout.strip()}-linux-gnu"
    )
    (libraries / "libibverbs").mkdir(parents=True)
    for name, version in {"libibverbs": "1.14.56.1", "librdmacm": "1.3.56.1", "libmlx5": "1.25.56.1"}.items():
        (libraries / f"{name}.so.{version}").write_text(name)
        (libraries / f"{name}.so.1").symlink_to(f"{name}.so.{version}")
    (libraries / "libnl-3.so.200").write_text("libnl")
    (libraries / "libibverbs/libmlx5-rdmav34.so").symlink_to("../libmlx5.so.1.25.56.1")
    (libraries / "libibverbs/librxe-rdmav34.so").write_text("rxe")
    (node / "etc/libibverbs.d").mkdir(parents=True)
    for name in ("mlx5", "/usr/lib/libibverbs/librxe", "gone"):
        (node / "etc/libibverbs.d" / f"{name.rsplit('/', 1)[-1]}.driver").write_text(f"driver {name}\n")
    return libraries


def test_the_nodes_verbs_libraries_lie_ready_as_one_set(find: Find, node: Path, private: Path):
    fabric(node)
    found = find(gpus=0)
    assert found.all("file") == ["/dev/infiniband", "/dev/gdrdrv"]
    ready = private / "deephpc/fabric"
    names = {path.name for path in ready.iterdir()}
    assert {"libibverbs.so.1", "librdmacm.so.1", "libnl-3.so.200", "librxe-rdmav34.so"} <= names
    assert (ready / "libmlx5-rdmav34.so").resolve() == (ready / "libmlx5.so.1").resolve()
    assert all(path.resolve().parent == ready.resolve() for path in ready.iterdir())
    assert set((ready / "drivers").read_text().strip().split(":")) == {"mlx5", "rxe"}


def test_a_node_without_verbs_libraries_copies_none(find: Find, node: Path, private: Path):
    libraries = fabric(node)
    shutil.rmtree(libraries)
    assert find(gpus=0).all("file") == ["/dev/infiniband", "/dev/gdrdrv"]
    assert not (private / "deephpc").exists()


def test_a_small_memory_lock_is_noted_where_there_is_infiniband(find: Find, node: Path):
    assert find(gpus=0, memlock="64").notes == ""
    fabric(node)
    assert "only 64 KiB of memory may be locked" in find(gpus=0, memlock="64").notes
