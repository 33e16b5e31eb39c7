"""The stand-in's accounting: no more than the queue knows, but under the database's names."""

import os
import time

from .errors import RPCError


class JobFilter:
    """Which jobs to load; unlike the real one it knows only what deephpc asks by."""

    def __init__(self, **conditions: object) -> None:
        unknown = set(conditions) - {"ids", "names", "users", "start_time"}
        assert not unknown, unknown
        self.conditions = conditions


class Jobs(dict[int, object]):
    """Jobs by id."""

    @staticmethod
    def load(db_filter: JobFilter) -> "Jobs":
        """Return the jobs that have ended and meet the filter's conditions."""
        from . import Jobs as Queue

        if os.environ.get("STAND_IN_DATABASE") in ("down", "none"):
            raise RPCError(msg="Failed to open onnection to slurmdbd")
        if os.environ.get("STAND_IN_DATABASE") == "frozen":
            time.sleep(600)
        wanted = db_filter.conditions
        found = Jobs()
        for job in Queue.load().values():
            job.nodelist = job.allocated_nodes
            has_id = "ids" not in wanted or (job.array_id or job.id) in wanted["ids"]
            has_name = "names" not in wanted or job.name in wanted["names"]
            if has_id and has_name and job.state != "PENDING":
                found[job.id] = job
        return found
