"""`--data`, `--collect` and `deephpc collect` as a user meets them; jobs run at once, by fake Slurm programs."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deephpc.jobs.run_folder import read_json_lines
from tests.fakes.programs import CommandLine

LEAVES = """
cat "$DEEPHPC_DATA_DIR"/cells/* >"$DEEPHPC_OUTPUT_DIR/seen"
echo weights >"$DEEPHPC_CHECKPOINT_DIR/last.pt"
ln -s seen "$DEEPHPC_OUTPUT_DIR/link"; ln -s . "$DEEPHPC_OUTPUT_DIR/loop"; ln -s gone "$DEEPHPC_OUTPUT_DIR/nothing"
exit 7
"""


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    made = CommandLine.make(tmp_path)
    (made.slurm / "run-at-once").touch()
    (made.home / "cells").mkdir()
    (made.home / "cells" / "ü 1.csv").write_text("1,2\n")
    return made


def leave(deephpc: CommandLine, home: Path, *words: str, first: str = "") -> str:
    """Run something that fails and leaves results, after other lines; return the run's id."""
    done = deephpc(
        *(
            "run",
            "--time",
            "10",
            "--data",
            "cells",
            "--collect",
            str(home),
            *words,
            "--wait",
            "--",
            "bash",
            "-c",
            first + LEAVES,
        )
    )
    assert done.returncode == 6, done.stderr
    return done.stdout.strip()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_that_fails_sends_its_results_itself_and_nothing_is_sent_twice(deephpc: CommandLine, tmp_path: Path):
    run_id = leave(deephpc, tmp_path / "far" / "away")
    there, folder = tmp_path / "far" / "away" / run_id, deephpc.home / "work" / run_id
    sent = files(there)
    assert [name for name in sent if name not in ("usage.jsonl", "source.diff")] == [
        *("checkpoints/last.pt", "job.log", "output/link", "output/seen", "plan.json", "result.json")
    ]
    assert all((there / name).read_bytes() == (folder / name).read_bytes() for name in sent)
    assert (there / "output" / "seen").read_text() == "1,2\n"
    (delivery,) = json.loads(deephpc("--json", "jobs", "show", run_id).stdout)["transfers"]
    assert (delivery["state"], delivery["by"], delivery["files"]) == ("done", "job", len(sent))
    assert delivery["destination"] == str(there)
    again = json.loads(deephpc("--json", "collect", run_id).stdout)
    assert (again["schema"], again["transferred_files"], again["whole"]) == ("deephpc.collect/1", 0, True)
    assert [each["path"] for each in again["left_out"]] == ["output/loop", "output/nothing"]
    events = [event for event in read_json_lines(folder / "events.jsonl") if event["event"] == "collect"]
    assert [(event["state"], event["by"]) for event in events] == [
        *(("started", "job"), ("done", "job"), ("done", "login"))
    ]


def test_what_a_job_could_not_send_the_next_command_does(deephpc: CommandLine, tmp_path: Path):
    far = tmp_path / "far"
    run_id = stuck(deephpc, far)
    shown = deephpc("jobs", "show", run_id)
    assert "not all there" in shown.stdout
    assert shown.stderr == ""  # `run --wait` said it
    refused = deephpc("collect", run_id)
    assert refused.returncode == 5
    assert refused.stderr.count("\n") == 2
    far.unlink()
    quiet = deephpc("jobs")  # storage that failed a moment ago is left alone by what was asked for something else
    assert not far.exists()
    assert quiet.stderr == ""  # it was said
    rebuilt = deephpc.home / "state" / "deephpc.db"
    rebuilt.unlink()
    deephpc("jobs", "rebuild")
    (row,) = json.loads(deephpc("--json", "jobs", "show", run_id).stdout)["transfers"]
    assert row["state"] == "failed"
    done = deephpc("collect", run_id)
    assert (far / run_id / "output" / "seen").read_text() == "1,2\n"
    assert done.returncode == 5  # all is there but two links
    assert f"error: {run_id}: output/loop is a link to a folder; and 1 more" in done.stderr
    assert "results" not in deephpc("jobs").stderr


def stuck(deephpc: CommandLine, far: Path) -> str:
    """Run something whose results cannot leave any more when it ends; return the run's id."""
    return leave(deephpc, far, "--name", "stuck", first=f"rmdir '{far}'; echo in the way >'{far}'\n")


def test_that_results_wait_is_said_once_a_day_until_they_went_elsewhere(deephpc: CommandLine, tmp_path: Path):
    run_id = stuck(deephpc, tmp_path / "far")
    assert [deephpc("jobs").stderr.count("wait here") for _ in range(3)] == [0, 0, 0]  # `run --wait` said it
    with closing(sqlite3.connect(deephpc.home / "state" / "deephpc.db")) as record:
        record.execute("update transfers set told_at = '2026-01-01T00:00:00.000000Z'")
        record.commit()
    assert [deephpc("jobs").stderr.count("wait here") for _ in range(3)] == [1, 0, 0]
    why = deephpc("why", run_id).stdout
    assert f"its results are not all at {tmp_path / 'far' / run_id}: " in why
    assert all(f"`deephpc collect {run_id}{words}`" in why for words in ("", " DEST", " --forget"))
    assert deephpc("collect", run_id, "elsewhere").returncode == 5  # two links are left out
    with closing(sqlite3.connect(deephpc.home / "state" / "deephpc.db")) as record:
        record.execute("update transfers set told_at = null")
        record.commit()
    assert deephpc("jobs").stderr == ""
    assert "its results" not in deephpc("why", run_id).stdout.replace("its results lie", "")
    states = [each["state"] for each in json.loads(deephpc("--json", "jobs", "show", run_id).stdout)["transfers"]]
    assert states == ["failed", "done"]


def test_results_can_be_left_where_they_are(deephpc: CommandLine, tmp_path: Path):
    run_id = stuck(deephpc, tmp_path / "far")
    for words in (("elsewhere",), ("--dry-run", "elsewhere")):
        refused = deephpc("collect", run_id, *words, "--forget")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 2), refused.stderr
    dry = deephpc("collect", run_id, "--forget", "--dry-run")
    assert "would stay in" in dry.stdout
    assert "its results are not all at" in deephpc("why", run_id).stdout
    done = json.loads(deephpc("--json", "collect", run_id, "--forget").stdout)
    assert (done["schema"], done["done"]) == ("deephpc.collect-forgotten/1", True)
    assert done["destination"] == str(tmp_path / "far" / run_id)
    assert deephpc("collect", run_id, "--forget").stdout == f"no results of {run_id} wait\n"
    assert "its results are not all at" not in deephpc("why", run_id).stdout
    (tmp_path / "far").unlink()
    assert deephpc("jobs").stderr == ""
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize("far", ["in-the-way", "in-the-way/deeper", "/proc/results"])
def test_a_run_whose_results_have_nowhere_to_go_is_refused_before_it_is_queued(
    deephpc: CommandLine, tmp_path: Path, far: str
):
    (tmp_path / "in-the-way").write_text("a file")
    done = deephpc("run", "--time", "10", "--collect", str(tmp_path / far), "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (5, 2), done.stderr
    assert str(tmp_path / far) in done.stderr
    assert deephpc.calls("sbatch") == 0
    assert not (deephpc.home / "work").exists()
    assert deephpc("run", "--time", "10", "--collect", str(tmp_path / far), "--dry-run", "--", "true").returncode == 0


def test_a_dry_run_sends_nothing_and_a_place_can_be_named_later(deephpc: CommandLine, tmp_path: Path):
    run_id = deephpc(
        "run", "--time", "10", "--wait", "--", "bash", "-c", "echo x >$DEEPHPC_OUTPUT_DIR/x"
    ).stdout.strip()
    nowhere = deephpc("collect", run_id)
    assert nowhere.returncode == 2
    assert f"deephpc collect {run_id} DEST" in nowhere.stderr
    shown = json.loads(deephpc("--json", "collect", run_id, "later", "--dry-run").stdout)
    assert (shown["done"], shown["digest"], shown["transferred_files"] > 0) == (False, None, True)
    assert not (deephpc.home / "later").exists()
    done = deephpc("collect", run_id, "later")
    assert done.returncode == 0, done.stderr
    assert (deephpc.home / "later" / run_id / "output" / "x").read_text() == "x\n"


def test_credentials_in_a_place_are_refused_before_anything_is_written(deephpc: CommandLine):
    done = deephpc("run", "--time", "10", "--collect", "https://me:hunter2@x/y", "--", "true")
    assert done.returncode == 2
    assert "credentials" in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stderr.count("\n") == 2
    assert not (deephpc.home / "work").exists()


def test_data_that_are_missing_end_with_the_code_of_data_and_submit_nothing(deephpc: CommandLine):
    done = deephpc("run", "--time", "10", "--data", "gone", "--", "true")
    assert done.returncode == 5
    assert not (deephpc.home / "work").exists()
    dry = deephpc("run", "--time", "10", "--data", "gone", "--dry-run", "--", "true")
    assert dry.returncode == 0, dry.stderr
