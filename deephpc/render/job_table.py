"""The table of runs: whole where it is read by a program, and within the columns of a terminal."""

from collections.abc import Sequence
from datetime import datetime

from deephpc.jobs.job import Job
from deephpc.jobs.state import JobState
from deephpc.render.answer import draw, terminal_width, visible
from deephpc.render.phrases import clock, code_of, local_time, task_counts

_COLOURS = {
    JobState.COMPLETED: "green",
    JobState.RUNNING: "cyan",
    JobState.COMPLETING: "cyan",
    JobState.PENDING: "yellow",
    JobState.CANCELLED: "magenta",
}
_GAP = 2
_NEVER_CUT = ("RUN", "STATE", "TIME", "JOB")
#: The other columns, those first that matter most, and how many characters they are to have before the next gets any.
_CUT = {"WHY": 24, "NODES": 8, "SUBMITTED": 16}

_TELLS = 8  # fewer characters of a longer text tell nothing

_Row = dict[str, str]


def draw_jobs(jobs: Sequence[Job], now: datetime) -> str:
    """Return runs as a table with one line each; what a terminal's line cannot hold is left out or ends with `…`."""
    from rich.table import Table
    from rich.text import Text

    room = terminal_width()
    rows = [_row(job, now, "%Y-%m-%d %H:%M:%S" if room is None else "%Y-%m-%d %H:%M") for job in jobs]
    widths = _fit(rows, room)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, width in widths.items():
        justify = "right" if name == "TIME" else "left"
        table.add_column(name, width=width, no_wrap=True, overflow="ellipsis", justify=justify)  # type: ignore[arg-type]
    for job, row in zip(jobs, rows, strict=True):
        colour = _COLOURS.get(job.state, "red" if job.state.is_final else "yellow")
        table.add_row(*(Text(row[name], style=colour if name == "STATE" else "") for name in widths))
    return draw(table, at_least=sum(widths.values()) + _GAP * len(widths))


def _row(job: Job, now: datetime, time_form: str) -> _Row:
    stale_since = job.stale_since(now)
    as_of = f"(as of {local_time(stale_since)})" if stale_since else ""
    return {
        "RUN": job.run_id,
        "STATE": f"{job.state.value} {code_of(job)}".strip(),
        "TIME": clock(job, now),
        "JOB": job.job_id or "-",
        "NODES": visible(job.nodes),
        "SUBMITTED": local_time(job.submitted_at or job.created_at, time_form),
        "WHY": visible(" ".join(filter(None, (task_counts(job) if job.tasks else "", job.reason, as_of)))),
    }


def _fit(rows: Sequence[_Row], room: int | None) -> dict[str, int]:
    """Return the columns that have room side by side, and their widths."""
    from rich.cells import cell_len

    needs = {name: max(len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]}
    if room is None:
        return needs
    widths = {name: needs[name] for name in _NEVER_CUT}
    left = room - sum(widths.values()) - _GAP * (len(widths) - 1)
    for name, wanted in _CUT.items():
        width = min(needs[name], wanted, left - _GAP)
        if width >= (wanted if name == "SUBMITTED" else min(needs[name], _TELLS)):
            widths[name] = width
            left -= _GAP + width
    for name in _CUT:
        if name in widths:
            more = min(left, needs[name] - widths[name])
            widths[name] += more
            left -= more
    return {name: widths[name] for name in needs if name in widths}
