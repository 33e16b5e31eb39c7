"""One line of the result: ours, the peer's, and their ratio; and how it is measured."""

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measurement. Values are medians in milliseconds."""

    what: str
    ours_ms: float
    peer: str
    peer_ms: float
    bar: str = ""
    """What the project asks for, in words."""

    @property
    def ratio(self) -> float:
        """Ours over the peer's; below 1 is faster."""
        return self.ours_ms / self.peer_ms if self.peer_ms else float("nan")

    def render(self) -> str:
        """Return a line of a Markdown table."""
        return (
            f"| {self.what} | {self.ours_ms:.1f} | {self.peer} | {self.peer_ms:.1f} | {self.ratio:.2f} | {self.bar} |"
        )


HEADER = "| what | ours, ms | peer | peer, ms | ratio | bar |\n| --- | --- | --- | --- | --- | --- |"


def wall_ms(action: Callable[[], object], times: int) -> float:
    """Return the median wall time of an action."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def cpu_ms(argv: Sequence[str], times: int) -> float:
    """Return the median CPU time (user and system) of a whole process."""
    taken = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(taken) * 1000


def pairs_ms(ours: Callable[[], object], peer: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the medians of two actions run in turn, so that both see the same machine."""
    mine, theirs = [], []
    for _ in range(times):
        mine.append(wall_ms(ours, 1))
        theirs.append(wall_ms(peer, 1))
    return statistics.median(mine), statistics.median(theirs)


def dump(rows: Sequence[Row]) -> str:
    """Return rows as JSON, to carry them from the cluster."""
    return json.dumps([asdict(row) for row in rows])


def load(text: str) -> list[Row]:
    """Read rows back."""
    return [Row(**row) for row in json.loads(text)]
