"""A tunnel, and where a server is reached, as lines to copy or JSON (docs/reference/json.md)."""

from typing import TYPE_CHECKING, Any

from deephpc.render.answer import to_json

if TYPE_CHECKING:
    from deephpc.serve.endpoint import Endpoint
    from deephpc.workflows.keep_tunnel import OpenTunnel
    from deephpc.workflows.reach_server import Reached


def render_tunnel(tunnel: "OpenTunnel", *, as_json: bool) -> str:
    """Return where the tunnel begins, and lines for curl, Python and a laptop."""
    lines = tunnel.lines
    if as_json:
        facts = {"url": lines.url, "local_port": tunnel.port, "way": tunnel.way, "curl": lines.curl}
        more = {"python": lines.python, "laptop": tunnel.laptop or None}
        return to_json("deephpc.tunnel/1", {**_facts(tunnel.endpoint, str(tunnel.folder)), **facts, **more})
    shown = [f"url      {lines.url}", f"curl     {lines.curl}"]
    if tunnel.endpoint.kind == "deepaas":
        shown.append(f"python   {lines.python}")
    else:
        shown.append(f"browser  {lines.url}/?token=…  (the token lies in {tunnel.folder}/secrets/token)")
    if tunnel.laptop:
        shown.append(f"laptop   {tunnel.laptop}")
    ends_at = tunnel.endpoint.ends_at
    if ends_at is not None:
        shown.append(
            f"until    {ends_at.astimezone():%Y-%m-%d %H:%M} at most, by way of {tunnel.way}; Ctrl-C closes it"
        )
    return "\n".join(shown)


def render_address(reached: "Reached", *, as_json: bool) -> str:
    """Return where a server is, without any tunnel."""
    endpoint = reached.address.endpoint
    if as_json:
        nothing = dict.fromkeys(("url", "local_port", "way", "curl", "python", "laptop"))
        return to_json("deephpc.tunnel/1", {**_facts(endpoint, str(reached.folder)), **nothing})
    return f"{endpoint.run_id} is ready on {endpoint.host}, port {endpoint.port}; a tunnel would be opened to there"


def _facts(endpoint: "Endpoint", folder: str) -> dict[str, Any]:
    return {
        "run_id": endpoint.run_id,
        "kind": endpoint.kind,
        "model": endpoint.model,
        "host": endpoint.host,
        "port": endpoint.port,
        "ends_at": endpoint.ends_at.isoformat() if endpoint.ends_at else None,
        "folder": folder,
    }
