"""Renders the job script from its template in `jobscripts/`: same spec, same bytes."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from deephpc import __version__
from deephpc.jobs.launcher import launch_variables
from deephpc.jobs.slurm_controller import CONTROLLER_VARIABLES
from deephpc.jobs.slurm_options import has_room_for
from deephpc.jobs.spec import JobSpec
from deephpc.places import shipped
from deephpc.quoting import quote_for_bash

if TYPE_CHECKING:
    from jinja2 import Template

#: Linux refuses a single argument beyond this (MAX_ARG_STRLEN, execve(2)), and Slurm a script beyond 4 MiB.
LONGEST_WORD_BYTES = 128 * 1024 - 1
LONGEST_SCRIPT_BYTES = 2 * 1024 * 1024


def render_script(spec: JobSpec, directives: Sequence[str]) -> str:
    """Return the text of `job.sh`.

    Parameters
    ----------
    directives
        The scheduler's own comment lines, in order, already quoted.

    Raises
    ------
    ValueError
        A word, or the whole, is longer than the system can carry; or has a NUL.
    """
    for word in spec.command:
        if "\0" in word:
            raise ValueError("an argument contains a NUL character, which no program can be given")
        if len(word.encode()) > LONGEST_WORD_BYTES:
            raise ValueError(f"an argument of {len(word.encode())} bytes is longer than Linux allows (131071)")
    walltime = spec.resources.walltime
    text = _template().render(
        directives=directives,
        version=__version__,
        run_id=spec.run_id,
        folder=str(spec.folder),
        in_container=spec.in_container,
        gateway=spec.gateway,
        has_private=spec.in_container or spec.gateway is not None,
        collection=spec.collection,
        launch_variables=launch_variables(spec),
        node_scratch=spec.node_scratch,
        workdir=str(spec.workdir),
        command=spec.command,
        modules=spec.environment.modules,
        loaded_modules=spec.environment.loaded_modules,
        has_modules=bool(spec.environment.modules or spec.environment.loaded_modules or spec.environment.has_modules),
        setup=spec.environment.setup,
        variables=spec.environment.variables,
        venv=str(spec.environment.venv) if spec.environment.venv else None,
        has_secrets=spec.has_secrets,
        walltime_s=int(walltime.total_seconds()) if walltime else 0,
        max_requeues=spec.max_requeues,
        controller_variables=" ".join(sorted(CONTROLLER_VARIABLES)),
        continue_by="chain" if spec.chain else "requeue",
        alarm_s=_alarm_s(spec),
        grace_s=int(spec.grace.total_seconds()),
        cpus=(spec.resources.tasks_per_node or 1) * (spec.resources.cpus_per_task or 1),
    )
    if len(text.encode()) > LONGEST_SCRIPT_BYTES:
        raise ValueError(f"the arguments make a job script of {len(text.encode())} bytes; at most 2 MiB are allowed")
    return text


def _alarm_s(spec: JobSpec) -> int | None:
    """Return after how many seconds the script itself tells the program of its end; None where Slurm's signal does it.

    0 where no time limit was asked for: the script asks Slurm for the one it has.
    """
    walltime = spec.resources.walltime
    if not spec.grace or has_room_for(spec.grace, walltime):
        return None
    if walltime is None:
        return 0
    return max(1, int((walltime - spec.grace).total_seconds())) if walltime > spec.grace else None


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # start-up time: most commands render no script

    environment = Environment(
        loader=FileSystemLoader(shipped("jobscripts")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - bash, not HTML: every value goes through the `sh` filter
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = quote_for_bash
    return environment.get_template("job.sh.jinja")
