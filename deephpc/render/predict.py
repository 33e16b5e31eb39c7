"""How a batch of predictions stands, as a few lines or JSON (docs/reference/json.md)."""

from typing import TYPE_CHECKING

from deephpc.render.answer import to_json, visible

if TYPE_CHECKING:
    from deephpc.workflows.batch_results import BatchSummary

_SHOWN = 10


def render_batch(summary: "BatchSummary", *, has_ended: bool, as_json: bool) -> str:
    """Return how many inputs have a result, why others have none, and where the table is."""
    if as_json:
        return to_json("deephpc.predictions/1", summary.model_dump(mode="json"))
    lines = [
        f"{summary.run_id}: {_counts(summary, has_ended=has_ended)}",
        f"table    {summary.table}",
        f"results  {summary.results}",
        *([f"models   {visible(summary.opened)}"] if summary.opened else []),
    ]
    if summary.failures:
        lines.append("failed")
        for failure in summary.failures[:_SHOWN]:
            inputs = ", ".join(str(value) for value in failure.input.values())
            lines.append(f"  {visible(inputs)}: {visible(_first_line(failure.error))}")
        if summary.failed > _SHOWN:
            lines.append(f"  … and {summary.failed - _SHOWN} more: `ok` is false in the table")
    if summary.failed or summary.missing:
        later = "" if has_ended else ", when it has ended"
        lines.append(f"next     deephpc predict --resume {summary.run_id}{later}: predicts what has no result")
    return "\n".join(lines)


def _counts(summary: "BatchSummary", *, has_ended: bool) -> str:
    parts = [f"{summary.ok} of {summary.inputs} inputs have a result"]
    parts += [f"{summary.failed} failed"] if summary.failed else []
    parts += [f"{summary.missing} not predicted{'' if has_ended else ' yet'}"] if summary.missing else []
    return ", ".join(parts)


def _first_line(text: str) -> str:
    """Return the line of an error that says most: of a traceback the last."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or [""]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
