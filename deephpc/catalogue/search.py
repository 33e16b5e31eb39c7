"""Finds modules: by words, best first; by filters; by name."""

import difflib
import re
import sqlite3
from collections.abc import Sequence

from deephpc.catalogue.module import INFERENCE, PRE_TRAINED, TRAINABLE, Module
from deephpc.errors import InputError
from deephpc.model import Model

_WORD = re.compile(r"\w+")
#: How much a word counts in name, title, summary, description and tags (bm25 of FTS5).
_WEIGHTS = "10.0, 8.0, 4.0, 1.0, 5.0"
_MAX_WORDS = 32
_SHORT_CATEGORIES = {"trainable": TRAINABLE, "inference": INFERENCE, "pre-trained": PRE_TRAINED, "tools": "AI4 tools"}
_COLUMNS = ("libraries", "tasks", "categories", "tags")


class Filters(Model):
    """What a module must have; several values of one kind must all be there."""

    is_trainable: bool = False
    has_inference: bool = False
    is_pre_trained: bool = False
    libraries: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Hits(Model):
    """The modules that were found."""

    modules: tuple[Module, ...]
    """Best first for a search, by name for a list."""
    note: str = ""
    """What was loosened to find them, or what is near; empty when nothing had to be."""


def list_modules(index: sqlite3.Connection, filters: Filters) -> Hits:
    """Return the modules that pass the filters, by name."""
    condition, values = _condition(filters)
    rows = index.execute(
        f"SELECT json FROM modules WHERE {condition} ORDER BY name COLLATE NOCASE, id",  # noqa: S608 - no values in it
        values,
    )
    return _hits(index, rows.fetchall(), filters, "")


def search_modules(index: sqlite3.Connection, text: str, filters: Filters) -> Hits:
    """Return the modules that have all the words, or failing that any of them, best first; words match as beginnings.

    Without a text those that pass the filters, where there are any.

    Raises
    ------
    InputError
        The text has no words.
    """
    words = _WORD.findall(text)[:_MAX_WORDS]
    if not text and filters != Filters():
        return list_modules(index, filters)
    if not words:
        raise InputError(f"{text!r} has no word to search for", "try `deephpc catalogue search plankton`")
    rows = _matching(index, words, " AND ", filters)
    note = ""
    if not rows and len(words) > 1:
        rows = _matching(index, words, " OR ", filters)
        note = "no module has all of these words; these have some" if rows else ""
    return _hits(index, rows, filters, note or ("" if rows else _near_words(index, words)))


def find_module(index: sqlite3.Connection, name: str) -> tuple[Module, ...]:
    """Return the modules of a name, or of SOURCE/NAME, in the order of their sources; capitals do not count.

    Raises
    ------
    InputError
        There is none; the hint has the nearest name.
    """
    source, _, bare = _sendable(name.strip()).rpartition("/")
    rows = index.execute(
        "SELECT json FROM modules WHERE name = ? COLLATE NOCASE AND (? = '' OR source = ?) ORDER BY name = ? DESC, id",
        (bare, source, source, bare),
    ).fetchall()
    if rows:
        return tuple(Module.model_validate_json(row[0]) for row in rows)
    names = [row[0] for row in index.execute("SELECT DISTINCT name FROM modules")]
    near = _near_names(bare, names)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "see `deephpc catalogue list`, or `deephpc catalogue update`"
    )
    raise InputError(f"no module {name!r} in the catalogue", hint)


def _near_names(name: str, names: Sequence[str]) -> list[str]:
    by_lower = {each.lower(): each for each in names}
    inside = [each for lower, each in by_lower.items() if len(name) > 3 and name.lower() in lower]
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.6)
    return list(dict.fromkeys([*inside, *(by_lower[each] for each in close)]))[:3]


def _matching(index: sqlite3.Connection, words: Sequence[str], joint: str, filters: Filters) -> list[tuple[str]]:
    condition, values = _condition(filters)
    query = joint.join(f'"{word}"*' for word in words)  # \w has no quote in it
    return index.execute(
        f"SELECT json FROM words JOIN modules ON modules.id = words.rowid WHERE words MATCH ? AND {condition} "  # noqa: S608
        f"ORDER BY bm25(words, {_WEIGHTS}), id",
        (query, *values),
    ).fetchall()


def _condition(filters: Filters) -> tuple[str, list[str]]:
    """Return the WHERE of the filters and its values."""
    parts = [flag for flag in ("is_trainable", "has_inference", "is_pre_trained") if getattr(filters, flag)]
    values: list[str] = []
    for column in _COLUMNS:
        for wanted in getattr(filters, column):
            parts.append(f"instr(modules.{column}, ?) > 0")
            values.append(f"\x1f{_sendable(_full_name(column, wanted)).casefold()}\x1f")
    return " AND ".join(parts) or "1", values


def _sendable(text: str) -> str:
    """Replace what SQLite cannot take: bytes of the command line that are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _full_name(column: str, wanted: str) -> str:
    return _SHORT_CATEGORIES.get(wanted.casefold(), wanted) if column == "categories" else wanted


def _hits(index: sqlite3.Connection, rows: Sequence[tuple[str]], filters: Filters, note: str) -> Hits:
    modules = tuple(Module.model_validate_json(row[0]) for row in rows)
    return Hits(modules=modules, note=note or ("" if modules else _unknown_filter(index, filters)))


def _unknown_filter(index: sqlite3.Connection, filters: Filters) -> str:
    """Say which value of a filter no module has, and what comes near."""
    for column in _COLUMNS:
        rows = index.execute(f"SELECT {column} FROM modules")  # noqa: S608 - one of ours
        known = {word for row in rows for word in row[0].split("\x1f") if word}
        for wanted in getattr(filters, column):
            name = _full_name(column, wanted).casefold()
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
                return f"no module has {wanted!r} among its {column}" + (f"; near: {', '.join(near)}" if near else "")
    return ""


def _near_words(index: sqlite3.Connection, words: Sequence[str]) -> str:
    known = [row[0] for row in index.execute("SELECT term FROM vocabulary")]
    near = [match for word in words for match in difflib.get_close_matches(word.lower(), known, n=2, cutoff=0.7)]
    return f"near words: {', '.join(near)}" if near else ""
