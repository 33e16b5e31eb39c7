"""`deephpc run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from deephpc.cli.context import context
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.submitting import DryRun, Wait, submit, with_launcher
from deephpc.errors import InputError

_FORMS = ("docker://", "oci:", "oci-archive:", "docker-archive:")


class CountsDashes(TyperCommand):
    """Notes how many words stand behind `--`, which the parser takes away: a target stands before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Click's own
        """Parse as ever."""
        ctx.meta["deephpc.behind_dashes"] = len(args) - args.index("--") - 1 if "--" in args else None
        return super().parse_args(ctx, args)


@takes_job_options
def run(
    ctx: typer.Context,
    words: JobOptionWords,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET] -- CMD",
            help="A module or image, and the command; natively without the first, the image's own without the second.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Run any command as a batch job, natively or in an image.

    Prints the run's id. Example: deephpc run docker://python:3.12-slim --time 30 -- python3 -c 'print(6*7)'
    """
    from deephpc.workflows.request import load_run_request

    here = context(ctx)
    options, variables = load_options(words, here.environ, Path.cwd(), here.settings.pass_env)
    target, program = _split(command or (), ctx.meta["deephpc.behind_dashes"])
    request = with_launcher(here, load_run_request(program, Path.cwd(), options, target), words.launcher)
    submit(here, request, variables, dry_run=dry_run, wait=wait)


run.command_settings = {"cls": CountsDashes}  # type: ignore[attr-defined] # read by the lazy group


def _split(words: Sequence[str], behind_dashes: int | None) -> tuple[str | None, Sequence[str]]:
    """Tell the target from the command: what stands before `--`; without one, a first word that names an image."""
    if behind_dashes is None:
        is_image = bool(words) and (words[0].startswith(_FORMS) or words[0].endswith(".sif"))
        return (words[0], words[1:]) if is_image else (None, words)
    before, program = words[: len(words) - behind_dashes], words[len(words) - behind_dashes :]
    if len(before) > 1:
        raise InputError(
            f"{before[1]!r} stands before `--`, where only the target does", "write the command behind `--`"
        )
    return (before[0] if before else None), program
