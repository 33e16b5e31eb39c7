"""The states a run goes through, in our words (docs/reference/states.md)."""

from enum import Enum


class JobState(str, Enum):
    """Where a run stands; Slurm's own word is always kept beside it."""

    PLANNED = "PLANNED"
    STAGING = "STAGING"
    SUBMITTING = "SUBMITTING"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    DEADLINE = "DEADLINE"
    BOOT_FAIL = "BOOT_FAIL"
    LOST = "LOST"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Whether the run will never change state again by itself."""
        return self in FINAL

    @property
    def is_unsent(self) -> bool:
        """Whether the scheduler has not yet confirmed that it holds the job."""
        return self in UNSENT


UNSENT = frozenset({JobState.PLANNED, JobState.STAGING, JobState.SUBMITTING})
ACTIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.COMPLETING, JobState.UNKNOWN})
FINAL = frozenset(JobState) - UNSENT - ACTIVE
FAILURES = FINAL - {JobState.COMPLETED}

_WORST_FIRST = (
    JobState.LOST,
    JobState.NODE_FAIL,
    JobState.BOOT_FAIL,
    JobState.OUT_OF_MEMORY,
    JobState.TIMEOUT,
    JobState.DEADLINE,
    JobState.FAILED,
    JobState.PREEMPTED,
    JobState.CANCELLED,
    JobState.COMPLETED,
)
_LIVELIEST_FIRST = (
    JobState.RUNNING,
    JobState.COMPLETING,
    JobState.PENDING,
    JobState.UNKNOWN,
    JobState.SUBMITTING,
    JobState.STAGING,
    JobState.PLANNED,
)


def summarize(states: frozenset[JobState]) -> JobState:
    """Return the one state that tells how an array stands: the liveliest while any task lives, then the worst end."""
    for state in (*_LIVELIEST_FIRST, *_WORST_FIRST):
        if state in states:
            return state
    return JobState.UNKNOWN
