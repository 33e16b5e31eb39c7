"""Servers that commands ask for: of the record here, or behind the login node of --host."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.cli.context import Context
from deephpc.cli.signals import cleaning_up

if TYPE_CHECKING:
    from deephpc.workflows.reach_server import Server


@dataclass(frozen=True, slots=True)
class OpenServer:
    """A server, and how this machine stands to it."""

    server: "Server"
    login: str | None
    """The login node it is reached through; None where this is one."""


@contextmanager
def open_server(here: Context, word: str) -> Iterator[OpenServer]:
    """Have a server that a word names; what is kept of one behind --host is removed at the end.

    Raises
    ------
    InputError
        There is no such run, or it is no server.
    SiteError
        The login node cannot be reached.
    """
    with cleaning_up():
        if here.options.host is None:
            from deephpc.workflows.reach_server import RecordedServer, find_server

            with here.open_record() as record:
                job = find_server(word, record)
                yield OpenServer(RecordedServer(job, record, here.schedulers, here.say, clock=here.clock), None)
            return
        from deephpc.cli.far import far_options, open_far
        from deephpc.workflows.far import FarServer

        options = far_options(replace(here.options, json=False))
        with open_far(here) as far, tempfile.TemporaryDirectory(prefix="deephpc-", dir=_private_place(here)) as private:
            yield OpenServer(FarServer(far, options, word, Path(private)), far.host)


def _private_place(here: Context) -> Path | None:
    """Return a folder that goes when the user logs out, where there is one (XDG Base Directory Specification 0.8)."""
    place = Path(here.environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    return place if place.is_dir() else None
