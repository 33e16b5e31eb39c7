"""`deephpc predict SERVER`: predictions on a server that runs."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

from deephpc.cli.context import Context
from deephpc.cli.options import JobOptionWords
from deephpc.cli.servers import open_server
from deephpc.cli.streams import write_answer, write_bytes
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.serve.client import Client
    from deephpc.workflows.ask_server import AskPlan, AskWords


def names_server(here: Context, target: str) -> bool:
    """Whether a target is a server of the record, not a module or an image; behind --host it can be nothing else.

    Raises
    ------
    InputError
        It looks like a server's id, and no run has it, or several have.
    """
    from deephpc.workflows.reach_server import is_meant_as_server

    if here.options.host is not None:
        return True
    with here.open_record_if_any() as record:
        return is_meant_as_server(target, record)


def check_no_job_options(words: JobOptionWords, others: dict[str, object]) -> None:
    """Refuse what only a batch job takes.

    Raises
    ------
    InputError
        One of them was given.
    """
    default = JobOptionWords()
    given = [f.name for f in fields(JobOptionWords) if getattr(words, f.name) != getattr(default, f.name)]
    given += [name for name, value in others.items() if value]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{option} is for batches of jobs; a server runs already", "leave it out, or name a module")


def ask_server(here: Context, target: str, asked: "AskWords", *, dry_run: bool) -> None:
    """Ask a server, and write its answers as they come.

    Raises
    ------
    DeephpcError
        There is no such server, it takes no such arguments, or it has no answer.
    """
    from pathlib import Path

    from deephpc.render.answers import render_questions
    from deephpc.workflows.ask_server import plan_asks

    with _client(here, target) as client:
        plan = plan_asks(asked, client.describe(), Path.cwd())
        if dry_run:
            write_answer(render_questions(plan, as_json=here.json))
            return
        _write_answers(here, target, client, plan)


@contextmanager
def _client(here: Context, target: str) -> "Iterator[Client]":
    """Open a client of a server, through ssh where its node cannot be reached otherwise."""
    from deephpc.serve.client import Client
    from deephpc.serve.tunnel import Tunnel, plan_ways
    from deephpc.shell import start_child

    with open_server(here, target) as found:
        reached = found.server.wait()
        endpoint = reached.address.endpoint
        if endpoint.kind != "deepaas":
            raise InputError(
                f"{endpoint.run_id} serves {endpoint.kind}, which predicts nothing",
                f"`deephpc tunnel {endpoint.run_id}` leads to it",
            )
        tunnel = Tunnel(reached.address, plan_ways(endpoint, found.login), start_child, tell=here.tell_more)
        with closing(tunnel), Client(tunnel.open()) as client:
            yield client


def _write_answers(here: Context, target: str, client: "Client", plan: "AskPlan") -> None:
    from deephpc.render.answers import render_answer, render_answers
    from deephpc.workflows.ask_server import ask, check_answers

    answers = []
    for answer in ask(client, plan):
        if not here.json:
            write_bytes(render_answer(answer, plan))
            answer = answer.without_content()  # noqa: PLW2901 - not all of them fit into memory
        answers.append(answer)
    failed = [answer for answer in answers if answer.error is not None]
    if here.json:
        write_answer(render_answers(answers, plan, target))
    elif plan.is_many:
        here.say(f"{len(answers) - len(failed)} of {len(answers)} inputs have an answer")
    check_answers(failed, len(answers))
