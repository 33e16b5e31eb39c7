"""How the server behind the gateway stands, what goes through the gateway now, and what the run's events tell of it."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from aiohttp import WSCloseCode, web

NOTE = "deephpc gateway: "
"""How the lines begin that the gateway itself writes into the server's log."""

Stage = Literal["starting", "listening", "loading", "warming", "ready", "failed", "stopping"]


@dataclass(frozen=True)
class EventLog:
    """The run's `events.jsonl`: a synced line for each event, as `jobscripts/events.sh` writes them."""

    path: Path
    job_id: str
    host: str
    attempt: int

    def note(self, event: str, **members: object) -> None:
        """Append an event; a full disk is told in the job's log and stops no server."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = {"at": now, "event": event, "attempt": self.attempt, "job_id": self.job_id, "host": self.host, **members}
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, json.dumps(line).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            print(f"deephpc: {self.path}: {error.strerror}: {line}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass
class Standing:
    """The stage the server has reached; every change is an event named `serve`."""

    events: EventLog
    ends_at: float | None = None
    """When the job reaches its time limit, in seconds since the epoch."""
    stage: Stage = "starting"
    reason: str = ""
    reached_at: float = field(default_factory=time.monotonic)

    def enter(self, stage: Stage, reason: str = "", **members: object) -> None:
        """Note a new stage, and how long the last one took."""
        now = time.monotonic()
        took, self.reached_at = now - self.reached_at, now
        self.stage, self.reason = stage, reason
        more = {"reason": reason} if reason else {}
        self.events.note("serve", stage=stage, after_s=round(took, 3), **more, **members)

    def time_left_s(self) -> int | None:
        """Return how long the job has; None when nobody said."""
        return None if self.ends_at is None else max(0, int(self.ends_at - time.time()))


@dataclass(eq=False)
class Transfer:
    """One request on its way; `cut` ends it."""

    cut: Callable[[], None]
    waiting_since: float | None = None
    """Since when the client has been waited for."""

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Mark that the client is waited for."""
        self.waiting_since = time.monotonic()
        try:
            yield
        finally:
            self.waiting_since = None


class Traffic:
    """The requests that are on their way, and when the last one was."""

    def __init__(self) -> None:
        self.transfers: set[Transfer] = set()
        self.websockets: set[web.WebSocketResponse] = set()
        self.last_at = time.monotonic()

    def touch(self) -> None:
        """Note that somebody uses the server."""
        self.last_at = time.monotonic()

    def idle_s(self) -> float:
        """Return for how long nobody has used the server."""
        return 0.0 if self.transfers else time.monotonic() - self.last_at

    @contextlib.contextmanager
    def transfer(self, cut: Callable[[], None]) -> Iterator[Transfer]:
        """Count a request while it is on its way."""
        one = Transfer(cut)
        self.transfers.add(one)
        try:
            yield one
        finally:
            self.transfers.discard(one)
            self.touch()

    @contextlib.contextmanager
    def websocket(self, one: web.WebSocketResponse) -> Iterator[None]:
        """Keep track of a WebSocket while it is open; open alone is no use of the server, only messages are."""
        self.websockets.add(one)
        try:
            yield
        finally:
            self.websockets.discard(one)

    def cut_slow(self, patience_s: float) -> None:
        """End the transfers whose clients have kept us waiting for longer."""
        now = time.monotonic()
        for one in tuple(self.transfers):
            if one.waiting_since is not None and now - one.waiting_since > patience_s:
                one.cut()

    async def drain(self, grace_s: float) -> None:
        """Close the WebSockets, and wait until nothing is on its way any more, but not for ever."""
        for one in tuple(self.websockets):
            await one.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends")
        deadline = time.monotonic() + grace_s
        while self.transfers and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
