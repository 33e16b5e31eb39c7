"""Stands in front of the server of a job: `python -I -m deephpc.node.gateway RUN_FOLDER --socket PATH … -- WORDS…`.

Starts the server, then loads what else it takes, a quarter of a second in which the server loads as well, and stands
before it until one of them ends.

Exit codes: 0 told to end, or idle for as long as was agreed; 1 the server failed or never got ready; else the error's.
"""

import argparse
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from deephpc.errors import DeephpcError
from deephpc.node.gateway_port import ANYWHERE, choose_own_port
from deephpc.node.gateway_server import ServerProgram


def main(argv: Sequence[str]) -> int:
    """Serve one run; on a failure to begin say why in one line and return the error's exit code."""
    options = parse_options(argv)
    if options.set_up is not None:
        os.ftruncate(options.set_up, 0)  # the job script left there that we cannot run on this node
    _allow_many_files()
    options.told = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, partial(_end, options.told))  # until the gateway hears them itself
    program = ServerProgram(options.log, options.set_up)
    try:
        trouble = _start(program, options)
        from deephpc.node.gateway_life import stand_before  # start-up time: the server has begun to load by now

        return stand_before(program, options, trouble)
    except DeephpcError as error:
        print(f"deephpc: {error.message}", file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing of the server may be left
        program.end(options.grace)


def _end(told: list[int], number: int, _frame: FrameType | None) -> None:
    """End by an exception, which Python passes over where it happens to call back; so it is noted as well."""
    told.append(number)
    sys.exit(128 + number)


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return what only the node knows; the job script passes it."""
    parser = argparse.ArgumentParser(prog="deephpc.node.gateway", description="Stand in front of the server of a job.")
    parser.add_argument("run_folder", type=Path)
    upstream = parser.add_mutually_exclusive_group(required=True)
    upstream.add_argument("--socket", type=Path, help="the server's UNIX socket")
    upstream.add_argument("--port", type=int, help="the server's port on loopback")
    upstream.add_argument("--port-variable", help="the variable that tells the server its port on loopback")
    parser.add_argument("--address", default=ANYWHERE, help="where to listen")  # the token guards it
    parser.add_argument("--host", default=socket.gethostname(), help="this node's name")
    parser.add_argument("--job-id", default="none")
    parser.add_argument("--attempt", type=int, default=1)
    parser.add_argument("--ends-at", type=float, help="when the job reaches its time limit, in seconds since the epoch")
    parser.add_argument("--log", type=Path, required=True, help="where the server's output goes, at the end")
    parser.add_argument("--set-up", type=int, help="open descriptor that takes why the server never started")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a client may stall amid a request")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds for what is on its way, then for the server")
    parser.epilog = "Behind -- stands the server, to be started and ended."
    ours = list(argv)
    words = ours[ours.index("--") + 1 :] if "--" in ours else []
    options = parser.parse_args(ours[: len(ours) - len(words) - 1] if words else ours)
    options.words = words
    return options


def _start(program: ServerProgram, options: argparse.Namespace) -> str:
    """Start the server; return why it cannot be, or nothing."""
    environ = dict(os.environ)
    if options.port_variable:
        options.port = choose_own_port()
        environ[options.port_variable] = str(options.port)
    try:
        program.start(options.words, Path.cwd(), environ)
    except OSError as error:
        return f"{options.words[0]} cannot be started: {error.strerror}"
    return ""


def _allow_many_files() -> None:
    """Raise the limit of open files, one for each connection, as far as we may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
