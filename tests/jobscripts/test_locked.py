"""The lock of container.sh: a colleague's file locks as well as one's own."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.containers.colleagues import closed, ordinary_user, umask

SCRIPT = (shipped("jobscripts") / "container.sh").read_text(encoding="utf-8")
FUNCTIONS = "\n".join(
    match[0]
    for name in ("fail", "note", "locked")
    for match in [re.search(rf"(?ms)^{name}\(\) .*?\}}$", SCRIPT)]
    if match
)


def locked(file: Path, command: str) -> "subprocess.CompletedProcess[str]":
    script = f'set -u\n{FUNCTIONS}\nlocked "$1" {command}'
    return subprocess.run(
        ["bash", "-c", script, "bash", str(file)], capture_output=True, text=True, check=False, timeout=300,
        user=os.geteuid(), group=os.getegid(),  # bash would go back to who the tests are
    )  # fmt: skip


def test_a_command_runs_under_the_lock_and_its_status_is_told(tmp_path: Path) -> None:
    with umask(0o002):
        done = locked(tmp_path / "lock", """bash -c 'flock -n "$0" true && exit 1; exit 7' """ + str(tmp_path / "lock"))
    assert (done.returncode, done.stderr) == (7, "")
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664


def test_a_lock_that_is_only_read_holds_too(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with ordinary_user(tmp_path) as here, closed(here / "lock", 0o444):
        done = locked(here / "lock", "bash -c 'flock -n lock true && exit 1; exit 7'")
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize("mode", [0o555, 0])
def test_a_place_without_permission_is_named(tmp_path: Path, mode: int) -> None:
    (tmp_path / "sif").mkdir()
    with ordinary_user(tmp_path) as here, closed(here / "sif", mode):
        done = locked(here / "sif" / "lock", "true")
    assert done.returncode == 1
    assert "deephpc: cannot write sif/lock" in done.stderr
