"""Pages that show a terminal: their commands, what they print, and whether that is what came.

Without output, commands may also stand in an indented block, with or without `$ `, each with a comment behind it.

A block that is fenced as ```console has commands after `$ ` (a line that ends with a backslash goes on in the next)
and below each what it prints on both streams. A line `…` stands for any lines, and `…` in a line for any words. All
else must be as shown, but for numbers, dates, digests, bars and the width of columns. Ids of runs may differ from those
on the page; then they differ everywhere.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN_ID = re.compile(r"\b(?:train|run|predict|serve)-[a-z0-9-]+-[0-9a-f]{4}\b")
_VOLATILE = (
    (re.compile(r"\b[0-9a-f]{12,}\b"), "HASH"),
    (re.compile(r"[▁▂▃▄▅▆▇█]+"), "BAR"),
    (re.compile(r"\d+(?:[.,:/T-]\d+)*Z?"), "N"),
    (re.compile(r"[ \t]+"), " "),
)
_ANY = "…"
_COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Shown:
    """A command on a page and what the page says that it prints."""

    command: str
    output: str
    line: int
    """Where it stands, from 1."""


def load_page(path: Path) -> list[Shown]:
    """Return the commands of a page in their order."""
    text = path.read_text(encoding="utf-8")
    return [
        shown
        for block in _BLOCK.finditer(text)
        for shown in _commands(block[1], text.count("\n", 0, block.start(1)) + 1)
    ]


def commands_under(heading: str, path: Path) -> list[str]:
    """Return the commands of the indented blocks below a heading of a page, as they are to be typed.

    Raises
    ------
    ValueError
        There is no such heading, or no command below it.
    """
    _, found, rest = path.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = rest.partition("\n## ")[0]
    commands = [
        _COMMENT.sub("", line).removeprefix("$ ") for line in re.findall(r"^ {4}(\S.*)$", section, re.MULTILINE)
    ]
    if not found or not commands:
        raise ValueError(f"{path.name} has no commands under the heading {heading!r}")
    return commands


def _commands(block: str, first_line: int) -> Iterator[Shown]:
    lines = block.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    if starts[:1] != [0]:
        raise ValueError(f"line {first_line}: a console block begins with `$ COMMAND`")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last = start
        while lines[last].endswith("\\"):
            last += 1
        command = "\n".join(lines[start : last + 1])[2:]
        yield Shown(command, "".join(f"{line}\n" for line in lines[last + 1 : end]), first_line + start)


def learn_ids(shown: str, came: str, known: dict[str, str]) -> None:
    """Take note of which run's id came in the place of one on the page, in the order in which both first occur."""
    ours, theirs = (list(dict.fromkeys(_RUN_ID.findall(text))) for text in (shown, came))
    fresh = [each for each in ours if each not in known]
    known.update(zip(fresh, (each for each in theirs if each not in known.values()), strict=False))


def with_ids(text: str, known: Mapping[str, str]) -> str:
    """Return a text of the page with the ids that came."""
    return _RUN_ID.sub(lambda found: known.get(found[0], found[0]), text)


def difference(shown: str, came: str) -> str:
    """Return "" when what came is what the page shows, else both to compare."""
    expected, found = (list(map(_settled, text.splitlines())) for text in (shown, came))
    pattern = "".join(r"(?:.*\n)*?" if line == _ANY else _pattern(line) for line in expected)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in found)):
        return ""
    compared = difflib.unified_diff(expected, found, "the page", "what came", lineterm="", n=100)
    return "\n".join([*compared, "", "as it came:", came])


def rewritten(text: str, came: Iterable[tuple[Shown, str]], known: Mapping[str, str]) -> str:
    """Return a page that shows what came, and the ids that came; lines and words that it left out stay left out.

    Raises
    ------
    StopIteration
        A line beside those left out did not come: what the page leaves out there has to be chosen anew.
    """
    for shown, output in came:
        before = f"$ {shown.command}\n{shown.output}"
        lines = _merged(shown.output.splitlines(), with_ids(shown.output, known).splitlines(), output.splitlines())
        text = text.replace(before, "".join(f"{line}\n" for line in (f"$ {shown.command}", *lines)), 1)
    return with_ids(text, known)


def _merged(shown: list[str], expected: list[str], came: list[str]) -> Iterator[str]:
    """Yield the lines that came, as far as the page shows them."""
    if not any(_ANY in line for line in shown):
        yield from came
        return
    waiting = iter(came)
    for old, wanted in zip(shown, expected, strict=True):
        if old == _ANY:
            yield old
            continue
        pattern = _pattern(_settled(wanted)).removesuffix(r"\n")
        found = next(line for line in waiting if re.fullmatch(pattern, _settled(line)))
        yield old if _ANY in old else found


def _settled(line: str) -> str:
    """Return a line without what may differ; ids stay as they are."""
    pieces = re.split(f"({_RUN_ID.pattern})", line)
    for volatile, word in _VOLATILE:
        pieces[::2] = (volatile.sub(word, piece) for piece in pieces[::2])
    return "".join(pieces).strip()


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split(_ANY))) + r"\n"
