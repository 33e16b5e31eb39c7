"""`deephpc site init` says what it changes, and what it could not find out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.fake_slurm import HEALTHY, fake_slurm


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return fake_slurm(tmp_path, HEALTHY)


def deephpc(environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-m", "deephpc", *words]
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_only_profile_is_used_from_now_on(environ: dict[str, str]):
    done = deephpc(environ, "site", "init")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "box is used from now on"
    assert "* " in next(line for line in deephpc(environ, "site", "list").stdout.splitlines() if " box " in line)


def test_a_second_profile_that_takes_the_first_out_of_use_is_told_loudly(environ: dict[str, str], tmp_path: Path):
    deephpc(environ, "site", "init", "first")
    told = deephpc(environ, "site", "init", "second").stderr.splitlines()[-1]
    assert told.startswith("warning: ")
    assert "generic is used from now on, no longer first" in told
    assert f'put `site = "second"` or `site = "first"` in {tmp_path}/.config/deephpc/config.toml' in told
    site = next(line for line in deephpc(environ, "doctor").stdout.splitlines() if "put `site" in line)
    assert 'put `site = "first"` or `site = "second"` in config.toml' in site


def test_a_profile_beside_the_named_one_is_told_how_to_be_used(environ: dict[str, str]):
    told = deephpc({**environ, "DEEPHPC_SITE": "generic"}, "site", "init", "mine").stderr.splitlines()[-1]
    assert told.startswith('generic stays in use; use mine with `--site mine`, or put `site = "mine"` in ')


def test_what_could_not_be_found_out_is_told(tmp_path: Path):
    dead = {**HEALTHY, "sacctmgr": "echo 'sacctmgr: error: Connection refused' >&2; exit 1"}
    done = deephpc(fake_slurm(tmp_path, dead), "site", "init")
    assert "note: not found: your accounts: " in done.stderr


def test_a_name_that_cannot_be_a_profiles_is_refused(environ: dict[str, str]):
    done = deephpc(environ, "site", "init", "a b")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: 'a b' cannot name a profile")
