"""When a waiting run may start, in words: for `why`, and in one line while it is waited for."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from deephpc.jobs.job import Job

if TYPE_CHECKING:
    from deephpc.jobs.slurm_outlook import Outlook

_SOON = timedelta(minutes=1)


def outlook_lines(run_id: str, outlook: "Outlook | None", now: datetime) -> list[str]:
    """Return what Slurm tells of a run's start, and how to have it sooner; nothing where it tells nothing."""
    if outlook is None:
        return []
    lines = [f"estimated start: {_about(outlook.starts_at, now)}, as the queue stands"] if outlook.starts_at else []
    if outlook.ahead is not None:
        jobs = "1 job waits" if outlook.ahead == 1 else f"{outlook.ahead or 'no'} jobs wait"
        lines.append(f"{jobs} before it in partition {outlook.partition}")
    for start in outlook.sooner[:1]:
        others = ", ".join(one.partition for one in outlook.sooner[1:])
        others = f" (so could {others})" if others else ""
        lines += [
            f"partition {start.partition} could start it {_about(start.starts_at, now)}{others}:",
            f"  deephpc jobs cancel {run_id} && deephpc jobs rerun {run_id} --partition {start.partition}",
        ]
    return lines


def waiting_line(waiting: Sequence[Job], starts_at: datetime | None, now: datetime) -> str:
    """Return how long runs have been queued, what the first of them waits for, and when that may start."""
    job = waiting[0]
    of_many = f" {len(waiting)} runs, {job.run_id}" if len(waiting) > 1 else ""
    about = f"; {_about(starts_at, now)}" if starts_at else ""
    return f"queued{of_many} {_age(now - (job.submitted_at or job.created_at))}: {job.reason or 'no reason yet'}{about}"


def _about(at: datetime, now: datetime) -> str:
    """Return a time on the reader's clock, with its date where that is another day."""
    if at - now < _SOON:
        return "any moment"
    here = at.astimezone()
    return f"about {here:%H:%M}" if here.date() == now.astimezone().date() else f"about {here:%a %Y-%m-%d %H:%M}"


def _age(passed: timedelta) -> str:
    minutes = max(0, int(passed.total_seconds())) // 60
    if minutes < 60:
        return f"{minutes} min" if minutes else "less than 1 min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
