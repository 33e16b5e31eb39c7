"""The searchable index of all modules: an SQLite file made anew from the copies whenever they changed.

It is built beside its place, renamed into it and opened read-only and immutable, so that it needs no locks and works
on network file systems; where the cache cannot be written, it lives in memory. Needs SQLite with FTS5 (3.9, 2015).
"""

import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from deephpc import __version__
from deephpc.catalogue.module import Module
from deephpc.errors import SiteError

_FORMAT = 1
_SEPARATOR = "\x1f"
_TABLES = """
CREATE TABLE about (fingerprint TEXT);
CREATE TABLE modules (
    id INTEGER PRIMARY KEY, name TEXT, source TEXT, is_valid INTEGER, is_trainable INTEGER, has_inference INTEGER,
    is_pre_trained INTEGER, libraries TEXT, tasks TEXT, categories TEXT, tags TEXT, json TEXT
);
CREATE INDEX modules_by_name ON modules (name COLLATE NOCASE);
CREATE VIRTUAL TABLE words USING fts5 (
    name, title, summary, description, tags, tokenize = "porter unicode61 remove_diacritics 2"
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (words, row);
"""
_TABLES_OF_OLD_SQLITE = _TABLES.replace("remove_diacritics 2", "remove_diacritics 1")  # 2 came with SQLite 3.27


def fingerprint(parts: Iterable[str]) -> str:
    """Return a short name for everything an index is made of."""
    text = _SEPARATOR.join((__version__, str(_FORMAT), *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_state(path: Path) -> str:
    """Return what tells a file from the one it was before; `-` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return "-"
    return f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"


def open_index(path: Path, expected: str) -> sqlite3.Connection | None:
    """Open the index if it is there, whole and made of what is expected."""
    if not path.is_file():
        return None
    connection = None
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        row = connection.execute("SELECT fingerprint FROM about").fetchone()
        if row and row[0] == expected:
            return connection
    except sqlite3.Error:
        pass
    if connection is not None:
        connection.close()
    return None


def build_index(path: Path, made_of: str, modules: Sequence[Module]) -> sqlite3.Connection:
    """Make the index, keep it at `path` where that can be written, and return it open.

    Raises
    ------
    SiteError
        This Python's SQLite cannot search text.
    """
    memory = sqlite3.connect(":memory:")
    try:
        _create_tables(memory)
        with memory:
            memory.execute("INSERT INTO about VALUES (?)", (made_of,))
            memory.executemany("INSERT INTO modules VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", _rows(modules))
            memory.executemany(
                "INSERT INTO words (rowid, name, title, summary, description, tags) VALUES (?,?,?,?,?,?)",
                _texts(modules),
            )
    except BaseException:
        memory.close()
        raise
    with contextlib.suppress(OSError, sqlite3.Error):  # a cache: it is used from memory and made again next time
        _keep(memory, path)
    return memory


def _create_tables(connection: sqlite3.Connection) -> None:
    try:
        connection.executescript(_TABLES if sqlite3.sqlite_version_info >= (3, 27) else _TABLES_OF_OLD_SQLITE)
    except sqlite3.OperationalError as error:
        raise SiteError(
            f"this Python's SQLite {sqlite3.sqlite_version} cannot search text: {error}",
            "use a Python whose SQLite has FTS5, such as one of python.org, conda or your distribution",
        ) from error


def _rows(modules: Iterable[Module]) -> Iterator[tuple[object, ...]]:
    for number, module in enumerate(modules, 1):
        yield (
            number, module.name, module.source, module.is_valid, module.is_trainable, module.has_inference,
            module.is_pre_trained, _joined(module.libraries), _joined(module.tasks), _joined(module.categories),
            _joined(module.tags), module.model_dump_json(exclude_defaults=True),
        )  # fmt: skip


def _texts(modules: Iterable[Module]) -> Iterator[tuple[object, ...]]:
    for number, module in enumerate(modules, 1):
        labels = (*module.tags, *module.libraries, *module.tasks, *module.categories, *module.data_types)
        yield number, module.name, module.title, module.summary, module.description, "\n".join(labels)


def _joined(words: Iterable[str]) -> str:
    return _SEPARATOR + "".join(word.casefold() + _SEPARATOR for word in words)


def _keep(memory: sqlite3.Connection, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")  # not the pid: other nodes write here too
    try:
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(temporary)) as file:
            file.execute("PRAGMA synchronous = OFF")
            memory.backup(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
