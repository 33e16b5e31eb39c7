"""Failures that a person recognises at a glance in the end of a log, and what to do about each."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deephpc.jobs.slurm_reasons import Explanation
from deephpc.workflows.plan import JobPlan

_QUOTED = r"['\"‘“`](?P<what>[^'\"’”`]{1,300})['\"’”`]"
_LONGEST_LINE = 2000
_NO_INTERNET = (
    "nodes often reach no other machine: bring it beforehand on the login node "
    "(`deephpc data get`, --data, or a library's own cache)"
)
_MORE_MEMORY = "`deephpc jobs rerun RUN --mem …` with more, or let it hold less at once"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a place that is told of
_LESS_SHARED = "let it have fewer worker processes, or share by files (in PyTorch the sharing strategy file_system)"


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a line says, in the words of the program that wrote it."""

    pattern: re.Pattern[str]
    explain: Callable[[Mapping[str, str], JobPlan | None], Explanation]


def recognise(lines: Sequence[str], plan: JobPlan | None) -> Explanation | None:
    """Return what the last line of a log that is known says; None where none is.

    Parameters
    ----------
    lines
        The end of the log. What stands nearest to the end counts: programs go on after errors that they can bear.
    plan
        Tells where the program ran; None where nothing is known of that.
    """
    for line in reversed(lines):
        for failure in _FAILURES:
            found = failure.pattern.search(line[:_LONGEST_LINE])
            if found is not None:
                named = [value for value in found.groups() if value]
                return failure.explain({"what": named[0]} if named else {}, plan)
    return None


def _where(plan: JobPlan | None) -> str:
    """Return which Python, programs and libraries a run had."""
    if plan is None:
        return "its job"
    if plan.container is not None:
        return f"the image {plan.container.image}"
    environment = plan.spec.environment
    if environment.venv is not None:
        return f"the venv {environment.venv}"
    if environment.modules:
        return f"the modules {' '.join(environment.modules)}"
    return "the node's PATH"


def _lacks(what: str, plan: JobPlan | None) -> Explanation:
    given = "install it there, or give an environment that has it: --venv DIR, --module NAME, --image IMAGE"
    inside = "name an image that has it, or build one on this (`deephpc image import`)"
    return Explanation(what, inside if plan is not None and plan.container is not None else given)


def _no_module(found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    return _lacks(f"the Python of {_where(plan)} has no module {found['what']}", plan)


def _no_library(found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    return _lacks(f"{_where(plan)} has no library {found['what']}", plan)


def _no_program(found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    return _lacks(f"{_where(plan)} has no program {found['what']}", plan)


def _too_old(found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    what = f"it was built for a newer system than {_where(plan)} has ({found['what']} is missing)"
    return Explanation(what, "run it in an image of that system (--image), or install it again on this cluster")


def _no_file(found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    path = found["what"]
    text = f"it did not find {path}"
    if not path.startswith("/"):
        folder = f" {plan.spec.workdir}" if plan is not None else ""
        return Explanation(text, f"check the name: it counts from the folder the program runs in{folder}")
    if not Path(path).exists():
        return Explanation(text, "check the name: there is no such file here either")
    if plan is not None and plan.container is not None:
        return Explanation(
            f"{text} in its image", f"it is there outside: show it inside with --bind {Path(path).parent}"
        )
    return Explanation(text, "it is here: put it on a file system that the nodes share, or name it with --data")


def _no_room(found: Mapping[str, str], _plan: JobPlan | None) -> Explanation:
    path = found.get("what", "")
    if path.startswith(_SHARED_MEMORY):
        return Explanation(f"the node's shared memory ({_SHARED_MEMORY}) is full", _LESS_SHARED)
    where = f": {path} could not be written" if path.startswith("/") else ""
    return Explanation(
        f"a disk is full{where}",
        "free space there, or write elsewhere (`work_dir`, and --env TMPDIR=… for temporary files)",
    )


def _over_quota(found: Mapping[str, str], _plan: JobPlan | None) -> Explanation:
    path = found.get("what", "")
    where = f": {path} could not be written" if path.startswith("/") else ""
    return Explanation(
        f"your quota is used up{where}", "remove what you no longer need there, or set `work_dir` to a place with more"
    )


def _no_gpu(_found: Mapping[str, str], plan: JobPlan | None) -> Explanation:
    asked = plan is not None and (plan.spec.resources.gpus_per_node or 0) > 0
    if not asked:
        return Explanation(
            "it looked for a GPU, and the job had asked for none", "`deephpc jobs rerun RUN --gpus-per-node 1`"
        )
    return Explanation(
        "it found no GPU that it can use",
        f"is {_where(plan)} built for this node's GPU and driver? `nvidia-smi` in a job shows both",
    )


def _no_way(found: Mapping[str, str], _plan: JobPlan | None) -> Explanation:
    return Explanation(f"it could not reach {found.get('what', 'another machine')}", _NO_INTERNET)


def _no_right(found: Mapping[str, str], _plan: JobPlan | None) -> Explanation:
    return Explanation(
        f"it may not use {found['what']}", "`ls -l` shows whose it is; what a run keeps goes to DEEPHPC_OUTPUT_DIR"
    )


def _says(text: str, next_step: str) -> Callable[[Mapping[str, str], JobPlan | None], Explanation]:
    return lambda _found, _plan: Explanation(text, next_step)


def _failure(explain: Callable[[Mapping[str, str], JobPlan | None], Explanation], *patterns: str) -> _Failure:
    return _Failure(re.compile("|".join(patterns)), explain)


#: In the words of CPython, bash, dash and coreutils, which tests/workflows/test_failures.py runs; of curl 7.88.1, wget
#: 1.21.3 and requests 2.34.2, which were run; as they stand in glibc 2.36 and PyTorch 2.13.0 for CPUs. Those of CUDA,
#: NCCL, XLA and TensorFlow are from logs that people published: nothing here has a GPU.
_FAILURES = (
    _failure(
        _says(
            "the GPU's memory was used up",
            "give it less at once (a smaller batch), or a GPU with more memory (`deephpc site show` lists the types)",
        ),
        r"(?:CUDA|HIP) out of memory",
        r"CUDA_ERROR_OUT_OF_MEMORY",
        r"cudaErrorMemoryAllocation",
        r"OOM when allocating tensor .*device:GPU",
        r"RESOURCE_EXHAUSTED: Out of memory",
    ),
    _failure(_no_module, r"No module named '?(?P<what>[\w.]+)'?"),
    _failure(_too_old, r"version [`'](?P<what>(?:GLIBC|GLIBCXX|CXXABI)_[\w.]+)' not found"),
    _failure(_no_gpu, r"libcuda\.so\.1: cannot open"),
    _failure(
        _no_library,
        r"(?P<what>[\w.+-]+\.so[\w.]*): cannot open shared object file",
    ),
    _failure(
        _says(
            "its ranks waited for each other in vain",
            "find the rank that ended or hung first in `deephpc logs RUN`; --env NCCL_DEBUG=INFO says more, "
            "and --env NCCL_SOCKET_IFNAME=… chooses the network",
        ),
        r"Watchdog caught collective operation timeout",
        r"Some NCCL operations have failed or timed out",
        r"NCCL (?:error|timeout)",
        r"nccl(?:System|Internal|Remote|UnhandledCuda)Error",
        r"Timed out waiting \d+ms for (?:recv|send) operation",
    ),
    _failure(
        _says(
            "the port it wanted was taken, by another job of that node perhaps",
            "let it take a free port (0), or one that follows from $SLURM_JOB_ID",
        ),
        r"[Aa]ddress already in use",
        r"EADDRINUSE",
    ),
    _failure(_over_quota, rf"Disk quota exceeded(?:: {_QUOTED})?"),
    _failure(
        _says(f"the node's shared memory ({_SHARED_MEMORY}) was used up", _LESS_SHARED),
        r"DataLoader worker .*Bus error",
        r"unable to (?:open|write to|mmap) .*/torch_",
    ),
    _failure(_no_room, rf"No space left on device(?:: {_QUOTED})?"),
    _failure(
        _no_file,
        rf"No such file or directory: {_QUOTED}",
        r"can't open file '(?P<script>[^']+)'",
        r"^[\w./-]+: (?:line \d+: )?(?:cannot [a-z ]+ )?'?(?P<path>/?[^:'\s][^:']*)'?: No such file or directory",
    ),
    _failure(_no_program, r"(?:line \d+|^\w*sh|: \d+): (?:\d+: )?(?P<what>[^:\s]+): (?:command )?not found"),
    _failure(
        _no_gpu,
        r"Torch not compiled with CUDA",
        r"Found no NVIDIA driver",
        r"no CUDA-capable device",
        r"CUDA driver version is insufficient",
        r"no kernel image is available for execution",
        r"CUDA_ERROR_NO_DEVICE",
        r"No CUDA GPUs are available",
    ),
    _failure(
        _no_way,
        r"Could not resolve host: (?P<what>[\w.-]+)",
        r"[Uu]nable to resolve host address [‘'](?P<address>[\w.-]+)",
        r"host='(?P<host>[\w.-]+)'",
        r"Temporary failure in name resolution",
        r"Name or service not known",
        r"Network is unreachable",
        r"No route to host",
    ),
    _failure(
        _says("it asked for more memory than there was", _MORE_MEMORY),
        r"\bMemoryError\b",
        r"OOM when allocating tensor",
        r"Cannot allocate memory",
        r"std::bad_alloc",
        r"can't allocate memory",
        r"Unable to allocate [\d.]+ [KMGTP]iB",
    ),
    _failure(
        _says(
            "it opened more files than it may",
            "`ulimit -n 65536` in its script raises the limit, as far as the site lets it",
        ),
        r"Too many open files",
    ),
    _failure(
        _says(
            "the node's CPU lacks an instruction that the program was built for",
            "install it for an older CPU, or choose nodes that have it with --constraint",
        ),
        r"Illegal instruction",
    ),
    _failure(
        _no_right,
        rf"Permission denied: {_QUOTED}",
        r"^[\w./-]+: (?:line \d+: )?(?:cannot [a-z ]+ )?'?(?P<path>/?[^:'\s][^:']*)'?: Permission denied",
    ),
)
