"""The two forms of an answer: a table drawn for the terminal it goes to, and JSON with a versioned shape."""

import json
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN_WIDTH = 200


def draw(table: "Table") -> str:
    """Draw a table in the terminal's width and colours, or wide and plain where there is no terminal."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else _PLAIN_WIDTH
    console = Console(width=width, force_terminal=is_terminal, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def to_json(schema: str, facts: Mapping[str, Any]) -> str:
    """Return an answer as JSON; the schema's number rises when a key changes its meaning or goes."""
    return json.dumps({"schema": schema, **facts}, ensure_ascii=False, default=str)
