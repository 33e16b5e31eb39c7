"""The contract of all schedulers, here with the local one; `tests/cluster` holds real Slurm to it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deephpc.jobs.local import LocalScheduler, LocalTimes
from deephpc.jobs.local_job import LocalJob
from tests.fakes.waiting import DEADLINE_S
from tests.jobs.scheduler_contract import CLAUSES, Bench


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Bench]:
    scheduler = LocalScheduler(tmp_path / "state", times=LocalTimes(start_s=DEADLINE_S))
    yield Bench(scheduler, tmp_path / "runs", dict(os.environ))
    for job in (tmp_path / "state" / "local").glob("*"):
        LocalJob(job).request_cancel(None)


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_the_local_scheduler_keeps_the_contract(clause: Callable[[Bench], None], local: Bench) -> None:
    assert shutil.which("bash")
    clause(local)
