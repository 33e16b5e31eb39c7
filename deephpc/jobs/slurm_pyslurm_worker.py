"""The only user of pyslurm, as a short-lived process of its own: reads one JSON request, prints one JSON answer.

Slurm's library ends the process it lives in when it finds no configuration, retries for minutes when a daemon is frozen
and cannot be interrupted, and is loaded with its symbols global; none of that may happen to deephpc itself.

Requests: `{"do": "version"}`, `{"do": "queue"}`, `{"do": "accounting", "filter": {…}}`, `{"do": "cancel", "ids": […]}`.
Source: pyslurm 24.11, pyslurm/core/job/job.pyx, pyslurm/db/job.pyx and pyslurm/db/job.pxd.
"""

import json
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

#: What we read of a job, with the attribute's name in the queue and in accounting.
_FIELDS = {
    "id": ("id", "id"),
    "name": ("name", "name"),
    "state": ("state", "state"),
    "reason": ("state_reason", "state_reason"),
    "array_id": ("array_id", "array_id"),
    "array_task_id": ("array_task_id", "array_task_id"),
    "array_tasks_waiting": ("array_tasks_waiting", "array_tasks_waiting"),
    "submitted_at": ("submit_time", "submit_time"),
    "started_at": ("start_time", "start_time"),
    "ended_at": ("end_time", "end_time"),
    "exit_code": ("exit_code", "exit_code"),
    "signal": ("exit_code_signal", "exit_code_signal"),
    "cpus": ("cpus", "cpus"),
    "nodes": ("allocated_nodes", "nodelist"),
}


def answer(request: dict[str, Any]) -> object:
    """Do what is asked with pyslurm."""
    import pyslurm

    if request["do"] == "version":
        return pyslurm.__version__
    if request["do"] == "queue":
        mine = (job for job in pyslurm.Jobs.load().values() if job.user_id == os.geteuid())
        return [{**_row(job, 0), "restarts": job.requeue_count} for job in mine]
    if request["do"] == "accounting":
        return _accounting(request["filter"], pyslurm)
    return _cancel(request["ids"], pyslurm)


def _accounting(wanted: dict[str, Any], pyslurm: ModuleType) -> list[dict[str, Any]]:
    """Load jobs from the database; a site that keeps none has no jobs there, which is no fault."""
    wanted = {**wanted, "users": [os.geteuid()]}  # others may have been given the same ids
    try:
        return [_row(job, 1) for job in pyslurm.db.Jobs.load(pyslurm.db.JobFilter(**wanted)).values()]
    except pyslurm.RPCError:
        if _keeps_accounts(pyslurm):
            raise
        return []


def _keeps_accounts(pyslurm: ModuleType) -> bool:
    """Whether the cluster has a database; only pyslurm's old API tells (pyslurm/deprecated.pyx, `config`)."""
    if not hasattr(pyslurm, "config"):
        return True
    storage = pyslurm.config().get().get("accounting_storage_type") or "none"
    return not storage.endswith("none")


def _cancel(ids: Iterable[int], pyslurm: ModuleType) -> dict[str, str]:
    """Cancel each job; return what went wrong, by id."""
    faults = {}
    for job_id in ids:
        try:
            pyslurm.Job(job_id).cancel()
        except pyslurm.RPCError as error:
            faults[str(job_id)] = str(error)
    return faults


def _row(job: object, source: int) -> dict[str, Any]:
    return {field: getattr(job, names[source]) for field, names in _FIELDS.items()}


def main() -> None:
    """Answer the request on stdin; a fault that pyslurm or the import reports is an answer too."""
    request = json.load(sys.stdin)
    try:
        said = {"answer": answer(request)}
    except Exception as error:  # noqa: BLE001 - the border of this process
        said = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
