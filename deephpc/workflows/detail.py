"""Gathers all that is known of one run: plan, attempts, what it used and cost, metrics, where everything lies."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from deephpc.jobs.delivery import Delivery
from deephpc.jobs.evidence import Attempt, Result, load_attempts, load_result
from deephpc.jobs.job import Job
from deephpc.jobs.record import JobEvent, Record
from deephpc.jobs.run_folder import TaskFolder
from deephpc.jobs.scheduler import Scheduler, id_of_task
from deephpc.jobs.slurm_granted import Granted
from deephpc.jobs.slurm_usage import Accounted
from deephpc.jobs.submission import read_said
from deephpc.model import Model
from deephpc.workflows.batch_results import table_file
from deephpc.workflows.found_metrics import run_series
from deephpc.workflows.idle import describe_idle
from deephpc.workflows.metrics import Series
from deephpc.workflows.plan import JobPlan, load_plan
from deephpc.workflows.usage_samples import load_samples


class Usage(Model):
    """What a run was given and used, all attempts and tasks together."""

    source: str
    """accounting, or the job's own samples."""
    elapsed_s: float
    """Wall time of all attempts and tasks added up."""
    core_hours: float
    """Cores allocated times hours, used or not: what is charged."""
    gpu_hours: float
    cpu_efficiency: float | None = None
    """CPU time used over CPU time allocated, 0 to 1."""
    memory_peak_mib: float | None = None
    """Largest memory seen of one task or, sampled, of all processes on the first node."""
    memory_asked_mib: int | None = None
    """Memory on each node, as asked for."""
    gpu_utilization_percent: float | None = None
    """Mean over the samples and GPUs of the first node."""

    @property
    def memory_efficiency(self) -> float | None:
        """Peak over asked, 0 to 1."""
        if self.memory_peak_mib is None or not self.memory_asked_mib:
            return None
        return self.memory_peak_mib / self.memory_asked_mib


class JobDetail(Model):
    """One run, whole."""

    job: Job
    task: int | None = None
    plan: JobPlan | None
    result: Result | None
    attempts: tuple[Attempt, ...]
    granted: Granted | None
    """What the scheduler holds of it, or of each task of its array; None where nobody knows it."""
    said: tuple[str, ...]
    """What the site said as it took it."""
    usage: Usage | None
    idle: str
    """Nodes and GPUs that it was given and that did nothing, in words."""
    metrics: Series
    events: tuple[JobEvent, ...]
    transfers: tuple[Delivery, ...]
    """Where its results went, or are to go."""
    places: dict[str, Path]
    """Files and folders that exist, by what they are."""


def gather_detail(job: Job, task: int | None, record: Record, scheduler: Scheduler | None, now: datetime) -> JobDetail:
    """Read everything about a run, or one task of its array (login node)."""
    files = job.files.task(task)
    attempts = load_attempts(files)
    result, plan = load_result(files), load_plan(job.files)
    return JobDetail(
        job=job,
        task=task,
        plan=plan,
        result=result,
        attempts=attempts,
        granted=_granted(job, task, scheduler),
        said=read_said(job.files),
        usage=_accounted_usage(job, task, attempts, scheduler) or _sampled_usage(job, files, now),
        idle=describe_idle(plan, files) if plan is not None and job.state.is_final else "",
        metrics=run_series(files),
        events=tuple(record.events(job.run_id)),
        transfers=record.transfers.of(job.run_id),
        places={name: path for name, path in _places(job, files).items() if path.exists()},
    )


def _places(job: Job, files: TaskFolder) -> dict[str, Path]:
    return {
        "run folder": job.folder,
        "script": job.files.script,
        "log": files.log,
        "output": files.output,
        "checkpoints": files.checkpoints,
        "metrics": files.metrics,
        "result": files.result,
        **({"table": table_file(job.files)} if job.kind == "predict" else {}),
    }


def _granted(job: Job, task: int | None, scheduler: Scheduler | None) -> Granted | None:
    if scheduler is None or job.job_id is None:
        return None
    example = next(iter(job.tasks), None) if task is None else task
    rows = scheduler.granted(id_of_task(job.job_id, example))
    return next((row for row in rows if job.owns(row.name, row.submitted_at)), None)


def _accounted_usage(
    job: Job, task: int | None, attempts: Sequence[Attempt], scheduler: Scheduler | None
) -> Usage | None:
    if scheduler is None or job.job_id is None or not job.state.is_final:
        return None
    number, semicolon, cluster = job.job_id.partition(";")
    earlier = dict.fromkeys(attempt.job_id for attempt in attempts if attempt.job_id != number)  # of a chained run
    job_ids = [*(f"{one}{semicolon}{cluster}" for one in earlier), job.job_id]
    rows = [row for one in job_ids for row in scheduler.used(id_of_task(one, task))]
    rows = [row for row in rows if job.owns(row.name, row.submitted_at)]
    return usage_from_accounting(rows, job.resources.memory_mib)


def usage_from_accounting(rows: Sequence[Accounted], memory_asked_mib: int | None) -> Usage | None:
    """Add up accounting's rows, one per attempt or task (pure); None when it has none, or no CPU time yet."""
    used = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    if not used or not any(row.elapsed_s for row in rows):
        return None
    allocated = sum(row.cpus * row.elapsed_s for row in rows)
    peaks = [row.max_rss_mib for row in rows if row.max_rss_mib is not None]
    return Usage(
        source="accounting",
        elapsed_s=sum(row.elapsed_s for row in rows),
        core_hours=sum(row.cpu_hours for row in rows),
        gpu_hours=sum(row.gpu_hours for row in rows),
        cpu_efficiency=sum(used) / allocated if allocated else None,
        memory_peak_mib=max(peaks) if peaks else None,
        memory_asked_mib=memory_asked_mib,
    )


def _sampled_usage(job: Job, files: TaskFolder, now: datetime) -> Usage | None:
    if not job.tasks or files.path != job.folder:
        return _sampled(job, files, now)
    parts = [part for part in (_sampled(job, job.files.task(number), now) for number in job.tasks) if part]
    return _sum(parts) if parts else None


def _sampled(job: Job, files: TaskFolder, now: datetime) -> Usage | None:
    attempts, result = load_attempts(files), load_result(files)
    if not attempts:
        return None
    end = result.ended_at if result else (attempts[-1].ended_at or job.ended_at or now)
    elapsed = sum(_length(attempt, attempts[index + 1 :], end) for index, attempt in enumerate(attempts))
    cpus = job.resources.cpu_count
    samples = load_samples(files.usage)
    memory = [sample.rss_mib for sample in samples]
    busy = [gpu.utilization_percent for sample in samples for gpu in sample.gpus]
    cpu_s = result.cpu_s if result else (samples[-1].cpu_s if samples else None)
    last = _length(attempts[-1], (), end)
    on_first_node = cpus / job.resources.node_count
    return Usage(
        source="the job's own samples",
        elapsed_s=elapsed,
        core_hours=elapsed * cpus / 3600,
        gpu_hours=elapsed * job.resources.gpu_count / 3600,
        cpu_efficiency=cpu_s / (last * on_first_node) if cpu_s is not None and last > 0 else None,
        memory_peak_mib=max(memory) if memory else None,
        memory_asked_mib=job.resources.memory_mib,
        gpu_utilization_percent=sum(busy) / len(busy) if busy else None,
    )


def _length(attempt: Attempt, later: Sequence[Attempt], end: datetime) -> float:
    """Return an attempt's seconds; one that ended without a word is taken to have run until the next began."""
    until = attempt.ended_at or (later[0].started_at if later else end)
    return max(0.0, (until.astimezone(timezone.utc) - attempt.started_at).total_seconds())


def _sum(parts: Sequence[Usage]) -> Usage:
    efficiencies = [(part.cpu_efficiency, part.elapsed_s) for part in parts if part.cpu_efficiency is not None]
    weight = sum(elapsed for _, elapsed in efficiencies)
    peaks = [part.memory_peak_mib for part in parts if part.memory_peak_mib is not None]
    busy = [part.gpu_utilization_percent for part in parts if part.gpu_utilization_percent is not None]
    return Usage(
        source=parts[0].source,
        elapsed_s=sum(part.elapsed_s for part in parts),
        core_hours=sum(part.core_hours for part in parts),
        gpu_hours=sum(part.gpu_hours for part in parts),
        cpu_efficiency=sum(value * elapsed for value, elapsed in efficiencies) / weight if weight else None,
        memory_peak_mib=max(peaks) if peaks else None,
        memory_asked_mib=parts[0].memory_asked_mib,
        gpu_utilization_percent=sum(busy) / len(busy) if busy else None,
    )
