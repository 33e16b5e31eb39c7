"""Runs, plans and diagnoses as tables and sentences, or JSON (docs/reference/json.md)."""

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from deephpc.jobs.job import Job
from deephpc.jobs.state import JobState
from deephpc.render.answer import draw, to_json
from deephpc.workflows.metrics import Series, load_series

if TYPE_CHECKING:  # loaded by the one command that has them: `deephpc jobs` starts without
    from deephpc.jobs.evidence import Attempt
    from deephpc.jobs.record import JobEvent
    from deephpc.workflows.detail import JobDetail, Usage
    from deephpc.workflows.plan import JobPlan
    from deephpc.workflows.why import Diagnosis

_COLOURS = {
    JobState.COMPLETED: "green",
    JobState.RUNNING: "cyan",
    JobState.COMPLETING: "cyan",
    JobState.PENDING: "yellow",
    JobState.CANCELLED: "magenta",
}
_BARS = "▁▂▃▄▅▆▇█"


def render_plan(plan: "JobPlan", script: str, *, as_json: bool) -> str:
    """Return a plan and the exact script."""
    if as_json:
        return to_json("deephpc.dry-run/1", {"plan": json.loads(plan.render()), "script": script})
    return f"{plan.render()}--- job.sh ---\n{script}".rstrip("\n")


def render_submitted(job: Job, *, as_json: bool) -> str:
    """Return the id of a run that was submitted."""
    if not as_json:
        return job.run_id
    facts = {"run_id": job.run_id, "job_id": job.job_id, "state": job.state.value, "folder": str(job.folder)}
    return to_json("deephpc.submitted/1", facts)


def render_jobs(jobs: Sequence[Job], troubles: Sequence[str], now: datetime, *, as_json: bool) -> str:
    """Return the list of runs."""
    if as_json:
        return to_json("deephpc.jobs/1", {"troubles": list(troubles), "jobs": [_job_facts(job) for job in jobs]})
    if not jobs:
        return "no runs yet; `deephpc train --help` shows how to start one"
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("RUN", "STATE", "TIME", "JOB", "NODES", "SUBMITTED", "WHY"):
        table.add_column(name, no_wrap=name not in ("NODES", "WHY"), justify="right" if name == "TIME" else "left")
    for job in jobs:
        state = job.state.value + (f" {_code(job)}" if _code(job) else "")
        colour = _COLOURS.get(job.state, "red" if job.state.is_final else "yellow")
        table.add_row(
            job.run_id,
            f"[{colour}]{state}[/]" + (f" {_task_counts(job)}" if job.tasks else ""),
            _clock(job, now),
            job.job_id or "-",
            _plain(job.nodes),
            _local_time(job.submitted_at or job.created_at),
            _plain(_why(job, is_stale=bool(troubles))),
        )
    return draw(table)


def render_cancelled(wanted: Sequence[tuple[Job, int | None]], *, as_json: bool) -> str:
    """Return what was told to end, and what had ended already."""
    rows = [
        {"run_id": job.run_id, "task": task, "told": not job.state.is_final, "state": job.state.value}
        for job, task in wanted
    ]
    if as_json:
        return to_json("deephpc.cancelled/1", {"jobs": rows})
    names = [job.run_id if task is None else f"{job.run_id}_{task}" for job, task in wanted]
    fates = ["told to end" if row["told"] else f"had ended already ({row['state']})" for row in rows]
    return "\n".join(f"{name}: {fate}" for name, fate in zip(names, fates, strict=True))


def describe_end(job: Job) -> str:
    """Return how a run stands, in one line."""
    code = _code(job)
    reason = f": {job.reason}" if job.reason else ""
    return (
        f"{job.run_id} {'ended' if job.state.is_final else 'is'} {job.state.value}{f', {code}' if code else ''}{reason}"
    )


def render_diagnosis(diagnosis: "Diagnosis", *, as_json: bool) -> str:
    """Return why a run waits or failed, and the next step."""
    if as_json:
        return to_json("deephpc.why/1", diagnosis.model_dump(mode="json"))
    raw = (
        f" (the scheduler says {diagnosis.raw_state})" if diagnosis.raw_state not in ("", diagnosis.state.value) else ""
    )
    lines = [
        f"{diagnosis.run_id} is {diagnosis.state.value}{raw}",
        f"  {diagnosis.text}",
        f"  next: {diagnosis.next_step}",
    ]
    if diagnosis.last_lines:
        lines += ["  the end of its log:", *(f"    {line}" for line in diagnosis.last_lines)]
    return "\n".join(lines)


def render_detail(detail: "JobDetail", *, as_json: bool) -> str:
    """Return everything about one run."""
    if as_json:
        facts = detail.model_dump(mode="json", exclude={"job"}, by_alias=True)
        return to_json("deephpc.job/1", {"job": _job_facts(detail.job), **facts})
    job, plan = detail.job, detail.plan
    blocks = [describe_end(job), _facts(detail)]
    if job.tasks and detail.task is None:
        blocks.append("tasks      " + _task_counts(job))
    if detail.attempts:
        blocks.append("attempts\n" + "\n".join(_attempt_line(attempt) for attempt in detail.attempts))
    if detail.usage:
        blocks.append(_usage_lines(detail.usage))
    if detail.metrics:
        blocks.append("metrics\n" + "\n".join(_metric_lines(detail.metrics)))
    if plan is not None and plan.source is not None:
        dirty = " with uncommitted changes (source.diff)" if plan.source.is_dirty else ""
        blocks.append(f"code       {plan.source.commit[:12] or 'no commit yet'} {plan.source.branch}{dirty}")
    if detail.events:
        blocks.append("history\n" + "\n".join(_event_line(event) for event in detail.events))
    blocks.append("places\n" + "\n".join(f"  {name:<12} {path}" for name, path in detail.places.items()))
    return "\n\n".join(blocks)


def render_export(jobs: Sequence[Job], metrics: Mapping[str, Mapping[str, float]], *, as_json: bool) -> str:
    """Return runs, and each task of their arrays, with the last value of each metric."""
    if not as_json:
        return _csv(jobs, metrics)
    rows = [{**_job_facts(job), "metrics": metrics.get(job.run_id, {})} for job in jobs]
    return to_json("deephpc.export/1", {"jobs": rows}) + "\n"


def render_series(job: Job, task: int | None, *, as_json: bool) -> str:
    """Return the metrics of one run, point by point."""
    series = load_series(job.files.task(task).metrics)
    if not as_json:
        return _series_csv(series)
    return to_json("deephpc.metrics/1", {"run_id": job.run_id, "metrics": series}) + "\n"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve of at most `width` characters; a long series is averaged in equal parts."""
    if len(values) > width:
        edges = [round(index * len(values) / width) for index in range(width + 1)]
        values = [math.fsum(value / (b - a) for value in values[a:b]) for a, b in pairwise(edges)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    step = (high / len(_BARS) - low / len(_BARS)) or 1.0  # divided first: the span itself may be too large for a float
    return "".join(_BARS[min(len(_BARS) - 1, int(value / step - low / step))] for value in values)


def _csv(jobs: Sequence[Job], metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return one line per run, one column per fact, then one per metric with its last value."""
    names = sorted({name for values in metrics.values() for name in values})
    facts = (
        "run_id",
        "kind",
        "target",
        "state",
        "exit_code",
        "site",
        "job_id",
        "submitted_at",
        "started_at",
        "ended_at",
        "nodes",
    )
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*facts, *names])
    for job in jobs:
        row = job.model_dump(mode="json")
        values = metrics.get(job.run_id, {})
        writer.writerow([*(row[fact] for fact in facts), *(values.get(name, "") for name in names)])
    return out.getvalue()


def _series_csv(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return `metric,x,value` lines of one run."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["metric", "x", "value"])
    writer.writerows((name, x, value) for name, points in series.items() for x, value in points)
    return out.getvalue()


def _facts(detail: "JobDetail") -> str:
    job, plan = detail.job, detail.plan
    source = f"{job.source}, {_local_time(job.seen_at)}" if job.seen_at else job.source
    rows = [
        ("kind", f"{job.kind} {job.target}"),
        ("site", f"{job.site} ({job.scheduler})"),
        ("job", job.job_id or "not confirmed yet"),
        ("known from", source + (f", the scheduler says {job.raw_state}" if job.raw_state else "")),
        ("asked for", job.resources.describe() or "the site's defaults"),
        ("nodes", job.nodes),
        ("submitted", _local_time(job.submitted_at)),
        ("started", _local_time(job.started_at)),
        ("ended", _local_time(job.ended_at)),
    ]
    if plan is not None:
        rows.insert(1, ("command", shlex.join(plan.spec.command)))
    return "\n".join(f"{name:<10} {value}" for name, value in rows if value)


def _event_line(event: "JobEvent") -> str:
    detail = f": {event.detail}" if event.detail else ""
    return f"  {_local_time(event.at)}  {event.to_state.value:<14} from {event.source}{detail}"


def _attempt_line(attempt: "Attempt") -> str:
    if attempt.state is not None:
        code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
        end = f"{attempt.state.value}{code} {_local_time(attempt.ended_at)}"
    else:
        end = "told to end" if attempt.was_terminated else "no end recorded"
    return f"  {attempt.number}  on {attempt.nodes}, {_local_time(attempt.started_at)} → {end}"


def _usage_lines(usage: "Usage") -> str:
    lines = [f"cost       {usage.core_hours:.3f} core-hours, {usage.gpu_hours:.3f} GPU-hours ({usage.source})"]
    if usage.cpu_efficiency is not None:
        lines.append(f"CPU        {usage.cpu_efficiency:.0%} of what was allocated")
    if usage.memory_peak_mib is not None:
        share = f", {usage.memory_efficiency:.0%} of what was asked for" if usage.memory_efficiency is not None else ""
        lines.append(f"memory     {usage.memory_peak_mib:.0f} MiB at most{share}")
    if usage.gpu_utilization_percent is not None:
        lines.append(f"GPUs       {usage.gpu_utilization_percent:.0f} % busy")
    return "\n".join(lines)


def _metric_lines(metrics: Series) -> list[str]:
    width = max(len(name) for name in metrics)
    return [
        f"  {name:<{width}}  {sparkline([value for _, value in points])}  last {points[-1][1]:.6g}, "
        f"min {min(value for _, value in points):.6g}, max {max(value for _, value in points):.6g}"
        for name, points in sorted(metrics.items())
    ]


def _job_facts(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"token", "fingerprint", "submitter"})


def _task_counts(job: Job) -> str:
    counts: dict[str, int] = {}
    for state in job.tasks.values():
        counts[state.value] = counts.get(state.value, 0) + 1
    return "(" + ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items())) + ")"


def _code(job: Job) -> str:
    if job.signal:
        return f"signal {job.signal}"
    return f"exit code {job.exit_code}" if job.exit_code else ""


def _why(job: Job, *, is_stale: bool) -> str:
    """Return the reason; where a source did not answer, also from when the state is."""
    if not is_stale or job.state.is_final or job.seen_at is None:
        return job.reason
    return f"{job.reason} (as of {_local_time(job.seen_at)})".strip()


def _clock(job: Job, now: datetime) -> str:
    if job.started_at is None:
        return "-"
    seconds = max(0, int(((job.ended_at or now) - job.started_at).total_seconds()))
    days, rest = divmod(seconds, 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def _local_time(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
