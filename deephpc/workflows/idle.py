"""Names nodes and GPUs that a run was given and did nothing with."""

from deephpc.jobs.run_folder import TaskFolder
from deephpc.workflows.launcher_choice import starts_ranks
from deephpc.workflows.plan import JobPlan
from deephpc.workflows.usage_samples import load_samples

_LEAST_SAMPLES = 3  # the sampler's first three come within seven seconds


def describe_idle(plan: JobPlan, files: TaskFolder) -> str:
    """Return what was idle, such as `1 of its 2 nodes, GPUs 1, 2 and 3 of the first node`; empty where nothing was.

    A node is idle where one process was started and its program starts none elsewhere; a GPU where no sample of
    nvidia-smi saw it busy (docs/reference/run-folder.md, `usage.jsonl`).
    """
    request, nodes = plan.request, plan.spec.resources.node_count
    found = []
    if (
        nodes > 1
        and request.kind in ("train", "run")
        and plan.spec.launch is None
        and not starts_ranks(request.command, request.workdir, nodes)
    ):
        found.append(f"{nodes - 1} of its {nodes} nodes")
    samples = load_samples(files.usage)
    busy: dict[int, float] = {}
    for gpu in (gpu for sample in samples for gpu in sample.gpus):
        busy[gpu.index] = max(gpu.utilization_percent, busy.get(gpu.index, 0.0))
    idle = [str(index) for index, most in sorted(busy.items()) if not most]
    if idle and len(samples) >= _LEAST_SAMPLES:
        found.append(f"GPU{'s' if len(idle) > 1 else ''} {', '.join(idle)} of the first node")
    return ", ".join(found)
