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
from deephpc.render.answer import to_json, visible
from deephpc.render.job_resources import resource_lines
from deephpc.render.job_table import draw_jobs
from deephpc.render.outlook import outlook_lines
from deephpc.render.phrases import code_of, local_time, task_counts
from deephpc.room import render_size
from deephpc.workflows.found_metrics import run_series
from deephpc.workflows.metrics import Series

if TYPE_CHECKING:  # loaded by the one command that has them: `deephpc jobs` starts without
    from deephpc.jobs.delivery import Delivery
    from deephpc.jobs.evidence import Attempt
    from deephpc.jobs.record import JobEvent, Tally
    from deephpc.workflows.detail import JobDetail, Usage
    from deephpc.workflows.plan import JobPlan
    from deephpc.workflows.why import Diagnosis

_WITH_ZONE = "%Y-%m-%d %H:%M:%S %Z"
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


def render_jobs(
    jobs: Sequence[Job], troubles: Sequence[str], now: datetime, *, as_json: bool, tally: "Tally | None" = None
) -> str:
    """Return the list of runs.

    Parameters
    ----------
    tally
        Of how many these are the newest; None where they were named one by one.
    """
    if as_json:
        counts = tally.model_dump() if tally else {}
        rows = [_job_facts(job) for job in jobs]
        return to_json("deephpc.jobs/1", {"troubles": list(troubles), **counts, "jobs": rows})
    if not jobs and tally and tally.recorded:
        return f"no run matches; {tally.recorded} recorded"
    if not jobs:
        return "no runs yet; `deephpc train --help` shows how to start one"
    return draw_jobs(jobs, now)


def describe_cut(shown: int, tally: "Tally") -> str:
    """Return how many of the runs that fit are shown, where that is not all of them; else nothing."""
    if shown == tally.matching:
        return ""
    what = "that match" if tally.matching < tally.recorded else "runs"
    return f"{shown} of {tally.matching} {what}; --limit {tally.matching} shows all"


def render_cancelled(wanted: Sequence[tuple[Job, int | None]], *, as_json: bool, is_dry: bool = False) -> str:
    """Return what was, or with `is_dry` would be, told to end, and what had ended already."""
    states = [job.state_of(task) for job, task in wanted]
    if as_json:
        rows = [
            {"run_id": job.run_id, "task": task, "told": not (state.is_final or is_dry), "state": state.value}
            for (job, task), state in zip(wanted, states, strict=True)
        ]
        return to_json("deephpc.cancelled/1", {"jobs": rows})
    names = [job.run_id if task is None else f"{job.run_id}_{task}" for job, task in wanted]
    told = "would be told to end" if is_dry else "told to end"
    fates = [f"had ended already ({state.value})" if state.is_final else told for state in states]
    return "\n".join(f"{name}: {fate}" for name, fate in zip(names, fates, strict=True))


def describe_end(job: Job) -> str:
    """Return how a run stands, in one line."""
    code = code_of(job)
    reason = f": {visible(job.reason)}" if job.reason else ""
    return (
        f"{job.run_id} {'ended' if job.state.is_final else 'is'} {job.state.value}{f', {code}' if code else ''}{reason}"
    )


def render_diagnosis(diagnosis: "Diagnosis", now: datetime, *, as_json: bool) -> str:
    """Return why a run waits or failed, when it may start, and the next step."""
    if as_json:
        return to_json("deephpc.why/1", diagnosis.model_dump(mode="json"))
    raw = (
        f" (the scheduler says {diagnosis.raw_state})" if diagnosis.raw_state not in ("", diagnosis.state.value) else ""
    )
    as_of = f", as of {local_time(diagnosis.as_of)}, from {diagnosis.source}" if diagnosis.as_of else ""
    lines = [
        f"{diagnosis.run_id} is {diagnosis.state.value}{raw}{as_of}",
        f"  {visible(diagnosis.text)}",
        *(f"  {line}" for line in outlook_lines(diagnosis.run_id, diagnosis.outlook, now)),
        f"  next: {diagnosis.next_step}",
    ]
    if diagnosis.last_lines:
        lines += ["  the end of its log:", *(f"    {visible(line)}" for line in diagnosis.last_lines)]
    return "\n".join(lines)


def render_detail(detail: "JobDetail", *, as_json: bool) -> str:
    """Return everything about one run."""
    if as_json:
        facts = detail.model_dump(mode="json", exclude={"job"}, by_alias=True)
        return to_json("deephpc.job/1", {"job": _job_facts(_shown(detail)), **facts})
    job, plan = detail.job, detail.plan
    blocks = [describe_end(_shown(detail)), _facts(detail), "\n".join(resource_lines(job, detail.granted))]
    if detail.said:
        blocks.append("the site says\n" + "\n".join(f"  {visible(line)}" for line in detail.said))
    if job.tasks and detail.task is None:
        blocks.append("tasks      " + task_counts(job))
    if detail.attempts:
        blocks.append("attempts\n" + "\n".join(_attempt_lines(detail.attempts)))
    if detail.transfers:
        blocks.append("results\n" + "\n".join(map(_transfer_line, detail.transfers)))
    if detail.usage:
        blocks.append(_usage_lines(detail.usage))
    if detail.idle:
        blocks.append(f"idle       {detail.idle}")
    if detail.metrics:
        blocks.append("metrics\n" + "\n".join(_metric_lines(detail.metrics)))
    if plan is not None and plan.source is not None:
        dirty = " with uncommitted changes (source.diff)" if plan.source.is_dirty else ""
        blocks.append(f"code       {plan.source.commit[:12] or 'no commit yet'} {plan.source.branch}{dirty}")
    edited = sorted({file for attempt in detail.attempts for file in attempt.edited})
    if edited:
        blocks.append(visible(f"edited     {', '.join(edited)}, after the submission: the newer one ran"))
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
    series = run_series(job.files.task(task))
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
    writer.writerow([*facts, *map(visible, names)])
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
    writer.writerows((visible(name), x, value) for name, points in series.items() for x, value in points)
    return out.getvalue()


def _facts(detail: "JobDetail") -> str:
    job, plan = detail.job, detail.plan
    source = f"{job.source}, {local_time(job.seen_at)}" if job.seen_at else job.source
    rows = [
        ("kind", f"{job.kind} {job.target}"),
        ("site", f"{job.site} ({job.scheduler})"),
        ("job", job.job_id or "not confirmed yet"),
        ("known from", source + (f", the scheduler says {job.raw_state}" if job.raw_state else "")),
        *(
            ("data", visible(f"{each.name} from {each.source} {each.digest or ''}".rstrip()))
            for each in (plan.data if plan else ())
        ),
        ("nodes", job.nodes),
        ("waits for", _dependencies(plan) if plan and not job.state.is_final else ""),
        ("submitted", local_time(job.submitted_at, _WITH_ZONE)),
        ("started", local_time(job.started_at, _WITH_ZONE)),
        ("ended", local_time(job.ended_at, _WITH_ZONE)),
    ]
    if plan is not None:
        rows.insert(1, ("command", shlex.join(plan.spec.command)))
        if plan.container is not None:
            image, digest = plan.container.image, plan.container.digest
            rows[2:2] = [
                ("image", image if digest in image else f"{image} {digest}"),
                ("engine", f"{plan.engine} ({plan.container.reason})"),
                ("models", str(plan.container.models or "")),
            ]
    return "\n".join(f"{name:<10} {value}" for name, value in rows if value)


def _shown(detail: "JobDetail") -> Job:
    """Return the run, or the task that was asked for as a run of its own that ended as its result says."""
    one, result = detail.job.alone(detail.task), detail.result
    if detail.task is None or result is None or not one.state.is_final:
        return one
    return one.model_copy(update={"exit_code": result.exit_code, "signal": result.signal, "reason": result.reason})


def _dependencies(plan: "JobPlan") -> str:
    return ", ".join(f"{wait.kind}:{':'.join(wait.run_ids or wait.job_ids)}" for wait in plan.spec.dependencies)


def _event_line(event: "JobEvent") -> str:
    detail = f": {event.detail}" if event.detail else ""
    return f"  {local_time(event.at)}  {event.to_state.value:<14} from {event.source}{detail}"


def _attempt_lines(attempts: "Sequence[Attempt]") -> list[str]:
    return [_attempt_line(attempt, is_last=attempt is attempts[-1]) for attempt in attempts]


_HEARD = {None: "", True: ", told that its end was near", False: ", nothing in it listened for SIGUSR1"}


def _attempt_line(attempt: "Attempt", *, is_last: bool) -> str:
    if attempt.continues:
        end = f"to be continued, exit code {attempt.exit_code} {local_time(attempt.ended_at)}"
    elif not is_last and (attempt.was_terminated or attempt.state is None):
        end = f"{'told to end' if attempt.was_terminated else 'no end recorded'}, queued again"
    elif attempt.state is not None:
        code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
        end = f"{attempt.state.value}{code} {local_time(attempt.ended_at)}"
    else:
        end = "told to end" if attempt.was_terminated else "no end recorded"
    return f"  {attempt.number}  on {attempt.nodes}, {local_time(attempt.started_at)} → {end}{_HEARD[attempt.told]}"


def _transfer_line(delivery: "Delivery") -> str:
    at = f"{delivery.files} files, {render_size(delivery.size_bytes)}, {local_time(delivery.at)}"
    who = "by the job" if delivery.by == "job" else "from a login node"
    words = {
        "waiting": "when it ends",
        "started": "the job sends them",
        "partial": f"what there was by then: {at}",
        "done": f"{at}, {who}{delivery.reason and ', '}{visible(delivery.reason)}",
        "failed": f"not all there: {visible(delivery.reason)}",
    }
    return f"  {visible(delivery.destination)}: {words[delivery.state]}"


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
    width = max(len(visible(name)) for name in metrics)
    return [
        f"  {visible(name):<{width}}  {sparkline([value for _, value in points])}  last {points[-1][1]:.6g}, "
        f"min {min(value for _, value in points):.6g}, max {max(value for _, value in points):.6g}"
        for name, points in sorted(metrics.items())
    ]


def _job_facts(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"token", "fingerprint", "submitter"})
