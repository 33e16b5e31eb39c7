"""Drives the installed deephpc on the test cluster as a user would, and asks Slurm itself what is true."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.cluster.box import Box, Process
from tests.cluster.host import LEAST_DEADLINE_S

#: A program's text is written to a file in alice's home and run by `deephpc train`.
Answer = subprocess.CompletedProcess[str]


class Session:
    """One user at one login node, with a project folder of their own."""

    def __init__(self, box: Box, folder: str, *, user: str = "alice", env: dict[str, str] | None = None) -> None:
        self.box = box
        self.user = user
        self.env = env or {}
        self.folder = f"{box.home(user)}/{folder}"
        box.run(["mkdir", "-p", self.folder], user=user)

    def write(self, name: str, text: str) -> str:
        """Write a file into the project folder and return its path."""
        path = f"{self.folder}/{name}"
        self.box.run(["tee", path], user=self.user, stdin=text)
        return path

    def deephpc(self, *words: str, timeout: float = 900, env: dict[str, str] | None = None) -> Answer:
        """Run deephpc in the project folder; never raises for its exit code."""
        surroundings = {**self.env, **(env or {})}
        return self.box.run(
            ["deephpc", *words], user=self.user, cwd=self.folder, timeout=timeout, check=False, env=surroundings
        )

    def start(self, *words: str) -> Process:
        """Start deephpc in the project folder; leaving the `with` block kills it."""
        return self.box.popen(["deephpc", *words], user=self.user, cwd=self.folder, env=self.env)

    def submit(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Submit and return the run's id."""
        answer = self.deephpc(*words, env=env)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def job(self, run_id: str) -> dict[str, Any]:
        """Return what `deephpc jobs show` knows of a run."""
        answer = self.deephpc("--json", "jobs", "show", run_id)
        assert answer.returncode == 0, answer.stderr
        detail: dict[str, Any] = json.loads(answer.stdout)
        return detail

    def jobs(self, *words: str, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the runs `deephpc jobs --json` lists, by id."""
        answer = self.deephpc("jobs", "--json", *words, env=env)
        assert answer.returncode == 0, answer.stderr
        return {job["run_id"]: job for job in json.loads(answer.stdout)["jobs"]}

    def slurm_jobs(self, *states: str) -> list[tuple[str, str]]:
        """Return (id, name) of this user's jobs as squeue has them; of those states if any are named."""
        words = ["squeue", "-h", "-u", self.user, "-o", "%i|%j", "-t", ",".join(states) or "all"]
        lines = self.box.run(words, user=self.user).stdout.split()
        return [(line.split("|")[0], line.split("|")[1]) for line in lines]

    def wait_for(self, run_id: str, states: Sequence[str], timeout: float = LEAST_DEADLINE_S) -> dict[str, Any]:
        """Wait until deephpc says a run is in one of some states, and return its row."""
        found: dict[str, Any] = {}

        def is_there() -> bool:
            found.update(self.jobs("--limit", "500").get(run_id, {}))
            return found.get("state") in states

        wait_until(is_there, timeout, lambda: f"{run_id} is {found.get('state')}, not one of {', '.join(states)}")
        return found


def wait_until(condition: Callable[[], bool], timeout: float, complaint: Callable[[], str]) -> None:
    """Wait for a condition, looking five times a second; fail with the complaint at the deadline."""
    deadline = time.monotonic() + max(timeout, LEAST_DEADLINE_S)
    while not condition():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.2)


def open_tunnel(process: Process) -> dict[str, str]:
    """Return what a tunnel says of itself once it is open."""
    assert process.popen.stdout is not None
    line = process.popen.stdout.readline()
    assert line, process.communicate()
    told: dict[str, str] = json.loads(line)
    return told
