"""What every command finds around it: the global options, the settings, the record, the schedulers."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deephpc.account import account_home, account_name
from deephpc.errors import SiteError

if TYPE_CHECKING:
    from deephpc.config import Settings
    from deephpc.jobs.record import Record
    from deephpc.jobs.scheduler import Scheduler


#: The record's name in the state folder.
RECORD = "deephpc.db"


@dataclass(frozen=True, slots=True)
class Globals:
    """The global options."""

    site: str | None = None
    config: Path | None = None
    json: bool = False
    verbose: bool = False
    quiet: bool = False
    host: str | None = None


@dataclass
class Context:
    """One command's surroundings; the settings and what hangs on them are loaded when first asked for."""

    options: Globals
    environ: Mapping[str, str] = field(default_factory=lambda: complete_environment(os.environ))

    @property
    def json(self) -> bool:
        """Whether the answer is wanted as JSON."""
        return self.options.json

    @cached_property
    def home(self) -> Path:
        """The user's home."""
        return Path(self.environ["HOME"])

    @cached_property
    def has_slurm(self) -> bool:
        """Whether Slurm's commands are on PATH."""
        return shutil.which("sbatch", path=self.environ.get("PATH")) is not None

    @cached_property
    def settings(self) -> "Settings":
        """The resolved settings."""
        from deephpc.config import load_settings

        settings = load_settings(
            site=self.options.site,
            config=self.options.config,
            environ=self.environ,
            home=self.home,
            has_slurm=self.has_slurm,
        )
        self.tell_more(f"site {settings.site.name} ({settings.origins['site']})")
        for origin in sorted(set(settings.origins.values())):
            if " file " in origin:
                self.tell_more(f"read the {origin}")
        return settings

    def open_record(self) -> "Record":
        """Open the record of jobs; close it, or use it in `with`."""
        from deephpc.jobs.record import Record

        return Record(self.settings.state_dir / RECORD)

    def open_record_if_any(self) -> "AbstractContextManager[Record | None]":
        """Open the record where there is one; a dry run makes none."""
        path = self.settings.state_dir / RECORD
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return nullcontext()
        except OSError as error:
            raise SiteError(f"cannot read {path}: {error.strerror}", "set another DEEPHPC_STATE_DIR") from error
        return self.open_record()

    @cached_property
    def schedulers(self) -> "dict[str, Scheduler]":
        """The schedulers this machine reaches, by the name jobs are recorded under."""
        from deephpc.workflows.schedulers import open_schedulers

        found, note = open_schedulers(self.settings, self.environ, has_slurm=self.has_slurm)
        if note:
            self.say(note)
        return found

    def scheduler(self) -> "Scheduler":
        """Return the scheduler new jobs go to.

        Raises
        ------
        SiteError
            The site's scheduler is not on this machine.
        """
        name = "local" if self.settings.scheduler == "local" else "slurm"
        if name not in self.schedulers:
            raise SiteError(
                f"site {self.settings.site.name} runs jobs with {name}, whose commands are not on PATH here",
                "go to a login node, or use --site local",
            )
        return self.schedulers[name]

    def clock(self) -> datetime:
        """Return the present, aware."""
        return datetime.now(timezone.utc)

    def say(self, line: str) -> None:
        """Tell the user something on stderr, unless --quiet."""
        if not self.options.quiet:
            print(line, file=sys.stderr)  # noqa: T201 - the talk, not the answer

    def tell_more(self, line: str) -> None:
        """Tell how a command goes about it, where --verbose asks for that."""
        if self.options.verbose:
            self.say(f"- {line}")


def context(ctx: typer.Context) -> Context:
    """Return the surroundings of the running command."""
    here = Context(ctx.find_object(Globals) or Globals())
    if here.options.verbose:  # https://docs.python.org/3/library/audit_events.html: raised before each process starts
        sys.addaudithook(lambda event, facts: _tell_of_process(here, facts) if event == "subprocess.Popen" else None)
    return here


def _tell_of_process(here: Context, facts: tuple[Any, ...]) -> None:
    here.tell_more(f"call {shlex.join(map(str, facts[1]))}")


def complete_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with HOME, which cron and `env -i` leave out, and the account's true name.

    USER and LOGNAME are what the password database says, whatever stood there: jobs belong to the account.
    """
    name = account_name()
    return {**environ, "HOME": environ.get("HOME") or account_home(), "USER": name, "LOGNAME": name}
