"""A run as the record keeps it: Job, and where it stands: Standing."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import job_name
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState
from deephpc.model import Model

SchedulerName = Literal["slurm", "local"]


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

    def standing(self) -> "Standing":
        """Return this alone, without what a Job adds to it."""
        return self


class Job(Standing):
    """One run: who asked for what, where it lies, how it stands."""

    run_id: str
    token: str
    kind: Literal["train", "run"]
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

    def each(self) -> "list[Job]":
        """Return the run itself, or each task of its array as a run of its own; what only the array has is left out."""
        if not self.tasks:
            return [self]
        alone: dict[str, object] = {
            "tasks": {},
            "exit_code": None,
            "signal": None,
            "started_at": None,
            "ended_at": None,
            "reason": "",
        }
        return [
            self.model_copy(update={**alone, "run_id": f"{self.run_id}_{number}", "state": state})
            for number, state in sorted(self.tasks.items())
        ]

    def standing(self) -> Standing:
        """Return how the job stands, alone."""
        return Standing.model_construct(**{name: getattr(self, name) for name in Standing.model_fields})

    def with_standing(self, standing: Standing) -> "Job":
        """Return the job as it stands now."""
        return self.model_copy(update=dict(standing))
