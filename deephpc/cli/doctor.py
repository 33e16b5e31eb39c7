"""`deephpc doctor`."""

from typing import Annotated

import typer

from deephpc.cli.context import context
from deephpc.cli.streams import write_answer


def doctor(
    ctx: typer.Context,
    nodes: Annotated[bool, typer.Option("--nodes", help="Also run a job of seconds on a compute node.")] = False,
    wait: Annotated[int, typer.Option(min=1, max=3600, help="With --nodes: seconds that job may queue.")] = 60,
) -> None:
    """Check what this cluster has, what is missing and how to mend it; exit 3 when something fails.

    Example: deephpc doctor --nodes
    """
    from deephpc.render.sites import render_checks
    from deephpc.workflows.checks import exit_code
    from deephpc.workflows.doctor import Examination, examine

    here = context(ctx)
    checks = examine(Examination(here.settings, here.environ, on_nodes=nodes, node_wait_s=wait))
    write_answer(render_checks(checks, as_json=here.json))
    raise typer.Exit(exit_code(checks))
