"""Servers as lines, tables and pages, or JSON (docs/reference/json.md)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from deephpc.render.answer import draw, to_json, visible
from deephpc.render.phrases import local_time
from deephpc.workflows.servers import Reply, Server, Stage

_COLOURS = {"ready": "green", "failed": "red", "ended": "magenta"}


def describe_stage(stage: Stage, since: datetime) -> str:
    """Return a stage that a server reached: one line, and what the last lines of one that failed add to its reason.

    Parameters
    ----------
    since
        When it was submitted.
    """
    where = f"on {stage.host}:{stage.port}" if stage.port else ""
    facts = visible(" ".join(filter(None, (where, stage.model, stage.reason))))
    elapsed_s = max(0.0, (stage.at - since).total_seconds())
    first = f"{elapsed_s:6.0f} s  {stage.stage:<9} {facts}".rstrip()
    more = [line for line in stage.last_lines if line.strip() not in stage.reason]
    return "\n".join([first, *(f"          | {visible(line)}" for line in more)])


def describe_ways(server: Server) -> tuple[str, ...]:
    """Return what can be done with a server that is ready."""
    is_ready = f"is ready at {server.url}" if not server.reason else f"answers at {server.url} ({server.reason})"
    return (
        f"{server.run_id} {is_ready}",
        *([f"  {visible(server.opened)}"] if server.opened else []),
        f"  deephpc tunnel {server.run_id}        # a port of this machine that leads there",
        f"  deephpc serve stop {server.run_id}    # ends it",
    )


def render_servers(
    servers: Sequence[Server], troubles: Sequence[str], now: datetime, *, as_json: bool, ended: int = 0
) -> str:
    """Return the list of servers; where there is none, how many have ended."""
    if as_json:
        rows = [_facts(server, now) for server in servers]
        return to_json("deephpc.servers/1", {"troubles": list(troubles), "servers": rows})
    if not servers and ended:
        return f"no server is alive; {ended} ended, --all shows {'it' if ended == 1 else 'them'}"
    if not servers:
        return "no servers yet; `deephpc serve start --help` shows how to start one"
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SERVER", "STAGE", "MODEL", "NODE", "LEFT", "URL"):
        table.add_column(name, no_wrap=True, overflow="fold")
    for server in servers:
        word = server.state.value if server.stage == "ended" else server.stage
        cells = (server.model or server.target, server.host or "-", _left(server, now), server.url or "-")
        colour = _COLOURS.get(server.stage, "yellow")
        table.add_row(server.run_id, Text(word, style=colour), *(visible(cell) for cell in cells))
    return draw(table)


def render_server(server: Server, reply: Reply | None, now: datetime, *, as_json: bool) -> str:
    """Return all that is known of one server.

    Parameters
    ----------
    reply
        What it said itself, where it was asked.
    """
    if as_json:
        answer = None if reply is None else reply.model_dump(mode="json")
        stages = [stage.model_dump(mode="json") for stage in server.stages]
        return to_json("deephpc.server/1", {**_facts(server, now), "reply": answer, "stages": stages})
    lines = [
        ("server", f"{server.run_id} ({server.kind})"),
        ("model", server.model or server.target),
        *([("models", server.opened)] if server.opened else []),
        ("state", f"{server.state.value}, {server.stage}" + (f": {server.reason}" if server.reason else "")),
        ("job", server.job_id or "-"),
        ("url", server.url or "-"),
        ("answers", _answers(reply)),
        ("time left", _left(server, now)),
        ("folder", server.folder),
    ]
    reached = [f"  {local_time(each.at)}  {each.stage:<9} after {each.after_s:.1f} s" for each in server.stages]
    tail = [f"  | {line}" for line in server.last_lines]
    return "\n".join(
        [
            *(f"{name:<10} {visible(value)}" for name, value in lines),
            *(["stages", *reached] if reached else []),
            *(["last lines", *map(visible, tail)] if tail else []),
        ]
    )


def render_stopped(servers: Sequence[tuple[Server, bool]], *, as_json: bool, is_dry: bool = False) -> str:
    """Return which servers were told to end, and how they ended."""
    if as_json:
        rows = [{"run_id": one.run_id, "told": told and not is_dry, "state": one.state.value} for one, told in servers]
        return to_json("deephpc.stopped/1", {"servers": rows})
    fates = [_fate(one, told, is_dry) for one, told in servers]
    return "\n".join(f"{one.run_id}: {fate}" for (one, _), fate in zip(servers, fates, strict=True))


def _fate(server: Server, told: bool, is_dry: bool) -> str:
    if not told:
        return f"had ended already ({server.state.value})"
    return "would be told to end" if is_dry else f"stopped ({server.state.value})"


def _facts(server: Server, now: datetime) -> dict[str, Any]:
    facts = server.model_dump(mode="json", exclude={"stages"})
    return {**facts, "time_left_s": server.time_left_s(now)}


def _left(server: Server, now: datetime) -> str:
    left = server.time_left_s(now)
    return "-" if left is None else str(timedelta(seconds=left))


def _answers(reply: Reply | None) -> str:
    if reply is None:
        return "not asked"
    if not reply.reached:
        return f"cannot be reached from here ({reply.said})"
    return "yes" if reply.ready else reply.said
