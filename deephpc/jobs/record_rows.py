"""Runs as rows of the record, and back; times as text that sorts."""

import json
from datetime import datetime, timezone
from typing import Any

from deephpc.jobs.job import Job
from deephpc.jobs.state import JobState


def row_of(job: Job) -> dict[str, Any]:
    """Return a run as the row it is kept in."""
    row = job.model_dump(mode="json")
    for key in ("created_at", "submitted_at", "cancelled_at", "started_at", "ended_at", "seen_at"):
        value = getattr(job, key)
        row[key] = None if value is None else text_of(value)
    row["resources"] = job.resources.model_dump_json(exclude_none=True)
    row["tasks"] = json.dumps(row["tasks"], separators=(",", ":"))
    return row


def job_of(row: dict[str, Any]) -> Job:
    """Return the run a row keeps.

    Raises
    ------
    ValueError
        Something in it is none of ours.
    """
    tasks = {number: known_state(word) for number, word in dict(json.loads(row["tasks"] or "{}")).items()}
    resources = json.loads(row["resources"] or "{}")
    return Job.model_validate({**row, "state": known_state(row["state"]), "resources": resources, "tasks": tasks})


def known_state(word: object) -> JobState:
    """Return the state a word names; a word of another version of deephpc is UNKNOWN."""
    return JobState(word) if word in JobState.__members__ else JobState.UNKNOWN


def text_of(at: datetime) -> str:
    """Return a time as text that sorts."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
