"""The pyslurm scheduler: reads and cancels through Slurm's library; everything else is the command-line scheduler's.

pyslurm fits exactly one Slurm release (its first two numbers), so it is asked for, probed, and else left alone.
Every call runs in a process of its own with a deadline (`slurm_pyslurm_worker`).
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deephpc.jobs.scheduler import Accepted, JobId, Observation, Question, Scheduler, Sighting, Submission
from deephpc.jobs.slurm_hostlist import expand_hostlist
from deephpc.jobs.slurm_ids import parse_task_set
from deephpc.jobs.slurm_reports import parse_state
from deephpc.jobs.state import JobState
from deephpc.shell import CommandNotFound, run

if TYPE_CHECKING:
    from deephpc.jobs.slurm_granted import Granted
    from deephpc.jobs.slurm_outlook import Outlook
    from deephpc.jobs.slurm_usage import Accounted

Rows = Sequence[Mapping[str, Any]]

_ROOT = str(Path(__file__).resolve().parents[2])
#: Isolated (`-I`) from the folder we stand in, but with the module path we have ourselves.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from deephpc.jobs.slurm_pyslurm_worker import main; main()"
)
_CLOCK_SKEW = timedelta(minutes=5)
_LONGEST_HISTORY = timedelta(days=30)
_MOST_IDS = 10_000
_PLAIN_ID = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class _Said:
    """A worker's answer; None where it has none, and then the trouble in one line."""

    answer: Any = None
    trouble: str = ""


def open_pyslurm(slurm: Scheduler, *, read_timeout_s: float = 5.0) -> tuple[Scheduler, str]:
    """Return the pyslurm scheduler, or `slurm` itself and one line that says why pyslurm cannot be used here."""
    scheduler = PyslurmScheduler(slurm, read_timeout_s=read_timeout_s)
    said = _ask({"do": "version"}, read_timeout_s)
    if said.trouble:
        return slurm, f"pyslurm cannot be used ({said.trouble}): Slurm's commands are used instead"
    try:
        printed = run(["sinfo", "--version"], timeout_s=read_timeout_s).stdout.strip()
    except CommandNotFound as error:
        return slurm, f"pyslurm cannot be used ({error.message}): Slurm's commands are used instead"
    if _release(said.answer) is None or _release(said.answer) != _release(printed):
        needs = f"pyslurm {said.answer} does not fit {printed or 'a Slurm that does not tell its release'}"
        return slurm, f"{needs}: Slurm's commands are used instead"
    return scheduler, ""


class PyslurmScheduler:
    """Slurm through its library.

    An exit code of 128 or more is not told as such: pyslurm takes 128 off (pyslurm/utils/helpers.pyx, `_get_exit_code`,
    24.11). The job's own `result.json`, which is trusted before any scheduler, has it right.

    Parameters
    ----------
    slurm
        Submits, cancels single tasks of arrays (the library's call knows no task that still waits), and accounts.
    read_timeout_s
        How long each source may take to answer; both are asked at the same time.
    """

    name = "pyslurm"

    def __init__(self, slurm: Scheduler, *, read_timeout_s: float = 5.0) -> None:
        self._slurm = slurm
        self._timeout_s = read_timeout_s

    def submit(self, submission: Submission) -> Accepted:
        """Send a job through sbatch, the one way in.

        Raises
        ------
        Refused
            It said no: nothing is queued.
        Ambiguous
            No clear answer: look the job up before trying again.
        """
        return self._slurm.submit(submission)

    def observe(self, question: Question) -> Observation:
        """Ask slurmctld and slurmdbd at the same time; the commands where a job is on another cluster."""
        ids = (*question.job_ids, *question.ended_ids)
        if any(not _PLAIN_ID.fullmatch(job_id) for job_id in ids) or any(question.name_clusters):
            return self._slurm.observe(question)
        if question.is_empty:
            return Observation(queue={}, accounting={})
        requests = ({"do": "queue"}, {"do": "accounting", "filter": _job_filter(question)})
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="pyslurm") as pool:
            queue, accounting = pool.map(lambda request: _ask(request, self._timeout_s), requests)
        return Observation(
            queue=None if queue.trouble else parse_rows(queue.answer, question),
            accounting=None if accounting.trouble else parse_rows(accounting.answer, question),
            troubles=tuple(said.trouble for said in (queue, accounting) if said.trouble),
        )

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for jobs or array tasks to end; ids already gone are not an error.

        What the library could not cancel, scancel tries again: pyslurm may report an error of an earlier call.

        Raises
        ------
        SiteError
            Slurm did not answer, or refused.
        """
        ids = tuple(job_ids)
        plain = [job_id for job_id in ids if _PLAIN_ID.fullmatch(job_id)]
        said = _ask({"do": "cancel", "ids": [int(job_id) for job_id in plain]}, self._timeout_s) if plain else _Said({})
        left = [job_id for job_id in ids if said.trouble or job_id not in plain or job_id in said.answer]
        if left:
            self._slurm.cancel(left)

    def used(self, job_id: str) -> Sequence["Accounted"]:
        """Return what a job was given and used, from the command-line scheduler."""
        return self._slurm.used(job_id)

    def granted(self, job_id: str) -> Sequence["Granted"]:
        """Return what a job was granted, from the command-line scheduler."""
        return self._slurm.granted(job_id)

    def outlook(self, job_id: JobId, submission: Submission | None = None) -> "Outlook | None":
        """Return when a waiting job may start, from the command-line scheduler."""
        return self._slurm.outlook(job_id, submission)


def parse_rows(rows: Rows, question: Question) -> dict[JobId, tuple[Sighting, ...]]:
    """Read what the worker brings of the queue or of accounting, and keep what was asked for."""
    ids = frozenset((*question.job_ids, *question.ended_ids))
    names = frozenset((*question.job_names, *question.lost_names))
    found: dict[JobId, list[Sighting]] = {}
    for row in rows:
        job_id = str(row["array_id"] or row["id"])
        if job_id in ids or row["name"] in names:
            found.setdefault(job_id, []).extend(_sighting(job_id, task, row) for task in _tasks(row))
    return {job_id: tuple(sightings) for job_id, sightings in found.items()}


def _ask(request: Mapping[str, Any], timeout_s: float) -> _Said:
    paths = json.dumps([*(os.path.abspath(path) for path in sys.path if path), _ROOT])  # noqa: PTH100 - text to text
    completed = run([sys.executable, "-I", "-c", _START, paths], timeout_s=timeout_s, stdin=json.dumps(request))
    if completed.timed_out:
        return _Said(trouble=f"pyslurm gave no answer about {request['do']} within {timeout_s:g} s")
    try:
        said = json.loads(completed.stdout)
    except ValueError:
        said = {"error": completed.last_words() or f"its process ended with status {completed.returncode}"}
    return _Said(said["answer"]) if "answer" in said else _Said(trouble=f"pyslurm failed: {said['error']}")


def _release(text: str) -> tuple[int, int] | None:
    """Return the release a version belongs to: (24, 11) for `24.11.0` as for `slurm 24.11.5`; pyslurm writes 23.2."""
    match = re.search(r"\b([0-9]{2})\.([0-9]{1,2})\b", text)
    return (int(match[1]), int(match[2])) if match else None


def _job_filter(question: Question) -> dict[str, Any]:
    if question.job_ids and not question.job_names and len(question.job_ids) <= _MOST_IDS:
        return {"ids": [int(job_id) for job_id in question.job_ids]}
    since = question.since or datetime.now(timezone.utc) - _LONGEST_HISTORY
    start = {"start_time": int((since - _CLOCK_SKEW).timestamp())}
    return start if question.job_ids else {**start, "names": list(question.job_names)}


def _tasks(row: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the tasks a row stands for.

    pyslurm shows task 0 as None (pyslurm/utils/uint.pyx, `u32_parse` takes zero for no value), so in a row of an array
    that has no tasks waiting None is 0.
    """
    if not row["array_id"]:
        return (None,)
    if row["array_task_id"] is not None:
        return (int(row["array_task_id"]),)
    if not row["array_tasks_waiting"]:
        return (0,)
    try:
        return parse_task_set(row["array_tasks_waiting"])[0]
    except ValueError:
        return (None,)


def _sighting(job_id: JobId, task: int | None, row: Mapping[str, Any]) -> Sighting:
    state = parse_state(row["state"])
    code, signal = row["exit_code"], row["signal"]
    reason = row["reason"] or ""
    return Sighting(
        job_id=job_id,
        task=task,
        state=state,
        raw_state=row["state"],
        source="pyslurm",
        name=row["name"] or "",
        reason="" if state.is_final or reason == "None" else reason,
        exit_code=code if state.is_final and (code or state is JobState.COMPLETED) else None,
        signal=signal if state.is_final and signal else None,
        submitted_at=_moment(row["submitted_at"]),
        started_at=None if state is JobState.PENDING else _moment(row["started_at"]),
        ended_at=_moment(row["ended_at"]) if state.is_final else None,
        nodes=_nodes(row["nodes"]),
        restarts=row.get("restarts"),
        cpus=row["cpus"],
    )


def _nodes(text: str | None) -> tuple[str, ...]:
    if not text or text == "None assigned":
        return ()
    try:
        return expand_hostlist(text)
    except ValueError:
        return (text,)


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
