"""`deephpc --host user@login …`: commands for deephpc on a login node, from a laptop."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deephpc.cli.context import Context, Globals
from deephpc.cli.signals import cleaning_up
from deephpc.cli.streams import write_bytes
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.workflows.far import FarDeephpc

#: Commands that need nothing of this machine: they run there, word for word.
PASSED_ON = ("jobs", "logs", "why", "serve", "collect")


def pass_on(options: Globals, words: Sequence[str]) -> int:
    """Run a command there and return its exit code; its streams are ours.

    Raises
    ------
    InputError
        It is a command that works on this machine's files.
    SiteError
        The login node cannot be reached, or has no deephpc.
    """
    if words[0] not in PASSED_ON:
        known = ", ".join(PASSED_ON)
        raise InputError(
            f"`{words[0]}` does not go with --host", f"log in and run it there; --host is for {known}, tunnel, predict"
        )
    here = Context(options)
    with cleaning_up(), open_far(here) as far:
        return far.run([*far_options(options), *words], write_bytes, _write_talk)


@contextmanager
def open_far(here: Context) -> "Iterator[FarDeephpc]":
    """Open a connection to deephpc on the machine of --host.

    Raises
    ------
    InputError
        --host is no machine, or the settings are wrong.
    """
    from deephpc.config import load_settings
    from deephpc.remote_shell import RemoteShell
    from deephpc.workflows.far import FarDeephpc

    settings = load_settings(environ=here.environ, home=here.home, has_slurm=here.has_slurm)  # --site is for there
    with RemoteShell(here.options.host or "") as shell:
        yield FarDeephpc(shell, settings.far_program, here.say)


def far_options(options: Globals) -> tuple[str, ...]:
    """Return the global options as they are meant for the machine there."""
    return (
        *(("--site", options.site) if options.site is not None else ()),
        *(("--config", str(options.config)) if options.config is not None else ()),
        *(("--json",) if options.json else ()),
        *(("--verbose",) if options.verbose else ()),
        *(("--quiet",) if options.quiet else ()),
    )


def _write_talk(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
