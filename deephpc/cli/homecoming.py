"""Results that a command which looks at runs sends home in passing, where their jobs could not."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.cli.context import Context

if TYPE_CHECKING:
    from deephpc.jobs.record import Record
    from deephpc.workflows.data_places import DataPlaces

#: How long a command that was asked for something else sends results.
_IN_PASSING_S = 20.0
#: How long the lock of a job that was killed while it sent them is waited for besides.
_LOCK_OF_THE_DEAD_S = 60.0
#: How long one that waits for a run does.
_WAITING_S = 3600.0


def bring_home(here: Context, record: "Record", only: Collection[str] | None = None, *, wait: bool = False) -> None:
    """Send the results that jobs could not, within a moment, and say so; with `wait` as long as it takes.

    That results wait is said once, and once a day from then on.
    """
    if not record.transfers.owed(here.clock()):  # start-up time: what follows loads all that moves data
        return
    from deephpc.workflows.deliveries import deliver_owed, find_owed, wait_for_job

    began, most_s = here.clock(), _WAITING_S if wait else _IN_PASSING_S
    for found in find_owed(record, began, only):
        owed = wait_for_job(record, found, here.clock) if wait else found
        if owed is None:
            continue
        run_id, place, now = owed.job.run_id, owed.last.destination, here.clock()
        under_way = owed.last.is_under_way(now) and not wait
        tell = record.transfers.is_news(run_id, place, "under way" if under_way else "waiting", now) or wait
        if under_way:
            text = f"the job of {run_id} is sending its results; if its node died, `deephpc collect {run_id}` does"
        elif (now - began).total_seconds() < most_s and (wait or owed.may_be_tried(now)):
            if tell:
                here.say(f"note: sending the results of {run_id} to {place}")
            seconds = most_s + (_LOCK_OF_THE_DEAD_S if owed.last.state == "started" else 0)
            sent, text = deliver_owed(record, owed, storage_places(here, 8), here.clock, seconds)
            tell = tell or sent
        else:
            text = f"results of {run_id} wait here; `deephpc collect {run_id}` sends them"
        if tell:
            here.say(f"note: {text}")


def bring_table(here: Context, run_id: str) -> None:
    """Send the table of a batch after its results, if they were to leave, and say so."""
    from deephpc.workflows.deliveries import deliver_table, place_of

    with here.open_record() as record:
        job = record.get(run_id)
    told = deliver_table(job, storage_places(here, 1), _IN_PASSING_S) if place_of(job) else None
    if told is not None:
        here.say(f"note: {told}")


def storage_places(here: Context, parallel: int) -> "DataPlaces":
    """Return what is needed to move data, with the settings' cache."""
    from deephpc.data.storage import Limits
    from deephpc.workflows.data_places import open_places

    return open_places(here.environ, here.home, Path.cwd(), here.settings.cache_dir, Limits(parallel))
