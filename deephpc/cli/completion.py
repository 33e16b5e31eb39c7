"""Completes words on the command line from the record; silent about everything that is wrong."""

import os
import sqlite3
from pathlib import Path


def complete_run_id(incomplete: str) -> list[str]:
    """Return the newest recorded run ids that begin so; plain SQLite, since every key press waits for it."""
    base = os.environ.get("DEEPHPC_STATE_DIR") or (
        os.environ.get("XDG_STATE_HOME", str(Path.home() / ".local" / "state")) + "/deephpc"
    )
    try:
        connection = sqlite3.connect(f"file:{Path(base) / 'deephpc.db'}?mode=ro", uri=True, timeout=0.5)
    except sqlite3.Error:
        return []
    try:
        query = "select run_id from jobs where substr(run_id, 1, ?) = ? order by created_at desc limit 50"
        return [row[0] for row in connection.execute(query, (len(incomplete), incomplete))]
    except sqlite3.Error:
        return []
    finally:
        connection.close()
