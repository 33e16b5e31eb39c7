"""What a person recognises in the end of a log, `why` recognises: in the words of the programs themselves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deephpc.jobs.state import JobState
from deephpc.workflows.failures import recognise
from deephpc.workflows.plan import JobPlan, NewRun, plan_job
from deephpc.workflows.request import JobOptions, load_run_request
from deephpc.workflows.why import diagnose
from tests.fakes.samples import NOON, TOKEN, a_job, settings_in

PYTHON = f"'{sys.executable}'"
ENDS = {
    "no module": (f"{PYTHON} -c 'import no_such.thing'", "has no module no_such"),
    "no module to run": (f"{PYTHON} -m no_such_tool", "has no module no_such_tool"),
    "no module, deep": (f"{PYTHON} -c 'import json.nothing'", "has no module json.nothing"),
    "no file in Python": (f"{PYTHON} -c 'open(\"/no/such file.csv\")'", "did not find /no/such file.csv"),
    "no script": (f"{PYTHON} nothing.py", "did not find"),
    "no file in cat": ("cat data/none.csv", "did not find data/none.csv"),
    "no file in ls": ("ls /no/such/folder", "did not find /no/such/folder"),
    "no file in bash": ("bash -c '. ./none.sh'", "did not find ./none.sh"),
    "no program in bash": ("bash -c no_such_program", "has no program no_such_program"),
    "no program in sh": ("sh -c no_such_program", "has no program no_such_program"),
    "full disk in Python": (
        f'{PYTHON} -c \'open("/dev/full", "w").write("x" * 100000)\'',
        "a disk is full",
    ),
    "full disk in cp": ("head -c 100000 /dev/zero | tee /dev/full >/dev/null", "a disk is full"),
    "full disk in bash": ("bash -c 'printf x >/dev/full'", "a disk is full"),
    "port taken": (
        f'{PYTHON} -c \'import socket as s; a, b = s.socket(), s.socket(); a.bind(("127.0.0.1", 0)); a.listen();'
        " b.bind(a.getsockname())'",
        "the port it wanted was taken",
    ),
    "host unknown in Python": (
        f"{PYTHON} -c 'import urllib.request; urllib.request.urlopen(\"http://no-such-host.invalid/x\")'",
        "could not reach another machine",
    ),
    "memory": (f"ulimit -v 400000; {PYTHON} -c 'bytearray(1 << 40)'", "asked for more memory than there was"),
    "files": (
        f"ulimit -n 20; {PYTHON} -c 'kept = [open(\"/dev/null\") for _ in range(30)]'",
        "opened more files than it may",
    ),
    "instruction": ("bash -c 'sh -c \"kill -ILL \\$\\$\"; true'", "lacks an instruction"),
    "library": (f"{PYTHON} -c 'import ctypes; ctypes.CDLL(\"libnothing.so.7\")'", "has no library libnothing.so.7"),
}
SAID = {
    # from logs that people published
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 146.00 MiB.": "GPU's memory",
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 76.00 MiB.": "GPU's memory",
    "ResourceExhaustedError: OOM when allocating tensor with shape[200,75,75,64] and type float on /job:localhost/"
    "replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc": "GPU's memory",
    "OOM when allocating tensor with shape[209715200,30] and type double.": "more memory than there was",
    "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17 bytes": "GPU's",
    "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU": "looked for a GPU",
    "[rank0]:[E1218 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL"
    "(SeqNum=1, OpType=BROADCAST": "ranks",
    "[E ProcessGroupNCCL.cpp:414] Some NCCL operations have failed or timed out. Due to the asynchronous": "ranks",
    "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317": "ranks",
    # as they stand in PyTorch 2.13.0, glibc 2.36, libstdc++ 12
    "AssertionError: Torch not compiled with CUDA enabled": "looked for a GPU, and the job had asked for none",
    "RuntimeError: No CUDA GPUs are available": "looked for a GPU, and the job had asked for none",
    "RuntimeError: [unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete": "ranks",
    "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that": "shared memory",
    "python3: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /x/lib.so)": "newer system",
    "OSError: [Errno 122] Disk quota exceeded: '/home/me/model.pt'": "quota is used up: /home/me/model.pt",
    "OSError: [Errno 28] No space left on device: '/dev/shm/torch_1_2'": "shared memory (/dev/shm) is full",
    "terminate called after throwing an instance of 'std::bad_alloc'": "more memory than there was",
    "PermissionError: [Errno 13] Permission denied: '/data/labels.csv'": "may not use /data/labels.csv",
    # of requests 2.34.2, curl 7.88.1, wget 1.21.3
    "requests.exceptions.ConnectionError: HTTPConnectionPool(host='no-such-host.invalid', port=80): Max retries "
    "exceeded with url: /x (Caused by NameResolutionError": "could not reach no-such-host.invalid",
    "curl: (6) Could not resolve host: no-such-host.invalid": "could not reach no-such-host.invalid",
    "wget: unable to resolve host address ‘no-such-host.invalid’": "could not reach no-such-host.invalid",
}


def plan_in(place: Path, **options: object) -> JobPlan:
    request = load_run_request(["python3", "train.py"], place, JobOptions.model_validate(options))
    new = NewRun("run-x-1a2b", TOKEN, NOON)
    return plan_job(request, settings_in(place), new, environ={"PATH": "/usr/bin", "HOME": str(place)})[0]


@pytest.mark.parametrize("name", ENDS)
def test_the_words_of_programs_that_run_here_are_recognised(tmp_path: Path, name: str) -> None:
    script, told = ENDS[name]
    environ: Mapping[str, str] = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    known = recognise(done.stderr.splitlines(), plan_in(tmp_path))
    assert known is not None, done.stderr
    assert told in known.text
    assert known.next_step


@pytest.mark.parametrize("line", SAID)
def test_the_words_of_programs_that_cannot_run_here_are_recognised(tmp_path: Path, line: str) -> None:
    known = recognise([line, "", "srun: error: c1: task 0: Exited with exit code 1"], plan_in(tmp_path))
    assert known is not None
    assert SAID[line] in known.text


@pytest.mark.parametrize(
    "line",
    [
        "epoch 3: loss 0.1",
        "ValueError: shapes (3,4) and (5,6) not aligned",
        "warning: low memory, going on",
        "no such thing as a free lunch",
        "found 3 files and 2 folders",
        "RuntimeError: expected scalar type Float but found Double",
        "",
    ],
)
def test_what_is_not_known_is_not_guessed_at(tmp_path: Path, line: str) -> None:
    assert recognise([line], plan_in(tmp_path)) is None


def test_what_stands_nearest_to_the_end_counts(tmp_path: Path) -> None:
    lines = ["ModuleNotFoundError: No module named 'wandb'", "going on without", "CUDA out of memory. Tried", "bye"]
    known = recognise(lines, None)
    assert known is not None
    assert "GPU's memory" in known.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "the Python of the node's PATH has no module torch"),
        ({"venv": "/home/me/env"}, "the Python of the venv /home/me/env has no module torch"),
        ({"modules": ["Python/3.11", "CUDA"]}, "the Python of the modules Python/3.11 CUDA has no module torch"),
    ],
)
def test_which_python_lacks_a_module_is_told(tmp_path: Path, options: dict[str, object], told: str) -> None:
    known = recognise(["ModuleNotFoundError: No module named 'torch'"], plan_in(tmp_path, **options))
    assert known is not None
    assert known.text == told
    assert "--venv" in known.next_step


def test_a_file_that_is_here_is_one_that_the_node_does_not_see(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.touch()
    lines = [f"FileNotFoundError: [Errno 2] No such file or directory: '{file}'"]
    seen = recognise(lines, plan_in(tmp_path))
    file.unlink()
    gone = recognise(lines, plan_in(tmp_path))
    assert seen is not None
    assert gone is not None
    assert ("it is here" in seen.next_step, "no such file here either" in gone.next_step) == (True, True)


def test_why_tells_it_with_the_exit_code(tmp_path: Path) -> None:
    job = a_job(tmp_path, state=JobState.FAILED, exit_code=1)
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    job.files.task(None).events.write_text(
        f'{{"event": "started", "at": "{NOON.isoformat()}", "attempt": 1, "job_id": "1"}}\n'
    )
    job.files.task(None).log.write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n" + "more\n" * 50)
    told = diagnose(job, None)
    assert told.text == "the program ended with exit code 1: the Python of its job has no module torch"
    assert "--venv DIR" in told.next_step
