"""Completes words on the command line from the record; silent about everything that is wrong."""

import os
import sqlite3
from pathlib import Path


def complete_run_id(incomplete: str) -> list[str]:
    """Return the newest recorded run ids that begin so; plain SQLite, since every key press waits for it."""
    try:
        connection = sqlite3.connect(f"{_database().as_uri()}?mode=ro", uri=True, timeout=0.5)
    except (sqlite3.Error, OSError, ValueError, RuntimeError):
        return []
    try:
        query = "select run_id from jobs where substr(run_id, 1, ?) = ? order by created_at desc limit 50"
        return [row[0] for row in connection.execute(query, (len(incomplete), incomplete))]
    except sqlite3.Error:
        return []
    finally:
        connection.close()


def _database() -> Path:
    state_dir = os.environ.get("DEEPHPC_STATE_DIR")
    if state_dir:
        return Path(state_dir).absolute() / "deephpc.db"
    state_home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state_home).absolute() / "deephpc" / "deephpc.db"
