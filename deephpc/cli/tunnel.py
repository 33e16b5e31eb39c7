"""`deephpc tunnel`."""

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import Context, context
from deephpc.cli.signals import cleaning_up
from deephpc.cli.streams import write_answer

if TYPE_CHECKING:
    from deephpc.jobs.record import Record
    from deephpc.workflows.reach_server import RecordedServer

Server = Annotated[
    str,
    typer.Argument(metavar="SERVER", help="Run of a server, or start of its id.", autocompletion=complete_run_id),
]


def tunnel(
    ctx: typer.Context,
    server: Server,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of this machine's loopback (a free one if not said).", min=1, max=65535, show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say where the server is once it is ready, and open nothing.")
    ] = False,
) -> None:
    """Keep a local port open to a server on a compute node, until the server ends or Ctrl-C.

    Prints its URL, and lines for curl and Python. Example: deephpc tunnel serve-plankton-91c2 --port 8443
    """
    from deephpc.render.tunnel import render_address, render_tunnel
    from deephpc.shell import start_child
    from deephpc.workflows.keep_tunnel import TunnelRequest, keep_tunnel

    here = context(ctx)
    with cleaning_up(), here.open_record() as record:
        found = open_server(here, record, server)
        if dry_run:
            write_answer(render_address(found.wait(), as_json=here.json))
            return
        request = TunnelRequest(port=port, here=f"{here.environ['USER']}@{socket.gethostname()}")
        try:
            keep_tunnel(
                found, request, start_child, here.say, lambda one: write_answer(render_tunnel(one, as_json=here.json))
            )
        except KeyboardInterrupt:
            here.say("the tunnel is closed")


def open_server(here: Context, record: "Record", word: str) -> "RecordedServer":
    """Return the server that a word names.

    Raises
    ------
    InputError
        There is no such run, or it is no server.
    """
    from deephpc.workflows.reach_server import RecordedServer, find_server

    return RecordedServer(find_server(word, record), record, here.schedulers, here.say, clock=here.clock)
