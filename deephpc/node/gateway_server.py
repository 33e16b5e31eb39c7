"""The server program behind the gateway: started as one process, watched, and ended with everything it started."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deephpc.node.gateway_standing import NOTE
from deephpc.node.processes import adopt_orphans, catches, descendants, end_descendants, reap, signal_all
from deephpc.shell import signal_name, start_detached

_LAST_LINES = 20
_LAST_BYTES = 16384
_LONGEST_LINE = 300
_SERVES = "deepaas_module: serving "
_OURS = "deepaas_module: "
"""How the line begins in which our own program inside the image says why it ends; engines may say more after it."""


class ServerProgram:
    """One program; its output goes to the end of a log.

    Parameters
    ----------
    set_up
        Descriptor of a file that takes why the program never started; what prepares its container writes there.
    """

    def __init__(self, log: Path, set_up: int | None = None) -> None:
        self._log = log
        self._set_up = set_up
        self._exit_code: int | None = None
        self._from = log.stat().st_size if log.exists() else 0
        self._pid: int | None = None
        self._was_begun = False

    def start(self, words: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        """Start it; nothing runs when there are no words, and it counts as living.

        Raises
        ------
        OSError
            There is no such program, or it may not be run.
        """
        if words:
            adopt_orphans()
            self._was_begun = True
            kept = () if self._set_up is None else (self._set_up,)
            self._pid = start_detached(list(words), cwd=folder, env=environ, log=self._log, descriptors=kept)

    def exit_code(self) -> int | None:
        """Return how the program ended, minus the signal that ended it; None while it lives."""
        if self._pid is not None and self._exit_code is None:
            self._exit_code = reap().get(self._pid)
        return self._exit_code

    def ending(self) -> str:
        """Return in words how it ended, or why it never started."""
        never_started = "" if self._set_up is None else Path(f"/proc/self/fd/{self._set_up}").read_text()
        if never_started:
            return never_started
        code = self.exit_code() or 0
        how = f"was killed by signal {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        how += f": its program was ended by signal {signal_name(code - 128)}" if 128 < code <= 128 + 64 else ""
        lines = [line for line in self.last_lines() if not line.startswith(NOTE)]
        ours = [line for line in lines if line.startswith(_OURS) and not line.startswith(_SERVES)]
        said = "".join((ours or lines)[-1:])[:_LONGEST_LINE]
        return f"the server {how}" + (f": {said}" if said else "")

    def last_lines(self) -> list[str]:
        """Return the last lines of its output, for whoever asks why it failed."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._from, size - _LAST_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]

    def end(self, grace_s: float) -> None:
        """Ask it to end, and kill what is left of it after the grace period.

        Only processes that handle SIGTERM are asked: others are for them to end, in their own order.
        """
        if not self._was_begun:
            return
        if self._lives():
            alive = descendants(os.getpid())
            signal_all(tuple(pid for pid in alive if catches(pid, signal.SIGTERM)) or alive, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.02)
        ended = end_descendants()
        if self._pid is not None:
            self._exit_code = ended.get(self._pid, self._exit_code)

    def _lives(self) -> bool:
        """Whether it lives; its pid is not known where a signal ended us while we started it."""
        return bool(descendants(os.getpid())) if self._pid is None else self.exit_code() is None
