"""One line of the result: ours, the peer's, and their ratio; and how it is measured."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measurement. Values are medians in milliseconds."""

    what: str
    ours_ms: float
    peer: str
    peer_ms: float
    bar: str = ""
    """What the project asks for, in words."""
    ours_mib: float | None = None
    """Peak memory of the largest process; None where it is not measured."""
    peer_mib: float | None = None
    stumbled: str = ""
    """What the peer said when its first try failed; such a peer has no ratio."""
    ours_stumbled: str = ""
    """What deephpc said when its first try failed."""

    @property
    def ratio(self) -> float:
        """Ours over the peer's; below 1 is faster."""
        counts = self.peer_ms and not self.stumbled and not self.ours_stumbled
        return self.ours_ms / self.peer_ms if counts else float("nan")

    def render(self) -> str:
        """Return a line of a Markdown table."""
        ours, peer, peer_ms, ratio = f"{self.ours_ms:.1f}", self.peer, f"{self.peer_ms:.1f}", f"{self.ratio:.2f}"
        if self.stumbled:
            peer, peer_ms, ratio = f"{self.peer}; peer stumbled: {self.stumbled}", "", "not counted"
        if self.ours_stumbled:
            ours, ratio = f"ours stumbled: {self.ours_stumbled}", "not counted"
        cells = [self.what, ours, peer, peer_ms, ratio, self.bar, _mib(self.ours_mib), _mib(self.peer_mib)]
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


HEADER = (
    "| what | ours, ms | peer | peer, ms | ratio | bar | ours, MiB | peer, MiB |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Cost:
    """What one whole command took, with the processes it started and waited for."""

    wall_ms: float
    user_ms: float
    cpu_ms: float
    """User and system."""
    peak_mib: float
    """Peak resident memory of its largest process."""


# The kernel counts the memory of whoever starts a process as the process's own. So a small process starts it.
_STARTER = """
import json, os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - started
print(json.dumps([os.waitstatus_to_exitcode(status), wall, used.ru_utime, used.ru_stime, used.ru_maxrss]))
"""
_TROUBLE = re.compile(r"\b(error|errors|retry|retries|retrying|fail|failed|failure|denied|refused|timed out)\b", re.I)
_SAID_CHARACTERS = 160
_NO_TROUBLE = re.compile(r"\b(?:0 (?:errors|retries)|(?:errors|retries): *0)\b", re.I)


def cost_of(argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command that must succeed, and return what it took."""
    cost, code, said = _run(argv, cwd, env)
    if code:
        raise RuntimeError(f"{' '.join(argv)}: exit {code}\n{said}")
    return cost


def first_try(
    argv: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: Callable[[], str] = lambda: "",
) -> str:
    """Run a peer once, with its retries off and its log on, and return how it stumbled; "" when it did not.

    Parameters
    ----------
    check
        Says what is wrong with what arrived; "" when nothing is.
    """
    return try_once(argv, cwd, env, check)[1]


def try_once(
    argv: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: Callable[[], str] = lambda: "",
) -> tuple[Cost, str]:
    """Run a command once, and return what it took and how it stumbled, as `first_try` says it."""
    cost, code, said = _run(argv, cwd, env)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    trouble = [line for line in lines if _TROUBLE.search(_NO_TROUBLE.sub("", line))]
    if trouble:
        return cost, trouble[0][:_SAID_CHARACTERS]
    if code:
        return cost, f"exit {code}: {lines[-1] if lines else ''}"[:_SAID_CHARACTERS]
    return cost, check()


def race(entrants: Mapping[str, Callable[[], tuple[Cost, str]]], times: int) -> dict[str, tuple[Cost, str]]:
    """Run entrants in turn and return their medians and how they stumbled; one that stumbles runs no more.

    The disk is brought up to date before each, so that nobody waits for what another one wrote.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in entrants}
    stumbled = dict.fromkeys(entrants, "")
    for _ in range(times):
        for name, run in entrants.items():
            if not stumbled[name]:
                os.sync()
                cost, stumbled[name] = run()
                costs[name].append(cost)
    return {name: (_median(costs[name]), stumbled[name]) for name in entrants}


def paired_costs(ours: Callable[[], Cost], peer: Callable[[], Cost], times: int) -> tuple[Cost, Cost]:
    """Return the medians of two commands run in turn, so that both see the same machine."""
    pairs = [(ours(), peer()) for _ in range(times)]
    return _median([mine for mine, _ in pairs]), _median([theirs for _, theirs in pairs])


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
    return statistics.median(cost_of(argv).cpu_ms for _ in range(times))


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


def _run(argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None) -> tuple[Cost, int, str]:
    words = [sys.executable, "-I", "-S", "-c", _STARTER, *argv]
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**(os.environ if env is None else env)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
        )
        log.seek(0)
        said = log.read()
    if done.returncode:
        raise RuntimeError(f"{argv[0]} does not start\n{said}")
    code, wall, user, system, peak = json.loads(done.stdout)
    return Cost(wall * 1000, user * 1000, (user + system) * 1000, peak / 1024), int(code), said


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        wall_ms=statistics.median(cost.wall_ms for cost in costs),
        user_ms=statistics.median(cost.user_ms for cost in costs),
        cpu_ms=statistics.median(cost.cpu_ms for cost in costs),
        peak_mib=max(cost.peak_mib for cost in costs),
    )


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
