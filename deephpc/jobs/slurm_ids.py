"""Slurm's names for jobs, tasks and arrays, read and written.

Sources: sbatch(1) of Slurm 24.11, options --array and --parsable; squeue(1), format %i; sacct(1), field JobID.
"""

import re
from dataclasses import dataclass

from deephpc.jobs.spec import Array

#: The most tasks an array text may stand for; beyond Slurm's own ceiling (MaxArraySize is at most 4 000 001).
MOST_TASKS = 100_000
_LARGEST_TASK = 4_000_000
_LARGEST_JOB = 2**32 - 1

_ID = re.compile(
    r"(?P<job>[0-9]{1,10})"
    r"(?:_(?P<task>[0-9]{1,10})|\+(?P<het>[0-9]{1,10}))?"
    r"(?:\.(?P<step>[A-Za-z0-9+]{1,40}))?"
    r"(?:;(?P<cluster>[A-Za-z0-9_.-]{1,255}))?"
)
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10})(?::([0-9]{1,10}))?)?")


@dataclass(frozen=True, slots=True)
class SlurmId:
    """A job, array task, heterogeneous component, or one of its steps; perhaps on a named cluster."""

    job: int
    task: int | None = None
    het: int | None = None
    step: str | None = None
    cluster: str | None = None

    @property
    def job_id(self) -> str:
        """The job without task, component and step: `7`, `7;cluster`."""
        return f"{self.job};{self.cluster}" if self.cluster else str(self.job)

    def __str__(self) -> str:
        """Return what `parse_slurm_id` reads back as the same id."""
        task = "" if self.task is None else f"_{self.task}"
        het = "" if self.het is None else f"+{self.het}"
        step = "" if self.step is None else f".{self.step}"
        cluster = "" if self.cluster is None else f";{self.cluster}"
        return f"{self.job}{task}{het}{step}{cluster}"


def parse_slurm_id(text: str) -> SlurmId:
    """Read `7`, `7_3`, `7+1`, `7.batch`, `7_3.0`, and any of them followed by `;cluster`.

    Raises
    ------
    ValueError
        The text is none of these, or a number is beyond what Slurm gives out.
    """
    match = _ID.fullmatch(text)
    if match is None or not 0 < int(match["job"]) <= _LARGEST_JOB:
        raise ValueError(f"{text!r} is not a Slurm job id such as 4711, 4711_3 or 4711;cluster")
    task, het = match["task"], match["het"]
    return SlurmId(
        job=int(match["job"]),
        task=None if task is None else int(task),
        het=None if het is None else int(het),
        step=match["step"],
        cluster=match["cluster"],
    )


def parse_task_set(text: str) -> tuple[tuple[int, ...], int | None]:
    """Read `1-9:2,20%4` as the task numbers, ascending and each once, and how many may run at once.

    Raises
    ------
    ValueError
        The text is no such list, or stands for more than `MOST_TASKS` tasks.
    """
    ranges, percent, throttle = text.strip().partition("%")
    if percent and not re.fullmatch(r"[0-9]{1,9}", throttle):
        raise ValueError(_bad_tasks(text))
    tasks: set[int] = set()
    for part in ranges.split(","):
        numbers = _parse_range(part)
        if len(numbers) > MOST_TASKS or len(tasks) + len(numbers) > 2 * MOST_TASKS:
            raise ValueError(f"{text[:40]!r} stands for more than {MOST_TASKS} array tasks")
        tasks.update(numbers)
    if len(tasks) > MOST_TASKS:
        raise ValueError(f"{text[:40]!r} stands for more than {MOST_TASKS} array tasks")
    return tuple(sorted(tasks)), int(throttle) if percent and int(throttle) else None


def parse_array_ids(text: str) -> tuple[SlurmId, tuple[int, ...] | None]:
    """Read `7_[1-9%2]` as the job and its tasks; also all that `parse_slurm_id` reads.

    The tasks are None for a job that is no array, and for a list that Slurm cut short (`7_[1,3,5,...]`, as it does when
    SLURM_BITSTR_LEN is not 0): then they are unknown.

    Raises
    ------
    ValueError
        The text is neither.
    """
    job, bracket, rest = text.partition("_[")
    if not bracket:
        single = parse_slurm_id(text)
        return single, None if single.task is None else (single.task,)
    tasks, closing, cluster = rest.rpartition("]")
    if not closing:
        raise ValueError(f"{text[:40]!r} is not a Slurm array such as 7_[1-9%2]")
    array = parse_slurm_id(job + cluster)
    return array, None if "..." in tasks else parse_task_set(tasks)[0]


def parse_array(text: str) -> Array:
    """Read the user's `--array`: `0-9`, `0-9:2`, `1,4,20-30%5`.

    Raises
    ------
    ValueError
        The text is no such list, or stands for too many tasks.
    """
    tasks, at_once = parse_task_set(text)
    return Array(tasks=tasks, at_once=at_once)


def render_array(array: Array) -> str:
    """Return the shortest plain form of an array, ascending: `0-8:2,20%4`."""
    runs = ",".join(_render_run(run) for run in _runs(array.tasks))
    return f"{runs}%{array.at_once}" if array.at_once else runs


def _parse_range(part: str) -> range:
    match = _RANGE.fullmatch(part.strip())
    if match is None:
        raise ValueError(_bad_tasks(part))
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    step = 1 if match[3] is None else int(match[3])
    if last < first or step < 1 or last > _LARGEST_TASK:
        raise ValueError(_bad_tasks(part))
    return range(first, last + 1, step)


def _runs(tasks: tuple[int, ...]) -> list[range]:
    """Cut ascending numbers into runs of equal step; a run of a step above 1 has three numbers or more."""
    runs: list[range] = []
    start = 0
    while start < len(tasks):
        step = tasks[start + 1] - tasks[start] if start + 1 < len(tasks) else 1
        stop = start + 1
        while stop < len(tasks) and tasks[stop] - tasks[stop - 1] == step:
            stop += 1
        if stop - start == 2 and step > 1:
            stop -= 1
        runs.append(range(tasks[start], tasks[stop - 1] + 1, step if stop - start > 1 else 1))
        start = stop
    return runs


def _render_run(run: range) -> str:
    if len(run) == 1:
        return str(run[0])
    return f"{run[0]}-{run[-1]}" if run.step == 1 else f"{run[0]}-{run[-1]}:{run.step}"


def _bad_tasks(text: str) -> str:
    return f"{text[:40]!r} is not a list of array tasks such as 0-9, 0-9:2 or 1,4,20-30%5 (up to {_LARGEST_TASK})"
