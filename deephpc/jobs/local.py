"""The local scheduler: no Slurm, the same job script as a detached process under a supervisor of its own.

For a laptop or a first try. Each job has one supervisor (`deephpc.node.supervisor`); jobs know nothing of each other
but their dependencies, so the cores are shared out within a job, not between jobs. Memory is not limited. A job whose
supervisor was killed, or whose machine was restarted, is NODE_FAIL and does not start again. Where the system ends a
user's processes at logout (logind.conf(5), KillUserProcesses), jobs end then too, unless lingering is enabled.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.errors import SiteError
from deephpc.jobs.local_job import JobView, LocalJob, Order, ProcessMark, TaskView, local_job_id, module_argv
from deephpc.jobs.run_folder import RunFolder, read_text
from deephpc.jobs.scheduler import Accepted, Ambiguous, JobId, Observation, Question, Refused, Sighting, Submission
from deephpc.shell import start_detached

if TYPE_CHECKING:
    from deephpc.jobs.slurm_granted import Granted
    from deephpc.jobs.slurm_usage import Accounted

_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class LocalTimes:
    """How long things may take."""

    kill_wait: timedelta = timedelta(seconds=30)
    """From SIGTERM to SIGKILL, at the time limit and on cancel."""
    start_s: float = 20.0
    """Until the supervisor must have shown up."""


class LocalScheduler:
    """Detached processes on this machine.

    Parameters
    ----------
    state_dir
        Where the jobs' folders lie, under `local/`; owner-only.
    clock
        Now, in seconds since the epoch.
    """

    name = "local"

    def __init__(
        self, state_dir: Path, *, times: LocalTimes | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._jobs = state_dir / "local"
        self._times = times or LocalTimes()
        self._clock = clock

    def submit(self, submission: Submission) -> Accepted:
        """Start the job's supervisor and wait until it has the job.

        The same run and token give the same job, however often and from wherever it is sent: killed between any two
        steps, this leaves a job that nobody sees and the next call starts, or one that runs already.

        Raises
        ------
        Refused
            The job cannot be started here; nothing runs.
        Ambiguous
            The supervisor did not show up in time.
        """
        job = LocalJob(self._jobs / local_job_id(submission.job_name))
        try:
            self._place_order(job, submission)
            if job.load_view() is None:
                argv = module_argv("deephpc.node.supervisor", str(job.path))
                pid = start_detached(argv, cwd=job.path, env=submission.environment, log=job.supervisor_log)
                self._await_claim(job, ProcessMark.of(pid))
        except (SiteError, OSError) as error:
            raise Refused(str(error)) from error
        return Accepted(job.job_id)

    def observe(self, question: Question) -> Observation:
        """Read how jobs stand from their supervisors' files; accounting knows nothing, now and later."""
        ids = dict.fromkeys((*question.job_ids, *(local_job_id(name) for name in question.job_names)))
        found = {}
        try:
            for job_id in ids:
                sightings = self._sightings(LocalJob(self._jobs / job_id))
                if sightings:
                    found[job_id] = sightings
        except SiteError as error:
            return Observation(queue=None, accounting=None, troubles=(error.message,))
        return Observation(queue=found, accounting={})

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for jobs, or array tasks (`local-1a2b3c4d5e6f_3`), to end; ids already gone are not an error.

        Raises
        ------
        SiteError
            A job runs on another machine that shares this home.
        """
        for one in job_ids:
            job_id, _, number = one.partition("_")
            job = LocalJob(self._jobs / job_id)
            view = job.load_view()
            if view is not None and view.is_final:
                continue
            if view is not None and view.supervisor.is_elsewhere:
                host = view.supervisor.host
                raise SiteError(f"job {job_id} runs on {host}, not on this machine", f"run the same command on {host}")
            job.request_cancel(int(number) if number else None)

    def used(self, job_id: str) -> Sequence["Accounted"]:  # noqa: ARG002 - the Protocol's name
        """Return nothing: there is no accounting here; the job's own samples tell what it used."""
        return ()

    def granted(self, job_id: str) -> Sequence["Granted"]:  # noqa: ARG002
        """Return nothing: all of this machine is there for every job."""
        return ()

    def outlook(self, job_id: JobId, submission: Submission | None = None) -> None:
        """Return nothing: jobs wait for nothing here but for each other."""

    def _place_order(self, job: LocalJob, submission: Submission) -> None:
        known = job.load_order()
        if known is not None and _is_of_a_wiped_run(job, submission):
            shutil.rmtree(job.path)
            known = None
        if known is None:
            unknown = self._unknown_dependencies(submission)
            if unknown:
                raise Refused(f"the job depends on {', '.join(unknown)}, which this machine does not know")
            job.write_order(self._order(submission))
        elif known.token != submission.spec.token:
            raise Refused(f"{job.path} belongs to another run, {known.name}")

    def _unknown_dependencies(self, submission: Submission) -> list[str]:
        ids = (one for dependency in submission.spec.dependencies for one in dependency.job_ids)
        return [one for one in ids if LocalJob(self._jobs / one.partition("_")[0]).load_view() is None]

    def _order(self, submission: Submission) -> Order:
        spec = submission.spec
        walltime = spec.resources.walltime
        return Order(
            name=submission.job_name,
            token=spec.token,
            run_folder=str(spec.folder),
            script=str(submission.script),
            tasks=spec.array.tasks if spec.array else (None,),
            at_once=spec.array.at_once if spec.array else None,
            cpus=spec.resources.cpu_count,
            walltime_s=walltime.total_seconds() if walltime else None,
            grace_s=spec.grace.total_seconds(),
            kill_wait_s=self._times.kill_wait.total_seconds(),
            dependencies=tuple((dependency.kind, dependency.job_ids) for dependency in spec.dependencies),
            submitted_at=self._clock(),
        )

    def _await_claim(self, job: LocalJob, supervisor: ProcessMark) -> None:
        give_up_at = time.monotonic() + self._times.start_s
        while True:
            is_alive = supervisor.is_alive  # looked at first: what it wrote before it ended is there to see
            if job.load_view() is not None:
                return
            if not is_alive:
                words = (read_text(job.supervisor_log) or "").strip().splitlines()
                raise Refused(f"the supervisor could not start: {words[-1] if words else 'it said nothing'}")
            if time.monotonic() > give_up_at:
                raise Ambiguous(f"the supervisor of {job.job_id} did not show up within {self._times.start_s:g} s")
            time.sleep(_PAUSE_S)

    def _sightings(self, job: LocalJob) -> tuple[Sighting, ...]:
        view = job.load_view()
        order = job.load_order() if view is not None else None
        if view is None or order is None:
            return ()
        return tuple(_sighting(job, order, view, task) for task in view.tasks)


def _is_of_a_wiped_run(job: LocalJob, submission: Submission) -> bool:
    """Whether a job ended for a run whose folder is gone and made anew: ids follow from the request (decision 0007)."""
    view = job.load_view()
    return view is not None and view.is_final and not RunFolder(submission.spec.folder).claim.exists()


def _sighting(job: LocalJob, order: Order, view: JobView, task: TaskView) -> Sighting:
    reason = task.reason
    if view.supervisor.is_elsewhere and not task.state.is_final:
        where = f"as recorded on {view.supervisor.host}, where it runs"
        reason = f"{reason} ({where})" if reason else where
    return Sighting(
        job_id=job.job_id,
        task=task.task,
        state=task.state,
        raw_state=task.state.value,
        source="local",
        name=order.name,
        reason=reason,
        exit_code=task.exit_code,
        signal=task.signal,
        submitted_at=_moment(order.submitted_at),
        started_at=_moment(task.started_at),
        ended_at=_moment(task.ended_at),
        nodes=() if task.started_at is None else (view.supervisor.host,),
        restarts=task.restarts,
        cpus=order.cpus,
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
