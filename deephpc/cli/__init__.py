"""The command line: one file per noun, loaded when its command runs; `main` is the only place that catches errors."""

import errno
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deephpc import __version__
from deephpc.cli.context import Globals
from deephpc.cli.streams import drop_stdout, prepare_streams, unwritable_stdout
from deephpc.errors import DeephpcError

#: Command → where it is defined, and its line in `deephpc --help` (a test holds these lines against the commands').
COMMANDS = {
    "train": (
        "deephpc.cli.train:train",
        "Train a module of the catalogue, or a Python file or project folder, as a batch job.",
    ),
    "run": ("deephpc.cli.run:run", "Run any command as a batch job, natively or in an image."),
    "predict": (
        "deephpc.cli.predict:predict",
        "Apply a module to many inputs, as an array of batch jobs, or ask a server that runs.",
    ),
    "serve": ("deephpc.cli.serve:app", "Start, list, watch and stop servers that run as jobs."),
    "jobs": ("deephpc.cli.jobs:app", "List, show, wait for, cancel and rerun jobs."),
    "logs": ("deephpc.cli.logs:logs", "Print what a job wrote, and follow it."),
    "why": ("deephpc.cli.jobs:why", "Say in words why a run waits or how it failed, and what to do next."),
    "collect": (
        "deephpc.cli.collect:collect",
        "Send what a run left (output, checkpoints, log, result, metrics) to storage, verified; nothing twice.",
    ),
    "tunnel": (
        "deephpc.cli.tunnel:tunnel",
        "Keep a local port open to a server on a compute node, until the server ends or Ctrl-C.",
    ),
    "catalogue": ("deephpc.cli.catalogue:app", "Find modules, and publish your own."),
    "module": ("deephpc.cli.module:app", "See what a module takes, and make new ones."),
    "image": ("deephpc.cli.image:app", "Pull, check, list and remove container images."),
    "data": ("deephpc.cli.data:app", "List, bring, send, stage and verify data by URL or rclone remote."),
    "site": ("deephpc.cli.site:app", "Show, probe and write the profile of a cluster."),
    "doctor": (
        "deephpc.cli.doctor:doctor",
        "Check what this cluster has, what is missing and how to mend it; exit 3 when something fails.",
    ),
    "config": ("deephpc.cli.config:app", "Show the settings, and where each value comes from."),
}


#: Commands that bring a server of --host here; all others run there, or do not go with it (`cli.far`).
_BROUGHT_HERE = ("tunnel", "predict")

#: What writing to a full disk or a closed stdout ends with.
_NOT_WRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EBADF})


class _ReaderLeft(Exception):  # noqa: N818 - no error: `deephpc jobs | head`
    """Nobody reads our output any more."""


class _LazyGroup(TyperGroup):
    """Loads a command's module when the command is asked for, never for `--help`."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Click's own, passed on
        super().__init__(**attributes)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment] # names alone: read for "did you mean"

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # noqa: ARG002 - Click's
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override] # noqa: ANN401, ARG002 - Click's
        """Import and return a command; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        single = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
        single.command(cmd_name, **getattr(found, "command_settings", {}))(found)
        return typer.main.get_command(single)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override] # noqa: ANN401 - Click's
        """Run the command; a reader that left is told apart before Typer sees it, which would end with a bug's code."""
        words = [*ctx._protected_args, *ctx.args]  # Click's own way to them, before it looks for the command
        try:
            if ctx.params.get("host") is not None and words and words[0] not in _BROUGHT_HERE:
                return _pass_on(ctx, words)
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override] # noqa: ANN401, ARG002 - Click's
        """Write the table of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _pass_on(ctx: typer.Context, words: list[str]) -> int:
    """Have the machine of --host run a command."""
    from deephpc.cli.far import pass_on

    ctx.invoke(_root, ctx, **ctx.params)
    return pass_on(ctx.obj, words)


app = typer.Typer(
    cls=_LazyGroup,
    rich_markup_mode=None,  # plain help: loading Rich for it would double the start-up time
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deephpc {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    ctx: typer.Context,
    *,
    site: Annotated[
        str | None, typer.Option(help="Site profile to use, such as `lumi`; see `deephpc site list`.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file to read instead of the user's own.")] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="From a laptop: ask deephpc on this login node, over ssh.", metavar="USER@LOGIN", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON; may stand anywhere before `--`.")] = False,
    verbose: Annotated[
        bool | None,
        typer.Option("--verbose/--quiet", "-v/-q", help="Say on stderr also how it goes about it, or errors alone."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 - main()'s
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """deephpc: the whole machine-learning cycle on any Slurm cluster, from a plain user account.

    Example: deephpc train train.py --gpus-per-node 4 --time 2:00:00 -- --epochs 40
    """
    ctx.obj = Globals(
        site=site, config=config, json=as_json, verbose=verbose is True, quiet=verbose is False, host=host
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; every error ends as one line and a hint on stderr."""
    words = _global_flags_first(list(sys.argv[1:] if argv is None else argv))
    debug = "--debug" in _before_dashes(words)
    prepare_streams()
    try:
        code = app(words, prog_name="deephpc", standalone_mode=False)
        sys.stdout.flush()
    except DeephpcError as error:
        code = _tell(error.message, error.hint, error.exit_code, error if debug else None)
    except typer.TyperException as error:
        code = _tell_misuse(error, debug)
    except (KeyboardInterrupt, typer.Abort):
        code = _tell("interrupted", "", 130, None)
    except (BrokenPipeError, _ReaderLeft):  # the reader of our output left: `deephpc jobs | head`
        drop_stdout()
        code = 0
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            code = _tell_bug(error, debug)
        else:  # help and logs are written without `write_answer`
            trouble = unwritable_stdout(error)
            code = _tell(trouble.message, trouble.hint, trouble.exit_code, error if debug else None)
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a message
        code = _tell_bug(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _tell_bug(error: Exception, debug: bool) -> int:
    message = f"a bug in deephpc: {type(error).__name__}: {error}"
    return _tell(message, "run it again with --debug and report what it prints", 1, error if debug else None)


def _global_flags_first(words: list[str]) -> list[str]:
    """Let `--json` and `--debug` stand behind the command too, as people write them."""
    ours = _before_dashes(words)
    flags = [flag for flag in ("--json", "--debug") if flag in ours]
    return [*flags, *(word for word in ours if word not in flags), *words[len(ours) :]]


def _before_dashes(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _tell_misuse(error: typer.TyperException, debug: bool) -> int:
    """Say which word on the command line is wrong; a noun without its verb gets the noun's help."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return 2
    return _tell(message, _usage_hint(error), 2, error if debug else None)


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    if context is None:
        return "see `deephpc --help`"
    own = "what is your program's or module's own goes behind `--`; " if context.info_name in ("train", "run") else ""
    is_option = type(error).__name__ == "NoSuchOption"
    return f"{own if is_option else ''}see `{context.command_path} --help`"


def _tell(message: str, hint: str, code: int, error: BaseException | None) -> int:
    """Write an error to stderr, red on a terminal, with the traceback where asked for."""
    if error is not None:
        import traceback  # rarely needed

        traceback.print_exception(error)
    from deephpc.render.answer import visible  # not needed where all goes well

    typer.secho(f"error: {visible(' '.join(message.split()))}", fg="red", err=True)
    if hint:
        typer.echo(f"  hint: {visible(' '.join(hint.split()))}", err=True)
    return code
