"""Predictions on a running server: what is to be asked (pure, once the server said what it takes), and asking it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from deephpc.errors import DeephpcError, InputError
from deephpc.serve.answers import START_BYTES, extension_of
from deephpc.serve.argument_values import render_value
from deephpc.serve.client import Client, Description
from deephpc.serve.many import each_of
from deephpc.serve.prediction import Prediction
from deephpc.workflows.batch_inputs import load_inputs
from deephpc.workflows.batch_predict import parse_shared

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class AskWords:
    """What was written on the command line."""

    inputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    accept: str | None = None
    output: Path | None = None
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One prediction to ask for."""

    key: str
    """Its name: it follows from the values of its inputs, and may name a file; empty without inputs."""
    inputs: dict[str, str]
    pairs: tuple[tuple[str, str], ...]
    """All arguments by name, as text."""


@dataclass(frozen=True, slots=True)
class AskPlan:
    """Everything to ask a server for."""

    model: str
    questions: tuple[Question, ...]
    accept: str | None
    output: Path | None
    """A file where there is one question, a folder where there are many; None for stdout."""
    at_once: int

    @property
    def is_many(self) -> bool:
        """Whether there may be several answers."""
        return len(self.questions) > 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question."""

    question: Question
    seconds: float
    prediction: Prediction | None = None
    """The answer; None where it went into a file, or there is none."""
    content_type: str = ""
    output: Path | None = None
    error: DeephpcError | None = None

    def without_content(self) -> "Answer":
        """Return it without what has been written already."""
        return replace(self, prediction=None)


def plan_asks(asked: AskWords, about: Description, cwd: Path) -> AskPlan:
    """Decide what to ask for: one question for each input, the same arguments with all of them.

    Raises
    ------
    InputError
        An input or argument is wrong for the server's module, or the answers have no place to go.
    """
    declared = [one.argument for one in about.parameters]
    inputs = load_inputs(asked.inputs, declared, cwd) if asked.inputs else ()
    names = tuple(inputs[0].args) if inputs else ()
    shared, accept = parse_shared(asked.arguments, asked.accept, declared, cwd=cwd, inputs=names, in_doubt=[])
    always = [(name, text) for name, value in shared.items() for text in _texts(value)]
    questions = tuple(Question(one.key, dict(one.args), (*one.args.items(), *always)) for one in inputs)
    questions = questions or (Question("", {}, tuple(always)),)
    output = None if asked.output is None else cwd / asked.output
    if output is not None and output.is_dir() and not questions[0].key:
        raise InputError(f"--output {output} is a folder", "name a file: without --input an answer has no name")
    return AskPlan(about.model, questions, accept, output, asked.at_once or _AT_ONCE)


def ask(client: Client, plan: AskPlan) -> Iterator[Answer]:
    """Yield what comes of each question, in their order; one that fails stops none of the others.

    Raises
    ------
    InputError
        The folder for the answers cannot be made.
    """
    folder = plan.output if plan.output is not None and (plan.is_many or plan.output.is_dir()) else None
    if folder is not None:
        _make_folder(folder)

    def answer(question: Question) -> Answer:
        began = time.monotonic()
        try:
            if plan.output is None:
                found = client.predict_texts(question.pairs, plan.accept)
                return Answer(question, time.monotonic() - began, found, found.content_type)
            file = plan.output if folder is None else folder / question.key
            content_type = client.predict_to(file, question.pairs, plan.accept)
            if folder is not None:
                with file.open("rb") as content:
                    ending = extension_of(content_type, content.read(START_BYTES))
                file = file.replace(folder / f"{question.key}{ending}")
            return Answer(question, time.monotonic() - began, None, content_type, file)
        except DeephpcError as error:
            return Answer(question, time.monotonic() - began, error=error)

    if not plan.is_many:  # in this thread, which Ctrl-C reaches
        return map(answer, plan.questions)
    return each_of(answer, plan.questions, plan.at_once)


def check_answers(failed: Sequence[Answer], count: int) -> None:
    """Raise what stands for all questions without an answer.

    Raises
    ------
    DeephpcError
        The first of their errors; where there were several questions it says how many failed.
    """
    if not failed or failed[0].error is None:
        return
    first = failed[0].error
    if count == 1:
        raise first
    told = f"{len(failed)} of {count} inputs have no answer; {failed[0].question.key}: {first.message}"
    raise type(first)(told, first.hint)


def _texts(value: JsonValue) -> list[str]:
    return [render_value(one) for one in value] if isinstance(value, list) else [render_value(value)]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: {error.strerror}", "name a folder for the answers") from error
