"""Sees one local job through: its dependencies, the start of its tasks as room allows, their end, and how it stands.

Started detached, once, by the local scheduler. Of two supervisors of one job the second ends without doing anything.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deephpc.errors import SiteError
from deephpc.jobs.local_job import SUPERVISOR_GONE, JobView, LocalJob, Order, ProcessMark, TaskView, module_argv
from deephpc.jobs.state import JobState
from deephpc.node.dependencies import Verdict, judge
from deephpc.node.processes import adopt_orphans, children, descendants, end_descendants, reap, signal_all
from deephpc.node.wakeups import Wakeups
from deephpc.shell import start_detached

_POLL_DEPENDENCIES_S = 0.3
_POLL_REQUESTS_S = 5.0
_TOLD_TO_END = "the supervisor was told to end (SIGTERM), as when the machine shuts down"


class Supervisor:
    """One job and its tasks.

    Parameters
    ----------
    start_keeper
        Starts the keeper of a task and returns its pid.
    cores
        Cores of this machine; as many tasks run at once as fit, one at least.
    """

    def __init__(
        self, job: LocalJob, order: Order, mark: ProcessMark, start_keeper: Callable[[int | None], int], cores: int
    ) -> None:
        self._job = job
        self._order = order
        self._start_keeper = start_keeper
        self._room = max(1, cores // order.cpus)
        self._view = JobView(mark, tuple(TaskView(task) for task in order.tasks))
        self._told_view = self._view
        self._keepers: dict[int, int | None] = {}
        self._told: set[int | None] = set()
        self._is_stopped = False

    @property
    def first_view(self) -> JobView:
        """The view before anything has happened, with which the job is claimed."""
        return self._view

    def run(self, wakeups: Wakeups) -> None:
        """See the job to its end. Wakes up for SIGCHLD, SIGUSR1 (a request to cancel) and SIGTERM (end everything)."""
        while True:
            self._note_endings()
            self._follow_requests()
            self._start_what_may()
            is_told = self._tell()
            if self._view.is_final and is_told:
                return
            waits = any(one.reason == "Dependency" for one in self._view.tasks)
            came = wakeups.wait(_POLL_DEPENDENCIES_S if waits or not is_told else _POLL_REQUESTS_S)
            self._is_stopped = self._is_stopped or signal.SIGTERM in came

    def _tell(self) -> bool:
        """Write how the job stands where that has changed; a full disk ends no job, we try again later."""
        if self._view != self._told_view:
            try:
                self._job.write_view(self._view)
            except SiteError:
                return False
            self._told_view = self._view
        return True

    def _change(self, changed: dict[int | None, TaskView]) -> None:
        if changed:
            self._view = replace(self._view, tasks=tuple(changed.get(one.task, one) for one in self._view.tasks))

    def _note_endings(self) -> None:
        running = {one.task: one for one in self._view.tasks}
        changed = {}
        for pid in reap():
            if pid in self._keepers:
                task = self._keepers.pop(pid)
                changed[task] = self._ending(running[task])
        self._change(changed)
        strays = [pid for pid in children(os.getpid()) if pid not in self._keepers]
        for stray in strays:  # their keeper was killed
            signal_all((*descendants(stray), stray), signal.SIGKILL)

    def _ending(self, task: TaskView) -> TaskView:
        outcome = self._job.load_outcome(task.task)
        if outcome is None:  # its keeper was killed; before it could listen, if it was told to end
            was_told = task.task in self._told
            state = JobState.CANCELLED if was_told else JobState.NODE_FAIL
            outcome = replace(task, state=state, reason="" if was_told else SUPERVISOR_GONE, ended_at=time.time())
        if self._is_stopped and outcome.state is JobState.CANCELLED:
            outcome = replace(outcome, state=JobState.NODE_FAIL, reason=_TOLD_TO_END)
        if outcome.state is JobState.PENDING:
            return TaskView(task.task, restarts=task.restarts + 1)
        return replace(outcome, keeper=task.keeper, restarts=task.restarts)

    def _follow_requests(self) -> None:
        requests = frozenset(self._job.cancel_requests())
        ends_all = self._is_stopped or None in requests
        changed = {}
        for one in self._view.tasks:
            if one.state.is_final or not (ends_all or one.task in requests):
                continue
            if one.state is JobState.PENDING:
                state = JobState.NODE_FAIL if self._is_stopped else JobState.CANCELLED
                reason = _TOLD_TO_END if self._is_stopped else ""
                changed[one.task] = replace(one, state=state, reason=reason, ended_at=time.time())
            elif one.task not in self._told:
                self._told.add(one.task)
                changed[one.task] = replace(one, state=JobState.COMPLETING)
                signal_all(tuple(pid for pid, task in self._keepers.items() if task == one.task), signal.SIGTERM)
        self._change(changed)

    def _start_what_may(self) -> None:
        waiting = [one for one in self._view.tasks if one.state is JobState.PENDING]
        views = self._awaited() if waiting else {}
        verdicts = {one.task: self._verdict(one.task, views) for one in waiting}
        changed = {}
        for one in waiting:
            if verdicts[one.task] is Verdict.NEVER:
                reason = "DependencyNeverSatisfied"
                changed[one.task] = replace(one, state=JobState.CANCELLED, reason=reason, ended_at=time.time())
            elif verdicts[one.task] is Verdict.WAITING:
                changed[one.task] = replace(one, reason="Dependency")
            elif len(self._keepers) >= min(self._room, self._order.at_once or self._room):
                full = len(self._keepers) >= self._room
                changed[one.task] = replace(one, reason="Resources" if full else "JobArrayTaskLimit")
            else:
                changed[one.task] = self._start(one)
        self._change(changed)

    def _start(self, task: TaskView) -> TaskView:
        self._job.forget_outcome(task.task)
        pid = self._start_keeper(task.task)
        self._keepers[pid] = task.task
        return replace(task, state=JobState.RUNNING, reason="", started_at=time.time(), keeper=ProcessMark.of(pid))

    def _awaited(self) -> dict[str, JobView | None]:
        ids = {one.partition("_")[0] for _, ids in self._order.dependencies for one in ids}
        return {job_id: LocalJob(self._job.path.parent / job_id).load_view() for job_id in ids}

    def _verdict(self, task: int | None, views: dict[str, JobView | None]) -> Verdict:
        verdict = Verdict.MET
        for kind, ids in self._order.dependencies:
            for one in ids:
                job_id, _, number = one.partition("_")
                said = judge(kind, views[job_id], int(number) if number else None, task)
                verdict = max(verdict, said, key=lambda verdict: verdict.value)
        return verdict


def main(arguments: list[str]) -> None:
    """Supervise the job whose folder is given."""
    job = LocalJob(Path(arguments[0]))
    order = job.load_order()
    if order is None:
        sys.exit(f"{job.path} holds no job")
    wakeups = Wakeups(signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP)
    adopt_orphans()

    def start_keeper(task: int | None) -> int:
        label = "-" if task is None else str(task)
        argv = module_argv("deephpc.node.keeper", str(job.path), label, str(os.getpid()))
        return start_detached(argv, cwd=job.path, env=os.environ, log=job.supervisor_log)

    cores = len(os.sched_getaffinity(0))
    supervisor = Supervisor(job, order, ProcessMark.of(os.getpid()), start_keeper, cores)
    if job.claim(supervisor.first_view):
        supervisor.run(wakeups)
        end_descendants()


if __name__ == "__main__":
    main(sys.argv[1:])
