"""Runs as rows of the record, and back; times as text that sorts."""

import json
from datetime import datetime, timezone
from typing import Any

from deephpc.jobs.job import Job


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
    """Return the run a row keeps."""
    return Job.model_validate({**row, "resources": json.loads(row["resources"]), "tasks": json.loads(row["tasks"])})


def text_of(at: datetime) -> str:
    """Return a time as text that sorts."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
