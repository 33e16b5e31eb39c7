"""The SQLite file under the record: its schema, its transactions, and patience with other writers.

The home directory may be NFS, Lustre or GPFS, where SQLite's write-ahead log corrupts (https://sqlite.org/wal.html,
"all processes must be on the same host"), so the file keeps the rollback journal everywhere; transactions are short and
take the write lock from their first statement, and a locked file is waited for.
"""

import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deephpc.errors import SiteError
from deephpc.jobs.run_folder import unwritable

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.db import Table

_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30.0
_PATIENCE_S = 90.0
_COLUMNS: dict[str, type] = {
    "run_id": str, "token": str, "kind": str, "target": str, "site": str, "scheduler": str, "job_id": str,
    "folder": str, "fingerprint": str, "submitter": str, "created_at": str, "submitted_at": str, "cancelled_at": str,
    "state": str, "raw_state": str, "reason": str, "exit_code": int, "signal": int, "started_at": str, "ended_at": str,
    "nodes": str, "attempt": int, "source": str, "seen_at": str, "resources": str, "tasks": str,
}  # fmt: skip
_EVENT_COLUMNS: dict[str, type] = {
    "run_id": str,
    "at": str,
    "from_state": str,
    "to_state": str,
    "source": str,
    "detail": str,
}
_METRIC_COLUMNS: dict[str, type] = {"run_id": str, "name": str, "value": float}
_ELSEWHERE = "see the permissions of that file and its folder, or set DEEPHPC_STATE_DIR to a folder you can write in"
_Answer = TypeVar("_Answer")


class RecordFile:
    """One open file. Opening makes it (0600) in its folder (0700) if need be.

    Raises
    ------
    SiteError
        The folder cannot be written, or the file is not a record of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise SiteError(unwritable(path.parent, error).message, _ELSEWHERE) from error
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._patiently(self._prepare)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def table(self, name: str) -> "Table":
        """Return a table to write to, inside `write`."""
        return self._database.table(name)

    def write(self, action: Callable[[], _Answer]) -> _Answer:
        """Do something in one transaction, and again from its start while the file stays locked.

        Raises
        ------
        SiteError
            The file cannot be written, stays locked, or is damaged.
        sqlite3.IntegrityError
            A row of that key is there already.
        """

        def in_transaction() -> _Answer:
            with self._transaction():
                return action()

        return self._patiently(in_transaction)

    def rows(self, rest: str, values: list[Any]) -> list[dict[str, Any]]:
        """Return the rows of `select * from REST`.

        Raises
        ------
        SiteError
            The file cannot be read.
        """

        def select() -> list[dict[str, Any]]:
            found = self._connection.execute(f"select * from {rest}", values)  # noqa: S608 - our text
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found]

        return self._patiently(select)

    @cached_property
    def _database(self) -> "Database":
        """The file as what writes to it sees it."""
        with _hidden("numpy", "pandas"):
            from sqlite_utils import Database  # start-up time: most commands only read

        return Database(self._connection)

    def _prepare(self) -> None:
        if self._version() == _SCHEMA_VERSION:
            return
        with self._transaction():
            if self._version() == _SCHEMA_VERSION:  # another process was first
                return
            if self._version() != 0:
                versions = f"schema {self._version()}, ours {_SCHEMA_VERSION}"
                raise SiteError(
                    f"{self.path} was written by another version of deephpc ({versions})",
                    "move it away and run `deephpc jobs rebuild`",
                )
            self._database.table("jobs").create(
                _COLUMNS, pk="run_id", not_null={"token", "state", "created_at", "folder"}
            )
            self._database.table("jobs").create_index(["created_at"])
            self._database.table("jobs").create_index(["state", "created_at"])
            self._database.table("jobs").create_index(["job_id"])
            self._database.table("jobs").create_index(["fingerprint"])
            self._database.table("job_events").create(_EVENT_COLUMNS)
            self._database.table("job_events").create_index(["run_id"])
            self._database.table("metrics").create(_METRIC_COLUMNS, pk=("run_id", "name"))
            self._database.execute(f"pragma user_version = {_SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("pragma user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    def _patiently(self, action: Callable[[], _Answer]) -> _Answer:
        """Do one transaction, again while the file stays locked: SQLite's own patience is unfair to late comers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise self._broken(error) from error
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter
            except sqlite3.IntegrityError:
                raise
            except sqlite3.DatabaseError as error:
                raise self._broken(error) from error

    def _broken(self, error: sqlite3.DatabaseError) -> SiteError:
        text = str(error)
        if "readonly" in text or "unable to open" in text:
            return SiteError(f"cannot write the record {self.path}: {text}", _ELSEWHERE)
        if "full" in text or "disk I/O" in text:
            return SiteError(
                f"cannot write the record {self.path}: {text}",
                "free some space there, or set DEEPHPC_STATE_DIR to another folder",
            )
        if "locked" in text:
            return SiteError(
                f"the record {self.path} stays locked by another process", "try again in a moment", transient=True
            )
        return SiteError(f"the record {self.path} is damaged: {text}", "move it away and run `deephpc jobs rebuild`")


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Have libraries that are not loaded yet count as missing: sqlite-utils would load them, and works without."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: "cannot be imported"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
