"""The table of commands against the commands, and what `--help` costs."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from deephpc.cli import COMMANDS, app


def leaves(command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Return every command, groups too, with its path."""
    if path:
        yield " ".join(path), command
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from leaves(command.get_command(None, name), (*path, name))


ALL = dict(leaves(typer.main.get_group(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_is_the_commands_own(name: str):
    assert COMMANDS[name][1] == ALL[name].help.splitlines()[0].strip()


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_an_example_in_its_help(path: str):
    words = " ".join((ALL[path].help or "").split())
    assert f"deephpc {path}" in words or "Example: deephpc" in words


@pytest.mark.parametrize("path", ALL)
def test_every_option_has_a_help_text(path: str):
    missing = [parameter.name for parameter in ALL[path].params if not getattr(parameter, "help", None)]
    assert missing == [] or missing == ["help"]


def test_help_loads_neither_rich_nor_pydantic_nor_the_record():
    program = (
        "import sys\n"
        "from deephpc.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'rich', 'pydantic', 'sqlite_utils', 'sqlite3', 'jinja2', 'deephpc.jobs', 'deephpc.config'}\n"
        "print(code, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "Commands:" in done.stdout
    for name, (_, line) in COMMANDS.items():
        assert name in done.stdout
        assert line.split()[0] in done.stdout
