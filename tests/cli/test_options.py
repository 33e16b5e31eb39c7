"""Options at their borders, and those with which a run is submitted again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.programs import CommandLine


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


def plan_of(deephpc: CommandLine, run_id: str) -> dict:
    return json.loads((deephpc.home / "work" / run_id / "plan.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--gpus-per-node", "a100:", "--", "true"), "--gpus-per-node: 'a100:' is not a number of GPUs"),
        (("run", "--gpus-per-node", ":4", "--", "true"), "--gpus-per-node: ':4' is not a number of GPUs"),
        (("run", "--gpus-per-node", "a b:4", "--", "true"), "--gpus-per-node 'a b'"),
        (("run", "--gpus-per-node", "a:b:4", "--", "true"), "--gpus-per-node: 'a:b:4'"),
        (("run", "--max-requeues", "-1", "--", "true"), "--max-requeues"),
        (("run", "--max-requeues", "1000", "--", "true"), "--max-requeues"),
        (("run", "--grace", "70000", "--", "true"), "--grace: '70000' is beyond 65535 seconds"),
        (("run", "--module", "", "--", "true"), "--module '' is not a module's name"),
        (("run", "--venv", "", "--", "true"), "--venv '' is not a Python virtual environment"),
        (("train", ""), "the target is empty"),
        (("jobs", "-n", "99999999999999999999"), "--limit"),
        (("jobs", "rebuild", "/nope"), "/nope is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_value_out_of_bounds_is_refused_by_its_option(deephpc: CommandLine, words: tuple[str, ...], message: str):
    done = deephpc(*words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[0]
    assert not (deephpc.home / "work").exists()


def test_a_work_dir_slurm_would_rewrite_is_refused_with_its_origin(deephpc: CommandLine):
    done = deephpc("run", "--time", "10", "--", "true", DEEPHPC_WORK_DIR="/w/50%")
    assert done.returncode == 2
    assert "'/w/50%' (environment DEEPHPC_WORK_DIR) has '%' in it" in done.stderr


def test_a_state_dir_that_cannot_be_looked_into_is_the_sites_fault(deephpc: CommandLine):
    done = deephpc("run", "--dry-run", "--time", "10", "--", "true", DEEPHPC_STATE_DIR="/" + 300 * "x")
    assert done.returncode == 3
    assert "File name too long" in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("time", "is_told", "by"),
    [("2", True, "nobody"), ("2:30", False, "script"), ("3", False, "script"), ("3:01", False, "Slurm")],
)
def test_a_grace_that_does_not_fit_into_the_time_limit_is_told(deephpc: CommandLine, time: str, is_told: bool, by: str):
    words = ("run", "--dry-run", "--time", time, "--grace", "120", "--", "true")
    done = deephpc(*words)
    assert done.returncode == 0, done.stderr
    assert ("--grace 120 has no effect" in done.stderr) == is_told
    assert ("--signal=B:USR1@120" in done.stdout) == (by == "Slurm")
    assert ("alarm" in done.stdout) == (by == "script")


@pytest.mark.parametrize(
    ("site", "time", "told"),
    [
        ("generic", (), "counts from the cluster's own limit"),
        ("local", (), "has no effect without --time"),
        ("local", ("--time", "3"), ""),
        ("local", ("--time", "2"), "has no effect"),
    ],
)
def test_a_grace_is_told_by_what_is_known_of_the_limit(
    deephpc: CommandLine, site: str, time: tuple[str, ...], told: str
):
    done = deephpc("--site", site, "run", "--dry-run", *time, "--grace", "120", "--", "true")
    assert done.returncode == 0, done.stderr
    assert bool(done.stderr) == bool(told)
    assert told in done.stderr


def test_a_default_grace_that_does_not_fit_is_no_news(deephpc: CommandLine):
    assert deephpc("run", "--dry-run", "--time", "1", "--", "true").stderr == ""


def test_a_run_beyond_its_partition_is_refused_or_noted_never_both(deephpc: CommandLine):
    sites = deephpc.home / ".config" / "deephpc" / "sites"
    sites.mkdir(parents=True)
    limits = '[partitions.short]\ndefault = true\nmax_walltime = "0:05:00"\ngpus_per_node = 4\n'
    (sites / "mine.toml").write_text(f'name = "mine"\n{limits}')
    run = ("--site", "mine", "run", "--dry-run", "--time", "10")
    for words in ((), ("--gpus-per-node", "9", "--qos", "long")):
        refused = deephpc(*run, *words, "--", "true")
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 2), refused.stderr
    for words, who in ((("--qos", "long"), "--qos long"), (("--sbatch", "--reservation=course"), "the reservation")):
        noted = deephpc(*run, *words, "--", "true")
        assert noted.returncode == 0, noted.stderr
        assert f"a limit of 00:05:00; it never starts unless {who} allows that" in noted.stderr


def test_a_rerun_takes_other_resources_and_keeps_the_rest(deephpc: CommandLine):
    first = deephpc(
        "run", "--time", "10", "--mem", "4G", "--gpus-per-node", "a100:2", "--", "echo", "hi"
    ).stdout.strip()
    again = deephpc("jobs", "rerun", first, "--time", "20", "--gpus-per-node", "4", "--max-requeues", "7")
    assert again.returncode == 0, again.stderr
    old, new = (plan_of(deephpc, run)["spec"] for run in (first, again.stdout.strip()))
    changed = {"walltime": "PT20M", "gpus_per_node": 4, "gpu_type": None}
    assert new["resources"] == {**old["resources"], **changed}
    assert (new["max_requeues"], new["command"]) == (7, ["echo", "hi"])


def test_a_rerun_refuses_what_a_run_would_refuse(deephpc: CommandLine):
    first = deephpc("run", "--time", "10", "--", "true").stdout.strip()
    assert "--time: " in deephpc("jobs", "rerun", first, "--time", "soon").stderr


def test_rebuilding_names_only_folders_it_read(deephpc: CommandLine, tmp_path: Path):
    (tmp_path / "other").mkdir()
    done = deephpc("jobs", "rebuild", "other")
    assert done.stderr == f"0 runs read from {tmp_path / 'other'}\n"


def test_one_bad_row_is_noted_and_mended_by_a_rebuild(deephpc: CommandLine):
    ids = [deephpc("run", "--time", "10", "--name", name, "--", "true").stdout.strip() for name in "ab"]
    with closing(sqlite3.connect(deephpc.home / "state" / "deephpc.db")) as connection, connection:
        connection.execute("update jobs set tasks = '{' where run_id = ?", ids[:1])
    listed = deephpc("jobs")
    assert listed.returncode == 0, listed.stderr
    assert ids[1] in listed.stdout
    assert f"note: the record cannot read its row of {ids[0]}; `deephpc jobs rebuild`" in listed.stderr
    assert deephpc("jobs", "rebuild").returncode == 0
    assert ids[0] in deephpc("jobs").stdout
