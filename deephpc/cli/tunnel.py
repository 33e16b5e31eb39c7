"""`deephpc tunnel`."""

import socket
from typing import Annotated

import typer

from deephpc.account import account_name
from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import context
from deephpc.cli.servers import open_server
from deephpc.cli.streams import write_answer

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
    with open_server(here, server) as found:
        if dry_run:
            write_answer(render_address(found.server.wait(), as_json=here.json))
            return
        request = TunnelRequest(port, found.login, f"{account_name()}@{socket.gethostname()}")
        try:
            keep_tunnel(
                found.server,
                request,
                start_child,
                here.say,
                lambda one: write_answer(render_tunnel(one, as_json=here.json)),
            )
        except KeyboardInterrupt:
            here.say("the tunnel is closed")
