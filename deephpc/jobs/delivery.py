"""How a run's results left: what was sent where, as the events of its folder tell (`collect` in `events.jsonl`)."""

import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, ValidationError

from deephpc.jobs.run_folder import TaskFolder, read_json_lines, unwritable
from deephpc.model import Model

#: A delivery that a job began is taken for lost when nothing was heard of it this long after its time was over.
_SILENCE = timedelta(seconds=60)
DeliveryState = Literal["waiting", "started", "done", "partial", "failed"]


class Delivery(Model):
    """One way of a run's results, or of one task's, to one place."""

    destination: str = ""
    """Where they lie, the run's own folder included; empty in what a job says when it begins."""
    state: DeliveryState
    """partial: sent while the run went on."""
    by: Literal["job", "login"]
    at: AwareDatetime
    left_s: float = 0.0
    """started: how long the job has for it."""
    files: int = 0
    size_bytes: int = 0
    transferred_files: int = 0
    transferred_bytes: int = 0
    digest: str = ""
    """Of the manifest of what is there."""
    reason: str = ""
    """Why it failed, or what was left out of what is done."""

    def is_under_way(self, now: datetime) -> bool:
        """Whether the job that began it may still be at it."""
        return self.state == "started" and now < self.at + timedelta(seconds=self.left_s) + _SILENCE


def last_delivery(files: TaskFolder, destination: str) -> Delivery | None:
    """Return how the results of the last attempt last left for a place, or began to; None when they did not."""
    return delivery_of(read_json_lines(files.events), destination)


def delivery_of(events: Iterable[dict[str, Any]], destination: str) -> Delivery | None:
    """Fold events (pure): an attempt that starts makes what earlier ones delivered old."""
    last: Delivery | None = None
    for event in events:
        if event.get("event") == "started":
            last = None
        if event.get("event") != "collect" or event.get("destination", "") not in ("", destination):
            continue
        try:
            last = Delivery.model_validate({name: event[name] for name in Delivery.model_fields if name in event})
        except ValidationError:  # of another version, or half a line
            continue
    return last


def note_delivery(files: TaskFolder, delivery: Delivery, facts: dict[str, object]) -> None:
    """Add a delivery to the events of a run that writes none itself any more.

    Parameters
    ----------
    facts
        What every event tells: attempt, job_id, host.

    Raises
    ------
    SiteError
        The folder cannot be written.
    """
    at = delivery.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"at": at, "event": "collect", **facts, **delivery.model_dump(mode="json", exclude={"at", "left_s"})}
    try:
        file = os.open(files.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps(told).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise unwritable(files.path, error) from error
