"""Changes to runs after their submission: cancel, rerun, rebuild, export."""

import json
import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from deephpc.data.location import join
from deephpc.errors import InputError, SiteError
from deephpc.jobs.evidence import load_standing
from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder, read_json, read_text, write_atomically
from deephpc.jobs.scheduler import id_of_task
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import read_answer, submitter_lives
from deephpc.serve.secret_arguments import PRIVATE_ARGUMENTS, parse_secrets, render_secrets
from deephpc.workflows.plan import load_plan
from deephpc.workflows.request import JobRequest
from deephpc.workflows.watch import Schedulers, keep_last_metrics


def plan_cancel(words: Sequence[str], record: Record, schedulers: Schedulers) -> list[tuple[Job, int | None]]:
    """Return the runs and array tasks that words name; those that ended already are among them.

    Raises
    ------
    InputError
        No such run, one whose submission has no answer yet, or one of a scheduler that is not here.
    """
    found = [record.resolve(word) for word in words]
    for job, task in found:
        if job.state_of(task).is_final:
            continue
        if job.job_id is None:
            raise InputError(
                f"run {job.run_id} has not reached the queue, as far as is known", "look again with `deephpc jobs`"
            )
        if job.scheduler not in schedulers:
            raise InputError(
                f"run {job.run_id} belongs to {job.scheduler}, which is not on this machine", "go to its login node"
            )
    return found


def cancel_jobs(
    wanted: Sequence[tuple[Job, int | None]], record: Record, schedulers: Schedulers, now: datetime
) -> None:
    """Ask for runs and array tasks to end; what ended already is left alone.

    Raises
    ------
    SiteError
        The scheduler refused, or does not answer.
    """
    by_scheduler: dict[str, list[tuple[Job, int | None]]] = defaultdict(list)
    for job, task in wanted:
        if not job.state_of(task).is_final:
            by_scheduler[job.scheduler].append((job, task))
    for name, group in by_scheduler.items():
        for job, task in group:  # first, so that an attempt that is just ending starts no other
            _write_cancelled(job.files.task(task).cancelled, now)
        schedulers[name].cancel(id_of_task(job.job_id or "", task) for job, task in group)
        for job in (job for job, task in group if task is None):
            record.change(job.run_id, lambda known: known.model_copy(update={"cancelled_at": now}), now)


def plan_rerun(words: Sequence[str], record: Record, *, only_failed: bool) -> tuple[Job, tuple[int, ...] | None]:
    """Return the run that words name, and which tasks of its array are to run again; None is all of it.

    Raises
    ------
    InputError
        Several runs are named, none of it failed, or it is a batch, which resumes by itself.
    """
    found = [record.resolve(word) for word in words]
    job = found[0][0]
    others = sorted({other.run_id for other, _ in found} - {job.run_id})
    if others:
        raise InputError(f"{job.run_id} and {others[0]} are two runs", "rerun them one after the other")
    named = None if any(task is None for _, task in found) else {task for _, task in found if task is not None}
    if job.kind == "predict" and (named or only_failed):
        raise InputError(
            f"run {job.run_id} is a batch: its tasks are not rerun one by one",
            f"`deephpc predict --resume {job.run_id}` predicts what has no result",
        )
    if only_failed:
        named = _failed_tasks(job, named)
    return job, tuple(sorted(named)) if named is not None else None


def _failed_tasks(job: Job, named: set[int] | None) -> set[int] | None:
    """Return the tasks, among those named, that ended otherwise than COMPLETED; None for a plain run that did."""
    among: set[int | None] = {*(job.tasks if named is None else named)} or {None}
    states = {task: job.state_of(task) for task in among}
    failed = {task for task, state in states.items() if state.is_final and state is not JobState.COMPLETED}
    if not failed:
        alive = sum(not state.is_final for state in states.values())
        raise InputError(
            f"nothing of run {job.run_id} has failed",
            f"{alive} of its tasks have not ended" if alive and job.tasks else "leave --failed out to run it again",
        )
    return {task for task in failed if task is not None} or None


def load_rerun(job: Job) -> tuple[JobRequest, dict[str, str]]:
    """Return the request a run was made from, and the values of its --env.

    Raises
    ------
    InputError
        Its run folder has no plan that this version understands, or what it ran is gone.
    """
    plan = load_plan(job.files)
    if plan is None:
        raise InputError(
            f"run {job.run_id} has no readable plan in {job.folder}", "submit it again from its own command"
        )
    request = plan.request
    if request.kind == "train" and request.program == "own" and not Path(request.command[1]).exists():
        raise InputError(
            f"{request.command[1]}, which run {job.run_id} ran, is not there any more",
            "bring it back, or train another",
        )
    return request, secret_variables(job.files)


def rebuild(record: Record, work_dirs: Iterable[Path]) -> list[Job]:
    """Read every run folder and write its row anew (login node); rows of runs without a folder stay as they are."""
    jobs: list[Job] = []
    for work_dir in work_dirs:
        found = (read_job(RunFolder(path)) for path in _folders(work_dir))
        jobs += [job for job in found if job is not None and not _is_in_hand(job, record)]
    record.put_back(jobs)
    for job in jobs:
        _expect_results(job, record)
    for job in jobs:
        if job.state.is_final:
            keep_last_metrics(record, job)
    return jobs


def _expect_results(job: Job, record: Record) -> None:
    plan = load_plan(job.files)
    if plan is not None and plan.request.options.collect is not None:
        record.transfers.expect(job.run_id, join(plan.request.options.collect, job.run_id), job.created_at)


def _is_in_hand(job: Job, record: Record) -> bool:
    """Whether a living command is submitting this run at this moment; its row is not ours to write."""
    return job.job_id is None and record.has(job.run_id) and submitter_lives(record.get(job.run_id).submitter) is True


def read_job(folder: RunFolder) -> Job | None:
    """Return the run that a folder tells of; None when it is no run folder, or somebody else's."""
    if folder.path.stat().st_uid != os.geteuid():
        return None
    plan = load_plan(folder)
    if plan is None or plan.spec.run_id != folder.path.name:
        return None
    answer = read_answer(folder)
    job = plan.new_job().model_copy(update={"folder": folder.path})
    if answer is not None:
        job = job.model_copy(update={"job_id": answer[0], "submitted_at": answer[1], "state": JobState.PENDING})
    cancelled = read_json(folder.cancelled)
    if cancelled:
        job = job.model_copy(update={"cancelled_at": datetime.fromisoformat(str(cancelled["cancelled_at"]))})
    kept = load_standing(folder)
    if kept is not None:
        job = job.with_standing(kept.standing).model_copy(update={"tasks": kept.tasks})
    return job


def _folders(work_dir: Path) -> list[Path]:
    try:
        return sorted(work_dir.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SiteError(f"cannot read {work_dir}: {error.strerror}", "is its file system there?") from error


def _write_cancelled(path: Path, now: datetime) -> None:
    try:
        write_atomically(path, json.dumps({"cancelled_at": now.isoformat()}) + "\n")
    except SiteError:  # its folder is full or gone, or the task never began: no reason not to end it
        return


def secret_variables(folder: RunFolder) -> dict[str, str]:
    """Read back what `secrets/env.sh` exports: one `export NAME=WORD` after the other, quoted by shlex."""
    words = shlex.split(read_text(folder.secret_env) or "")
    pairs = (word.partition("=") for word in words if word != "export")
    return {name: value for name, _, value in pairs}


def load_secrets(folder: RunFolder) -> dict[str, JsonValue]:
    """Return what is secret of the arguments a run was given; nothing where nothing is, or it is gone."""
    return parse_secrets(read_text(folder.path / PRIVATE_ARGUMENTS))


def load_secret_files(folder: RunFolder) -> dict[str, str]:
    """Return the file with that for a run that repeats it: path in its folder → text."""
    return render_secrets(load_secrets(folder))
