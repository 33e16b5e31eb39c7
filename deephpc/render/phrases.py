"""Parts of what is said of a run: its exit code, its tasks, its times."""

from datetime import datetime

from deephpc.jobs.job import Job


def code_of(job: Job) -> str:
    """Return the signal or exit code a run ended with; empty where that was 0, or is not known."""
    if job.signal:
        return f"signal {job.signal}"
    return f"exit code {job.exit_code}" if job.exit_code else ""


def task_counts(job: Job) -> str:
    """Return how many tasks of an array are in which state."""
    counts: dict[str, int] = {}
    for state in job.tasks.values():
        counts[state.value] = counts.get(state.value, 0) + 1
    return "(" + ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items())) + ")"


def clock(job: Job, now: datetime) -> str:
    """Return how long a run has run, as far as is known, as `1-02:03:04`."""
    if job.started_at is None:
        return "-"
    until = job.ended_at or job.stale_since(now) or now
    seconds = max(0, int((until - job.started_at).total_seconds()))
    days, rest = divmod(seconds, 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def local_time(at: datetime | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time on the reader's clock; empty for none."""
    return at.astimezone().strftime(form) if at else ""
