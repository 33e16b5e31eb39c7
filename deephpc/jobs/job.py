"""A run as the record keeps it: Job, and where it stands: Standing."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Sighting, job_name
from deephpc.jobs.spec import JobKind, Resources
from deephpc.jobs.state import JobState
from deephpc.model import Model

SchedulerName = Literal["slurm", "local"]

#: How long what was seen of a live run counts as how it stands now; more than two looks lie apart.
_FRESH_FOR = timedelta(seconds=30)
#: How far the clocks of this machine and of the scheduler's may lie apart.
_CLOCK_SKEW = timedelta(seconds=60)
#: How names of deephpc's jobs end.
_TOKEN = re.compile(r"\.[0-9a-f]{8}")


class Standing(Model):
    """What is known of a run's fate, and who said so. Times are aware, UTC."""

    state: JobState
    raw_state: str = ""
    """The scheduler's own word."""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    """Signal that ended the program."""
    started_at: datetime | None = None
    """Start of the newest attempt."""
    ended_at: datetime | None = None
    nodes: str = ""
    """Node list as the scheduler writes it."""
    attempt: int = 0
    """Attempts begun so far, as far as known."""
    source: str = "record"
    """Who said so: result, accounting, queue, events or record."""
    seen_at: datetime | None = None
    """When a source last knew the job."""

    def stale_since(self, now: datetime) -> datetime | None:
        """Return when a live run was last seen, where that is too long ago to tell how it stands now."""
        if self.state.is_final or self.seen_at is None or now - self.seen_at <= _FRESH_FOR:
            return None
        return self.seen_at

    def standing(self) -> "Standing":
        """Return this alone, without what a Job adds to it."""
        return self


class Job(Standing):
    """One run: who asked for what, where it lies, how it stands."""

    run_id: str
    token: str
    kind: JobKind
    target: str
    """What is run, for people."""
    site: str
    scheduler: SchedulerName
    job_id: str | None = None
    """The scheduler's id; None until it answered."""
    folder: Path
    fingerprint: str
    """Hash of the request; a repeated command finds its unfinished submission by it."""
    submitter: str = ""
    """Who is submitting, as `host pid start-time`, until the scheduler answered."""
    created_at: datetime
    submitted_at: datetime | None = None
    cancelled_at: datetime | None = None
    """When its end was asked for through deephpc."""
    resources: Resources = Resources()
    tasks: dict[int, JobState] = Field(default_factory=dict)
    """Array tasks and their states; empty for a plain job."""

    @property
    def files(self) -> RunFolder:
        """The run folder's names."""
        return RunFolder(self.folder)

    @property
    def job_name(self) -> str:
        """The name under which the job stands in the queue."""
        return job_name(self.run_id, self.token)

    def owns(self, name: str, submitted_at: datetime | None) -> bool:
        """Whether a job of this run's id is this run's.

        Ids begin anew where a controller lost its state, and come round (MaxJobId, slurm.conf(5)). The name tells;
        where somebody changed that (`scontrol update`), the time of submission does. A source may tell neither.
        """
        if not name or name == self.job_name:
            return True
        if _TOKEN.fullmatch(name[-9:]):
            return False
        return submitted_at is None or submitted_at >= self.created_at - _CLOCK_SKEW

    def own(self, sightings: Iterable[Sighting]) -> tuple[Sighting, ...]:
        """Return those of this run's id that are this run's, in the order of their submission."""
        mine = [one for one in sightings if self.owns(one.name, one.submitted_at)]
        return tuple(sorted(mine, key=lambda one: one.submitted_at or self.created_at)) if len(mine) > 1 else (*mine,)

    def each(self) -> "list[Job]":
        """Return the run itself, or each task of its array as a run of its own; what only the array has is left out."""
        return [self.alone(number) for number in sorted(self.tasks)] or [self]

    def alone(self, task: int | None) -> "Job":
        """Return the run itself (None), or one task of its array as a run of its own."""
        if task is None:
            return self
        of_the_array: dict[str, object] = {
            "tasks": {},
            "raw_state": "",
            "exit_code": None,
            "signal": None,
            "started_at": None,
            "ended_at": None,
            "reason": "",
        }
        return self.model_copy(update={**of_the_array, "run_id": f"{self.run_id}_{task}", "state": self.state_of(task)})

    def state_of(self, task: int | None) -> JobState:
        """Return how the run (None) or one task of its array stands; what was never sent has no tasks of its own."""
        return self.state if task is None or self.job_id is None else self.tasks[task]

    def standing(self) -> Standing:
        """Return how the job stands, alone."""
        return Standing.model_construct(**{name: getattr(self, name) for name in Standing.model_fields})

    def with_standing(self, standing: Standing) -> "Job":
        """Return the job as it stands now."""
        return self.model_copy(update=dict(standing))
