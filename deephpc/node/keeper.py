"""Runs one task of a local job: its script, its time limit, its end, and the end of everything it started.

A process of its own beside the supervisor, so that each task's processes are its descendants and no one else's: it
adopts their orphans (child subreaper). When the supervisor dies, the kernel sends it SIGHUP and it kills them all; when
it is itself killed, they fall to the supervisor, which does the same.
"""

import os
import signal
import sys
import time
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.jobs.local_job import LocalJob, Order, TaskView
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.state import JobState
from deephpc.node.processes import adopt_orphans, catches, descendants, end_descendants, reap, signal_all, tie_to_parent
from deephpc.node.wakeups import Wakeups
from deephpc.shell import start_detached

_NEVER = float("inf")
_LOOK_AGAIN_S = 0.2
_WRITE_TRIES = 600


class Keeper:
    """One running task.

    Parameters
    ----------
    wakeups
        Brings SIGTERM (end the task), SIGHUP (the supervisor is gone: kill it) and SIGCHLD.
    """

    def __init__(self, job: LocalJob, order: Order, task: int | None, wakeups: Wakeups) -> None:
        self._order = order
        self._task = task
        self._wakeups = wakeups
        self._started_at = time.time()
        now = time.monotonic()
        limit = order.walltime_s
        self._end_at = _NEVER if limit is None else now + limit
        has_grace = limit is not None and 0 < order.grace_s < limit
        self._tell_at = self._end_at - order.grace_s if has_grace else _NEVER
        self._kill_at = _NEVER
        self._verdict: JobState | None = None
        self._requeue_request = job.requeue_request(task)
        self._requeue_request.unlink(missing_ok=True)
        self._script = self._start(job)

    def run(self) -> TaskView:
        """See the task to its end and return how it ended; nothing of it is left running.

        One that asked to be continued is PENDING again.
        """
        while True:
            ended = reap()
            if self._script in ended:
                break
            self._meet_deadlines(time.monotonic())
            next_deadline = min(self._tell_at, self._end_at, self._kill_at)
            self._heed(self._wakeups.wait(min(60.0, next_deadline - time.monotonic())))
        code = ended[self._script]
        end_descendants()
        if self._verdict in (None, JobState.TIMEOUT) and self._requeue_request.exists():
            return TaskView(task=self._task)
        return TaskView(
            task=self._task,
            state=self._verdict or (JobState.COMPLETED if code == 0 else JobState.FAILED),
            reason="" if self._verdict or code >= 0 else f"the job script was ended by signal {-code}",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            started_at=self._started_at,
            ended_at=time.time(),
        )

    def _start(self, job: LocalJob) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPHPC_LOCAL_")}
        environment |= {"DEEPHPC_LOCAL_JOB_ID": job.job_id, "DEEPHPC_LOCAL_REQUEUE": str(self._requeue_request)}
        if self._task is not None:
            environment["DEEPHPC_LOCAL_TASK_ID"] = str(self._task)
        if self._order.walltime_s is not None:
            environment["DEEPHPC_LOCAL_END_TIME"] = str(int(self._started_at + self._order.walltime_s))
        folder = Path(self._order.run_folder)
        log = RunFolder(folder).task(self._task).log
        return start_detached(["bash", self._order.script], cwd=folder, env=environment, log=log)

    def _meet_deadlines(self, now: float) -> None:
        if now >= self._kill_at:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
            self._kill_at = now + _LOOK_AGAIN_S
        elif now >= self._end_at:
            self._end(JobState.TIMEOUT, now)
        elif now >= self._tell_at:
            listens = catches(self._script, signal.SIGUSR1)  # else it would die of it: its traps may not be set yet
            self._tell_at = _NEVER if listens else now + _LOOK_AGAIN_S
            if listens:
                signal_all((self._script,), signal.SIGUSR1)

    def _heed(self, signals: frozenset[int]) -> None:
        if signal.SIGHUP in signals:
            self._verdict = JobState.NODE_FAIL
            self._tell_at = self._end_at = _NEVER
            self._kill_at = 0.0
        elif signal.SIGTERM in signals and self._verdict is None:
            self._end(JobState.CANCELLED, time.monotonic())

    def _end(self, verdict: JobState, now: float) -> None:
        """Ask the script to end, which passes it on; or, if it does not listen, everything that runs."""
        self._verdict = verdict
        self._tell_at = self._end_at = _NEVER
        self._kill_at = now + self._order.kill_wait_s
        listens = catches(self._script, signal.SIGTERM)
        asked = (self._script,) if listens else descendants(os.getpid())
        signal_all(asked, signal.SIGTERM)
        signal_all(descendants(os.getpid()), signal.SIGCONT)  # a stopped process hears nothing


def main(arguments: list[str]) -> None:
    """Keep one task: the job's folder, the task's number or `-`, the supervisor's pid."""
    job = LocalJob(Path(arguments[0]))
    task = None if arguments[1] == "-" else int(arguments[1])
    wakeups = Wakeups(signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    adopt_orphans()
    order = job.load_order()
    if order is None or not tie_to_parent(int(arguments[2]), signal.SIGHUP):
        sys.exit(1)
    _write_outcome(job, Keeper(job, order, task, wakeups).run())


def _write_outcome(job: LocalJob, outcome: TaskView) -> None:
    """Write how the task ended; while the disk is full, try again, but not for ever."""
    for _ in range(_WRITE_TRIES):
        try:
            return job.write_outcome(outcome)
        except SiteError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the supervisor's log
            time.sleep(1.0)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
