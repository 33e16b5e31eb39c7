"""Answers of a server to predictions: as they came, as JSON lines, or as one JSON object (docs/reference/json.md)."""

import base64
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deephpc.errors import InputError
from deephpc.render.answer import to_json

if TYPE_CHECKING:
    from deephpc.serve.prediction import Prediction
    from deephpc.workflows.ask_server import Answer, AskPlan


def render_answer(answer: "Answer", plan: "AskPlan") -> bytes:
    """Return what stdout gets for one answer: of one question the answer itself, of many a line for each.

    Raises
    ------
    InputError
        The answer is neither JSON nor text, and stdout is a terminal.
    """
    if plan.is_many and plan.output is None:
        return (json.dumps(_facts(answer), ensure_ascii=False) + "\n").encode()
    if answer.output is not None:
        return f"{answer.output}\n".encode("utf-8", "surrogateescape")
    if answer.prediction is None:
        return b""
    return _shown(answer.prediction) if sys.stdout.isatty() else answer.prediction.content


def render_answers(answers: Sequence["Answer"], plan: "AskPlan", run: str) -> str:
    """Return all answers as one JSON object."""
    return to_json(
        "deephpc.answers/1", {"server": run, "model": plan.model, "answers": [_facts(answer) for answer in answers]}
    )


def render_questions(plan: "AskPlan", *, as_json: bool) -> str:
    """Return what would be asked, and nothing is."""
    questions = [{"key": one.key, "arguments": [list(pair) for pair in one.pairs]} for one in plan.questions]
    if as_json:
        return to_json("deephpc.questions/1", {"model": plan.model, "accept": plan.accept, "questions": questions})
    return "\n".join(" ".join(f"{name}={text}" for name, text in one.pairs) for one in plan.questions)


def _facts(answer: "Answer") -> dict[str, Any]:
    error = answer.error
    return {
        "key": answer.question.key,
        "input": answer.question.inputs,
        "ok": error is None,
        "seconds": round(answer.seconds, 3),
        "content_type": answer.content_type or None,
        "output": str(answer.output) if answer.output else None,
        "error": None if error is None else error.message,
        **({} if answer.prediction is None else _content(answer.prediction)),
    }


def _content(prediction: "Prediction") -> dict[str, Any]:
    if prediction.is_text:
        return {"value": prediction.value}
    return {"base64": base64.b64encode(prediction.content).decode()}


def _shown(prediction: "Prediction") -> bytes:
    """Return an answer for a terminal: JSON indented, and nothing that a terminal would obey."""
    if prediction.content_type == "application/json":
        try:
            return json.dumps(json.loads(prediction.content), indent=2, ensure_ascii=False).encode() + b"\n"
        except ValueError:
            return prediction.content
    if not prediction.is_text:
        raise InputError(
            f"the answer is {prediction.content_type or 'of no known type'}, not text", "add --output FILE, or | it"
        )
    return prediction.content
