"""What every scheduler must do, written against the Protocol alone, with tiny scripts of its own.

Run in pytest by `test_scheduler_contract.py`, and as a program on a cluster's login node, where there is no pytest:

    python scheduler_contract.py slurm|pyslurm FOLDER

prints one line of JSON: for each clause its name and what went wrong, or an empty text.
"""

import concurrent.futures
import getpass
import itertools
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Question, Scheduler, Sighting, Submission
from deephpc.jobs.slurm import SlurmScheduler
from deephpc.jobs.slurm_options import Dialect, render_directives
from deephpc.jobs.slurm_pyslurm import open_pyslurm
from deephpc.jobs.spec import Array, Dependency, DependencyKind, Environment, JobSpec, Resources
from deephpc.jobs.state import JobState

TASK = "${SLURM_ARRAY_TASK_ID:-${DEEPHPC_LOCAL_TASK_ID:-}}"
SLEEP = "exec sleep 600"
_numbers = itertools.count()


@dataclass
class Bench:
    """A scheduler under test, with what a clause needs to use it."""

    scheduler: Scheduler
    folder: Path
    """Where the run folders go."""
    environment: Mapping[str, str]
    patience_s: float = 300.0
    pause_s: float = 0.02
    """Between two looks."""
    shortest_limit: timedelta = timedelta(seconds=1)
    """The shortest time limit the scheduler can enforce."""
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc) - timedelta(minutes=1))

    def submission(
        self,
        body: str,
        *,
        tasks: tuple[int, ...] = (),
        at_once: int | None = None,
        after: tuple[DependencyKind, str] | None = None,
        limit: timedelta = timedelta(minutes=30),
    ) -> Submission:
        """Write a run folder with a script of a few lines, and return what is needed to submit it."""
        run_id = f"contract-{os.getpid()}-{next(_numbers)}"
        folder = RunFolder(self.folder / run_id)
        spec = JobSpec(
            run_id=run_id,
            token=secrets.token_hex(16),
            kind="run",
            folder=folder.path,
            command=("unused",),
            workdir=folder.path,
            resources=Resources(cpus_per_task=1, walltime=limit),
            environment=Environment(),
            array=Array(tasks=tasks, at_once=at_once) if tasks else None,
            dependencies=(Dependency(kind=after[0], job_ids=(after[1],)),) if after else (),
            grace=timedelta(0),
        )
        folder.create()
        is_local = self.scheduler.name == "local"  # it reads the spec, and its ids are none of Slurm's
        directives = () if is_local else render_directives(spec, Dialect(gpu_request="none", memory_request=False))
        folder.script.write_text("\n".join(["#!/bin/bash", *directives, body, ""]))
        return Submission(spec, folder.script, self.environment)

    def submit(self, body: str, **wishes: object) -> str:
        """Submit a job of a few lines and return its id."""
        return self.scheduler.submit(self.submission(body, **wishes)).job_id  # type: ignore[arg-type]  # passed on

    def sightings(self, job_id: str) -> tuple[Sighting, ...]:
        """Return what the best source says of a job: accounting where it knows how the job ended, else the queue."""
        seen = self.scheduler.observe(Question(job_ids=(job_id,), since=self.started_at))
        queue, accounting = (seen.queue or {}).get(job_id, ()), (seen.accounting or {}).get(job_id, ())
        best = {sighting.task: sighting for sighting in queue}
        best |= {one.task: one for one in accounting if one.task not in best or best[one.task].state.is_final}
        if len(best) > 1:  # the record of an array before it was split into tasks
            best.pop(None, None)
        return tuple(best[task] for task in sorted(best, key=lambda task: -1 if task is None else task))

    def wait(self, job_id: str, satisfied: Callable[[tuple[Sighting, ...]], bool]) -> tuple[Sighting, ...]:
        """Wait until the sightings of a job are as wished, and return them."""
        give_up_at = time.monotonic() + self.patience_s
        while True:
            seen = self.sightings(job_id)
            if seen and satisfied(seen):
                return seen
            assert time.monotonic() < give_up_at, f"job {job_id} was last seen as {seen}"
            time.sleep(self.pause_s)

    def wait_for(self, job_id: str, *states: JobState) -> tuple[Sighting, ...]:
        """Wait until the tasks of a job are in these states, in the order of their numbers."""
        return self.wait(job_id, lambda seen: tuple(one.state for one in seen) == states)

    def wait_for_text(self, path: Path, text: str) -> None:
        """Wait until a file holds a text."""
        give_up_at = time.monotonic() + self.patience_s
        while not (path.exists() and text in path.read_text()):
            assert time.monotonic() < give_up_at, f"{path} never held {text!r}"
            time.sleep(self.pause_s)


def a_job_runs_to_its_end(bench: Bench) -> None:
    job_id = bench.submit("exit 0")
    (seen,) = bench.wait_for(job_id, JobState.COMPLETED)
    assert seen.job_id == job_id
    assert seen.task is None
    assert seen.raw_state == "COMPLETED"
    assert seen.exit_code in (0, None)
    assert seen.submitted_at is not None and seen.started_at is not None and seen.ended_at is not None
    assert bench.started_at < seen.submitted_at
    assert seen.started_at <= seen.ended_at
    assert seen.nodes


def the_exit_code_is_told(bench: Bench) -> None:
    job_id = bench.submit("exit 7")
    (seen,) = bench.wait(job_id, lambda seen: seen[0].state is JobState.FAILED and seen[0].exit_code is not None)
    assert seen.exit_code == 7
    assert not seen.signal


def the_job_runs_in_its_run_folder_and_logs_there(bench: Bench) -> None:
    submission = bench.submission('pwd -P; echo "to stderr" >&2; read -r line || echo "stdin is empty"')
    bench.wait_for(bench.scheduler.submit(submission).job_id, JobState.COMPLETED)
    folder = RunFolder(submission.spec.folder)
    bench.wait_for_text(folder.task(None).log, "stdin is empty")
    log = folder.task(None).log.read_text().splitlines()
    assert log == [str(folder.path.resolve()), "to stderr", "stdin is empty"]


def the_job_gets_the_environment_given(bench: Bench) -> None:
    bench.environment = {**bench.environment, "DEEPHPC_CONTRACT": "a b\n$(c) 'd' ü"}
    submission = bench.submission('printf "%s|" "$DEEPHPC_CONTRACT"')
    bench.scheduler.submit(submission)
    bench.wait_for_text(RunFolder(submission.spec.folder).task(None).log, "a b\n$(c) 'd' ü|")


def a_job_is_found_by_its_name(bench: Bench) -> None:
    submission = bench.submission(SLEEP)
    other = bench.submission("exit 0")
    job_id = bench.scheduler.submit(submission).job_id
    seen = bench.scheduler.observe(Question(job_names=(submission.job_name, other.job_name), since=bench.started_at))
    assert seen.queue is not None
    assert {one.name for one in seen.queue[job_id]} == {submission.job_name}
    assert list(seen.queue) == [job_id]
    bench.scheduler.cancel([job_id])


def a_running_job_is_cancelled(bench: Bench) -> None:
    job_id = bench.submit(SLEEP)
    bench.wait_for(job_id, JobState.RUNNING)
    bench.scheduler.cancel([job_id])
    (seen,) = bench.wait_for(job_id, JobState.CANCELLED)
    assert seen.started_at is not None and seen.ended_at is not None


def a_pending_job_is_cancelled_and_never_runs(bench: Bench) -> None:
    first = bench.submit(SLEEP)
    submission = bench.submission("touch ran", after=("afterany", first))
    job_id = bench.scheduler.submit(submission).job_id
    (seen,) = bench.wait_for(job_id, JobState.PENDING)
    assert seen.started_at is None
    bench.scheduler.cancel([job_id])
    bench.wait_for(job_id, JobState.CANCELLED)
    bench.scheduler.cancel([first])
    bench.wait_for(first, JobState.CANCELLED)
    assert not (submission.spec.folder / "ran").exists()


def cancelling_what_is_gone_is_no_error(bench: Bench) -> None:
    job_id = bench.submit("exit 0")
    bench.wait_for(job_id, JobState.COMPLETED)
    bench.scheduler.cancel([job_id])
    assert [one.state for one in bench.sightings(job_id)] == [JobState.COMPLETED]


def each_task_of_an_array_ends_in_its_own_way(bench: Bench) -> None:
    submission = bench.submission(f'echo "I am {TASK}"; [ {TASK} != 3 ] || exit 5', tasks=(0, 1, 3))
    job_id = bench.scheduler.submit(submission).job_id
    bench.wait_for(job_id, JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED)
    seen = bench.wait(job_id, lambda seen: seen[-1].exit_code is not None)
    assert [one.task for one in seen] == [0, 1, 3]
    assert seen[-1].exit_code == 5
    bench.wait_for_text(RunFolder(submission.spec.folder).task(3).log, "I am 3")


def one_task_of_an_array_is_cancelled_alone(bench: Bench) -> None:
    job_id = bench.submit(f"[ {TASK} != 1 ] || {SLEEP}", tasks=(0, 1, 2), at_once=1)
    bench.wait(job_id, lambda seen: any(one.task == 1 and one.state is JobState.RUNNING for one in seen))
    bench.scheduler.cancel([f"{job_id}_1"])
    bench.wait_for(job_id, JobState.COMPLETED, JobState.CANCELLED, JobState.COMPLETED)


def a_whole_array_is_cancelled(bench: Bench) -> None:
    job_id = bench.submit(SLEEP, tasks=(0, 1), at_once=1)
    bench.wait_for(job_id, JobState.RUNNING, JobState.PENDING)
    bench.scheduler.cancel([job_id])
    bench.wait_for(job_id, JobState.CANCELLED, JobState.CANCELLED)


def a_dependency_on_success_is_met_and_missed(bench: Bench) -> None:
    good, bad = bench.submit("exit 0"), bench.submit("exit 1")
    met = bench.submit("exit 0", after=("afterok", good))
    missed = bench.submission("touch ran", after=("afterok", bad))
    job_id = bench.scheduler.submit(missed).job_id
    bench.wait_for(met, JobState.COMPLETED)
    bench.wait_for(job_id, JobState.CANCELLED)
    assert not (missed.spec.folder / "ran").exists()  # accounting may give it a start of a second before its end


def a_dependency_on_failure_is_met(bench: Bench) -> None:
    bad = bench.submit("sleep 0.2; exit 1")
    bench.wait_for(bench.submit("exit 0", after=("afternotok", bad)), JobState.COMPLETED)


def the_time_limit_ends_a_job(bench: Bench) -> None:
    job_id = bench.submit(SLEEP, limit=bench.shortest_limit)
    (seen,) = bench.wait_for(job_id, JobState.TIMEOUT)
    assert seen.started_at is not None and seen.ended_at is not None
    assert seen.ended_at - seen.started_at >= bench.shortest_limit - timedelta(seconds=1)


def an_unknown_job_is_absent_from_the_answer(bench: Bench) -> None:
    unknown = "60000000" if bench.scheduler.name != "local" else "local-000000000000"
    seen = bench.scheduler.observe(Question(job_ids=(unknown,), job_names=("no-such-run.00",), since=bench.started_at))
    assert seen.queue == {}
    assert not seen.accounting


CLAUSES: tuple[Callable[[Bench], None], ...] = (
    a_job_runs_to_its_end,
    the_exit_code_is_told,
    the_job_runs_in_its_run_folder_and_logs_there,
    the_job_gets_the_environment_given,
    a_job_is_found_by_its_name,
    a_running_job_is_cancelled,
    a_pending_job_is_cancelled_and_never_runs,
    cancelling_what_is_gone_is_no_error,
    each_task_of_an_array_ends_in_its_own_way,
    one_task_of_an_array_is_cancelled_alone,
    a_whole_array_is_cancelled,
    a_dependency_on_success_is_met_and_missed,
    a_dependency_on_failure_is_met,
    the_time_limit_ends_a_job,
    an_unknown_job_is_absent_from_the_answer,
)


def _check(clause: Callable[[Bench], None], scheduler: Scheduler, folder: Path) -> str:
    bench = Bench(
        scheduler, folder, dict(os.environ), patience_s=240.0, pause_s=1.0, shortest_limit=timedelta(minutes=1)
    )
    try:
        clause(bench)
    except Exception:
        return traceback.format_exc()
    return ""


def main(arguments: Iterable[str]) -> None:
    """Run all clauses at once against the Slurm this machine reaches."""
    name, folder = arguments
    slurm: Scheduler = SlurmScheduler(os.environ, getpass.getuser())
    note = ""
    if name == "pyslurm":
        slurm, note = open_pyslurm(slurm)
    assert slurm.name == name, note
    longest_first = CLAUSES[::-1]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        faults = pool.map(lambda clause: _check(clause, slurm, Path(folder)), longest_first)
        print(json.dumps({clause.__name__: fault for clause, fault in zip(longest_first, faults, strict=True)}))


if __name__ == "__main__":
    main(sys.argv[1:])
