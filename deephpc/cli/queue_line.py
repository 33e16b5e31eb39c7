"""One live line on a terminal while runs are queued: how long, what for, and when they may start."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from deephpc.cli.context import Context
    from deephpc.jobs.job import Job

#: Slurm's estimate is asked for no more often than its backfill makes a new one (bf_interval, slurm.conf(5)).
_ASK_EVERY_S = 30.0

Show = Callable[[Sequence["Job"]], None]


@contextmanager
def queue_line(here: "Context") -> Iterator[Show]:
    """Return what shows runs as they stand now: a line while some are queued, none else, nor where nobody reads it."""
    if here.json or here.options.quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # start-up time

    status = Console(stderr=True, highlight=False).status("")
    estimate = _Estimate(here)

    def show(jobs: Sequence["Job"]) -> None:
        from rich.text import Text

        from deephpc.jobs.state import JobState
        from deephpc.render.answer import visible
        from deephpc.render.outlook import waiting_line

        waiting = [job for job in jobs if job.state is JobState.PENDING]
        if not waiting:
            status.stop()
            return
        line = waiting_line(waiting, estimate.of(waiting[0]), here.clock())
        status.update(Text(visible(line), overflow="ellipsis", no_wrap=True))
        status.start()

    try:
        yield show
    finally:
        status.stop()


class _Estimate:
    """When a run may start, as last told."""

    def __init__(self, here: "Context") -> None:
        self._here = here
        self._asked = 0.0
        self._job_id: str | None = None
        self._starts_at: datetime | None = None

    def of(self, job: "Job") -> "datetime | None":
        """Return the estimate, asked for anew after a while."""
        scheduler = self._here.schedulers.get(job.scheduler)
        if job.job_id != self._job_id or time.monotonic() - self._asked >= _ASK_EVERY_S:
            outlook = scheduler.outlook(job.job_id) if scheduler and job.job_id else None
            self._starts_at = outlook.starts_at if outlook else None
            self._job_id, self._asked = job.job_id, time.monotonic()
        return self._starts_at
