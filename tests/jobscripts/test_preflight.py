"""The look around inside an image: any POSIX shell, doubles for nvidia-smi and mpirun, a folder in place of /."""

import shutil
import socket
import string
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deephpc.places import shipped

SCRIPT = shipped("jobscripts") / "preflight.sh"
#: Those that are here; `make test` brings busybox.
SHELLS = {
    name: words
    for name, words in {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}.items()
    if shutil.which(name)
}
FOUR_A100 = "".join(f"{n}, GPU-{n * 11111111:08d}-aaaa, 550.54.14, 8.0, NVIDIA A100-SXM4-40GB\n" for n in range(4))
SMI = """#!/bin/sh
case $1 in
  --query-gpu=*compute_cap*) {wide} ;;
  --query-gpu=*) {narrow} ;;
  -L) printf 'GPU 0: NVIDIA A100 (UUID: GPU-0)\\n'
    printf '  MIG 1g.5gb Device %s: (UUID: MIG-%s)\\n' 0 aa-1 1 bb-2 ;;
  *) printf '| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4     |\\n' ;;
esac
"""
Look = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = SHELLS[request.param]
    return [shutil.which(words[0]) or words[0], *words[1:]]


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The / of an image: empty but for the limits every process has."""
    root = tmp_path / "inside"
    for folder in ("dev/infiniband", "proc/self", "proc/driver/nvidia", "sys/class/infiniband", "deephpc/fabric"):
        (root / folder).mkdir(parents=True)
    (root / "proc/self/limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max cpu time              unlimited            unlimited            seconds\n"
        "Max locked memory         8388608              unlimited            bytes\n"
    )
    return root


@pytest.fixture
def look(shell: list[str], inside: Path, tmp_path: Path) -> Look:
    """Run the script: look(GPUS, VENDOR, fakes, environment)."""

    def run(
        gpus: int,
        vendor: str = "nvidia",
        fakes: Mapping[str, str] | None = None,
        path: str = "/usr/bin:/bin",
        patience: int = 20,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        for name, text in {"mpirun": "#!/bin/sh\nexit 1\n", **(fakes or {})}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        (tmp_path / "tmp").mkdir(exist_ok=True)
        environment = {"PATH": f"{programs}:{path}", "TMPDIR": str(tmp_path / "tmp"), **environ}
        return subprocess.run(
            [*shell, SCRIPT, str(gpus), vendor, inside, str(patience)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def smi(table: str = FOUR_A100) -> dict[str, str]:
    return {"nvidia-smi": SMI.format(wide=f"printf '%s' '{table}'", narrow="exit 2")}


def a_library(target: Path) -> None:
    """Some shared library of this machine under another name."""
    maps = Path("/proc/self/maps").read_text().split()
    shutil.copy(next(word for word in maps if "/libm.so" in word or "/libm-" in word or "/libz.so" in word), target)


def test_a_job_without_gpus_is_not_asked_for_any(look: Look):
    done = look(0, "")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gpus=0 ib=none mpi=unknown memlock=8192KiB\n"


def test_nvidia_smi_tells_names_driver_cuda_and_capability(look: Look):
    done = look(4, fakes=smi())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpus=4 (4x NVIDIA A100-SXM4-40GB) driver=550.54.14 cuda=12.4 cc=8.0 ib=none")


def test_only_the_gpus_named_to_cuda_count(look: Look):
    done = look(2, fakes=smi(), CUDA_VISIBLE_DEVICES="0,3")
    assert done.returncode == 0
    assert done.stdout.startswith("gpus=2 (2x NVIDIA A100-SXM4-40GB) ")


@pytest.mark.parametrize("visible", ["GPU-11111111-aaaa,GPU-33333333-aaaa", "3,2", "0,1,9,2"])
def test_they_are_named_by_number_or_identifier_and_the_first_unknown_name_ends_the_list(look: Look, visible: str):
    done = look(2, fakes=smi(), CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 0
    assert done.stdout.startswith("gpus=2 ")


@pytest.mark.parametrize("visible", ["", "4", "-1", "NoDevFiles", "GPU-none"])
def test_when_none_of_them_is_here_the_job_ends_at_once(look: Look, visible: str):
    done = look(1, fakes=smi(), CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 42
    assert done.stdout.startswith("gpus=0 ")
    assert f"sees none: CUDA_VISIBLE_DEVICES={visible} names none of the 4" in done.stderr


def test_slices_of_a_gpu_are_counted_one_by_one(look: Look):
    done = look(2, fakes=smi(), CUDA_VISIBLE_DEVICES="MIG-aa-1,MIG-bb-2")
    assert (done.returncode, done.stdout[:7]) == (0, "gpus=2 ")
    assert look(3, fakes=smi(), CUDA_VISIBLE_DEVICES="MIG-aa-1,MIG-gone,MIG-bb-2").stdout.startswith("gpus=1 ")


def test_different_gpus_are_told_apart(look: Look):
    table = "0, GPU-a, 550.54.14, 8.0, NVIDIA A100\n1, GPU-b, 550.54.14, 7.5, Tesla T4\n"
    assert "gpus=2 (1x NVIDIA A100, 1x Tesla T4) " in look(2, fakes=smi(table)).stdout


def test_a_driver_before_510_knows_no_capability(look: Look):
    old = {"nvidia-smi": SMI.format(wide="exit 2", narrow="printf '0, GPU-a, 470.82.01, Tesla V100-SXM2-32GB\\n'")}
    done = look(1, fakes=old)
    assert done.returncode == 0
    assert done.stdout.startswith("gpus=1 (1x Tesla V100-SXM2-32GB) driver=470.82.01 cuda=12.4 ib=none")


def test_fewer_than_allocated_is_a_failure_with_numbers(look: Look):
    done = look(8, fakes=smi())
    assert done.returncode == 42
    assert "8 GPUs were allocated but the container sees 4" in done.stderr
    assert done.stderr.count("\n") == done.stdout.count("\n") == 1


def test_what_nvidia_smi_says_is_the_reason(look: Look):
    text = "Failed to initialize NVML: Driver/library version mismatch"
    done = look(1, fakes={"nvidia-smi": f"#!/bin/sh\necho '{text}'\nexit 18\n"})
    assert done.returncode == 42
    assert f"nvidia-smi fails: {text};" in done.stderr


def test_an_nvidia_smi_that_hangs_is_left_behind(look: Look, inside: Path, tmp_path: Path):
    (inside / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (x@y)\nGCC version:\n"
    )
    done = look(1, fakes={"nvidia-smi": "#!/bin/sh\nexec sleep 300\n"}, patience=1)
    assert done.returncode == 42
    assert done.stdout.startswith("gpus=0 driver=550.54.14 ")
    assert "nvidia-smi did not answer within 1 s" in done.stderr
    assert not list((tmp_path / "tmp").iterdir())


def test_without_nvidia_smi_the_device_files_are_opened(look: Look, inside: Path, tmp_path: Path):
    a_library(tmp_path / "libcuda.so.1")
    for number in range(2):
        (inside / f"dev/nvidia{number}").touch()
    done = look(2, LD_LIBRARY_PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpus=2 driver=unknown ib=none")
    assert look(2, LD_LIBRARY_PATH=str(tmp_path), CUDA_VISIBLE_DEVICES="1").returncode == 42


def test_a_device_file_without_its_driver_is_no_gpu(look: Look, inside: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(inside / "dev")  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind("nvidia0")
        done = look(1)
    assert done.returncode == 42
    assert "/dev/nvidia0: No such device or address" in done.stderr


def test_devices_without_a_driver_library_are_no_gpus(look: Look, inside: Path, tmp_path: Path):
    (inside / "dev/nvidia0").touch()
    (tmp_path / "libcuda.so.1").write_text("no library")
    done = look(1, LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 42
    assert "there is no driver library (libcuda.so.1) inside" in done.stderr


def test_an_image_with_nothing_in_it_is_described_all_the_same(shell: list[str], tmp_path: Path):
    done = subprocess.run(
        [*shell, SCRIPT, "1", "", tmp_path / "empty"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 42
    assert done.stdout == "gpus=0 driver=unknown ib=none mpi=none memlock=unknown\n"
    assert done.stderr.startswith("1 GPU was allocated but the container sees none: no device file of a GPU")
    assert done.stderr.count("\n") == 1


def amd(inside: Path, gpus: int) -> None:
    nodes = inside / "sys/class/kfd/kfd/topology/nodes"
    for number in range(gpus + 1):
        (nodes / str(number)).mkdir(parents=True)
        simd, target = (0, 0) if number == 0 else (416, 90010)
        (nodes / str(number) / "properties").write_text(
            f"cpu_cores_count 0\nsimd_count {simd}\ngfx_target_version {target}\n"
        )
    (inside / "dev/kfd").touch()


def test_gpus_of_amd_are_counted_from_the_kernels_list(look: Look, inside: Path):
    amd(inside, 4)
    done = look(4, "amd")
    assert done.returncode == 0
    assert done.stdout.startswith("gpus=4 (gfx90a) driver=unknown rocm=none ib=none")
    assert look(4, "").returncode == 0
    assert look(2, "amd", ROCR_VISIBLE_DEVICES="1,2").stdout.startswith("gpus=2 ")
    assert look(2, "amd", ROCR_VISIBLE_DEVICES="1").returncode == 42


def test_an_amd_gpu_without_its_device_file_is_a_failure(look: Look, inside: Path):
    amd(inside, 1)
    (inside / "dev/kfd").unlink()
    done = look(1, "amd")
    assert done.returncode == 42
    assert "/dev/kfd cannot be opened inside" in done.stderr


def test_gpus_of_others_are_counted_by_their_render_nodes(look: Look, inside: Path):
    (inside / "dev/dri").mkdir()
    for number in (128, 129):
        (inside / f"dev/dri/renderD{number}").touch()
    for vendor in ("", "intel"):
        assert look(2, vendor).stdout.startswith("gpus=2 ib=")
    assert look(3, "").returncode == 42


def test_adapters_count_when_their_device_files_are_inside(look: Look, inside: Path):
    for name in ("mlx5_0", "mlx5_1"):
        (inside / "sys/class/infiniband" / name).mkdir()
    assert "ib=none (mlx5_0,mlx5_1 has no device file inside)" in look(0, "").stdout
    (inside / "dev/infiniband/uverbs0").touch()
    assert "ib=mlx5_0,mlx5_1 verbs=" in look(0, "").stdout


@pytest.fixture
def with_adapter(inside: Path) -> Path:
    (inside / "sys/class/infiniband/mlx5_0").mkdir()
    (inside / "dev/infiniband/uverbs0").touch()
    return inside


def test_an_image_with_verbs_keeps_its_own(look: Look, with_adapter: Path, tmp_path: Path):
    a_library(tmp_path / "libibverbs.so.1")
    a_library(with_adapter / "deephpc/fabric/libibverbs.so.1")
    assert "ib=mlx5_0 verbs=image " in look(0, "", LD_LIBRARY_PATH=str(tmp_path)).stdout
    assert not (with_adapter / "deephpc/fabric.env").exists()


no_verbs_here = pytest.mark.skipif(
    subprocess.run(
        ["/bin/sh", "-c", ":"], env={"LD_PRELOAD": "libibverbs.so.1"}, capture_output=True, text=True, check=False
    ).stderr
    == "",
    reason="this machine has libibverbs itself: remove libibverbs1",
)


@no_verbs_here
def test_an_image_without_verbs_gets_the_nodes(look: Look, with_adapter: Path):
    fabric = with_adapter / "deephpc/fabric"
    a_library(fabric / "libibverbs.so.1")
    (fabric / "drivers").write_text("mlx5:rxe\n")
    assert "ib=mlx5_0 verbs=node " in look(0, "").stdout
    show = f". {with_adapter}/deephpc/fabric.env; /usr/bin/env"
    shown = subprocess.run(
        ["/bin/sh", "-c", show], env={"LD_LIBRARY_PATH": "/own"}, capture_output=True, text=True, check=True
    )
    assert f"LD_LIBRARY_PATH=/own:{fabric}\n" in shown.stdout
    assert "RDMAV_DRIVERS=mlx5:rxe\n" in shown.stdout


@no_verbs_here
def test_libraries_of_the_node_that_do_not_load_are_left_alone(look: Look, with_adapter: Path):
    (with_adapter / "deephpc/fabric/libibverbs.so.1").write_text("for a newer C library")
    assert "verbs=none (those of the node do not load in this image)" in look(0, "").stdout
    assert not (with_adapter / "deephpc/fabric.env").exists()


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("mpirun (Open MPI) 4.1.6\n\nReport bugs to http://www.open-mpi.org/community/help/", "Open MPI 4.1.6"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.6 Build 20220227 (id: 28877f3f32)", "Intel MPI 2021.6"),
        ("HYDRA build details:\n    Version:                                 4.0.2\n    CC: gcc", "MPICH 4.0.2"),
        ("something else", "unknown"),
    ],
)
def test_mpi_is_named_with_its_release(look: Look, said: str, means: str):
    done = look(0, "", fakes={"mpirun": f"#!/bin/sh\ncat <<'EOF'\n{said}\nEOF\n"})
    assert f" mpi={means} " in done.stdout


def test_the_line_is_safe_between_quotes(look: Look):
    table = '0, GPU-a, 550, 8.0, "Übel" \\ $(id) `id` \t card\n'
    done = look(2, fakes=smi(table), CUDA_VERSION='12"\n\x1b[31m')
    assert done.returncode == 42
    for line in (done.stdout, done.stderr):
        assert line.count("\n") == 1
        assert set(line.rstrip("\n")) <= set(string.printable[:95]) - set('"\\')


def test_it_names_only_what_posix_knows():
    text = SCRIPT.read_text()
    assert not any(word in text for word in ("local ", "[[", "<<<", "function ", "declare ", "$RANDOM", "<("))
