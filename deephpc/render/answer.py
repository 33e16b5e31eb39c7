"""The two forms of an answer: a table drawn for the terminal it goes to, and JSON with a versioned shape."""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN_WIDTH = 100_000  # a line is as long as it needs to be
#: Control characters but the tab, what turns the direction of writing, other ends of lines, and halves of characters.
_INVISIBLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def draw(table: "Table", *, at_least: int = 0) -> str:
    """Draw a table in the terminal's colours and width, or `at_least` so wide; plain where there is no terminal."""
    from rich.console import Console

    width = terminal_width()
    console = Console(width=max(width or _PLAIN_WIDTH, at_least), force_terminal=width is not None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def terminal_width() -> int | None:
    """Return the columns of the terminal the answer goes to; None where it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def visible(text: str) -> str:
    r"""Return a text with what a terminal would obey rather than show written out, as `\x1b`."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def to_json(schema: str, facts: Mapping[str, Any]) -> str:
    """Return an answer as JSON; the schema's number rises when a key changes its meaning or goes."""
    return json.dumps({"schema": schema, **facts}, ensure_ascii=False, default=str)
