"""What people and programs read."""

import csv
import io
import json
import math
import re
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from deephpc.catalogue.module import Module
from deephpc.catalogue.search import Hits
from deephpc.jobs.record import Record, Tally
from deephpc.jobs.slurm_granted import Granted
from deephpc.jobs.slurm_outlook import Outlook
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState
from deephpc.render import jobs as render
from deephpc.render.catalogue import render_hits
from deephpc.render.job_resources import resource_lines
from deephpc.render.outlook import outlook_lines, waiting_line
from deephpc.render.predict import render_batch
from deephpc.workflows.batch_results import BatchSummary
from deephpc.workflows.detail import gather_detail
from deephpc.workflows.why import diagnose
from tests.fakes.samples import NOON, a_job, after

S = JobState


@pytest.fixture
def jobs(tmp_path: Path):
    return [
        a_job(tmp_path, "run-a-0001", state=S.RUNNING, started_at=NOON, seen_at=after(3661), nodes="n[1-2]"),
        a_job(tmp_path, "run-b-0002", state=S.FAILED, exit_code=7, reason="[bold]not markup[/]", target="é,\n\"x\""),
        a_job(tmp_path, "run-c-0003", state=S.RUNNING, tasks={0: S.RUNNING, 1: S.COMPLETED, 2: S.COMPLETED}),
        a_job(tmp_path, "run-d-0004", state=S.SUBMITTING, job_id=None, submitted_at=None),
    ]  # fmt: skip


def test_a_table_has_a_line_for_each_run(jobs):
    lines = render.render_jobs(jobs, (), after(3661), as_json=False).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["RUN", "STATE"]
    assert "RUNNING" in lines[1]
    assert "01:01:01" in lines[1]
    assert "exit code 7" in lines[2]
    assert "[bold]not markup[/]" in lines[2]
    assert "(2 completed, 1 running)" in lines[3]
    assert not any("\x1b" in line for line in lines)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Make the answer go to a terminal of so many columns."""

    def of(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return of


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_table_keeps_to_a_terminals_lines_and_cuts_no_run_state_time_or_job(terminal, tmp_path: Path, columns: int):
    long = a_job(
        tmp_path,
        "train-digits-02c1",
        state=S.FAILED,
        exit_code=7,
        started_at=NOON,
        ended_at=after(90000),
        nodes="gpu[001-004,007,011-099]",
        reason="cannot enter /home/somebody/a/long/way/down on gpu001, which is not there",
    )
    terminal(columns)
    lines = Text.from_ansi(render.render_jobs([long, a_job(tmp_path)], (), NOON, as_json=False)).plain.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= columns
    assert "train-digits-02c1  FAILED exit code 7  1-01:00:00  4711" in lines[1]
    assert ("2026" in lines[1]) == ("SUBMITTED" in lines[0]) == (columns >= 120)
    assert ("…" in lines[1]) == (columns < 200 and "WHY" in lines[0])
    assert not any(column.endswith("…") for column in lines[0].split())


def test_a_table_for_a_program_is_whole(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, reason="x" * 500, nodes="n[1-2]," * 50)
    text = render.render_jobs([job], (), NOON, as_json=False)
    assert len(text.splitlines()) == 2
    assert "x" * 500 in text
    assert "n[1-2]," * 50 in text


def test_a_run_not_seen_of_late_says_so_and_its_time_stands_still(tmp_path: Path):
    job = a_job(tmp_path, state=S.RUNNING, started_at=NOON, seen_at=after(60))
    line = render.render_jobs([job], (), after(7200), as_json=False).splitlines()[1]
    assert "00:01:00" in line
    assert f"(as of {after(60).astimezone():%Y-%m-%d %H:%M:%S})" in line
    answer = render.render_diagnosis(diagnose(job, None, now=after(7200)), NOON, as_json=False)
    assert f"as of {after(60).astimezone():%Y-%m-%d %H:%M:%S}, from record" in answer.splitlines()[0]


def test_a_dry_cancellation_tells_nothing_to_end(jobs):
    wanted = [(jobs[0], None), (jobs[1], None), (jobs[2], 0), (jobs[2], 1)]
    lines = render.render_cancelled(wanted, as_json=False, is_dry=True).splitlines()
    assert lines == [
        "run-a-0001: would be told to end",
        "run-b-0002: had ended already (FAILED)",
        "run-c-0003_0: would be told to end",
        "run-c-0003_1: had ended already (COMPLETED)",
    ]
    told = [row["told"] for row in json.loads(render.render_cancelled(wanted, as_json=True, is_dry=True))["jobs"]]
    assert told == [False] * 4
    assert render.render_cancelled(wanted[:1], as_json=False) == "run-a-0001: told to end"
    assert [row["told"] for row in json.loads(render.render_cancelled(wanted, as_json=True))["jobs"]] == [
        True,
        False,
        True,
        False,
    ]


def test_what_a_terminal_would_obey_is_shown_instead(jobs, tmp_path: Path):
    job = jobs[1].model_copy(update={"reason": "red \x1b[31m\u202e"})
    job.folder.mkdir()
    job.files.task(None).metrics.write_text(json.dumps({"\x1b]0;x\x07": 1.0, "half \ud800": 2}) + "\n")
    job.files.task(None).log.write_bytes(b"\x1b[2J\ttab\n")
    with Record(tmp_path / "deephpc.db") as record:
        record.add(job)
        shown = render.render_detail(gather_detail(job, None, record, None, NOON), as_json=False)
    why = render.render_diagnosis(diagnose(job, None), NOON, as_json=False)
    table = render.render_jobs([job], (), NOON, as_json=False)
    series = render.render_series(job, None, as_json=False)
    exported = render.render_export([job], {job.run_id: {"\x1b[1m": 1.0}}, as_json=False)
    for text in (shown, why, table, series, exported):
        assert "\x1b" not in text
        assert "\\x1b" in text
        assert text.encode()
    assert "\ttab" in why


def in_slurm(**facts: object) -> Granted:
    known = {"partition": "short", "account": "proj1", "qos": "normal", "walltime": timedelta(minutes=5), "nodes": 2,
             "cpus": 8, "memory_mib": 4000, "gpus": 3, "submitted_at": NOON, "name": ""}  # fmt: skip
    return Granted.model_validate({**known, **facts})


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ({}, {"gpus": None}, {"partition": ["-", "short"], "nodes": ["-", "2"], "memory": ["-", "2000M per node"]}),
        (
            {"partition": "gpu", "gpus_per_node": 1, "gpu_type": "a100", "memory_mib": 0, "nodes": 2, "account": "p"},
            {"gpu_type": "a100", "walltime": None, "memory_mib": 4001},
            {
                "partition": ["gpu", "short"],
                "memory": ["all of each node", "4001M in all"],
                "GPUs": ["1 a100 per node", "3 a100 in all"],
            },
        ),
        (
            {"walltime": "2:00:00", "memory_mib": 16384, "exclusive": True, "cpus_per_task": 3},
            {"nodes": 1, "gpus": 4, "account": ""},
            {
                "time limit": ["02:00:00", "00:05:00"],
                "memory": ["16G per node", "4000M per node"],
                "GPUs": ["-", "4 per node"],
                "CPUs": ["3", "8"],
                "exclusive": ["yes", "-"],
            },
        ),
    ],
)
def test_what_was_requested_and_granted_stands_side_by_side(
    tmp_path: Path, asked: dict[str, object], given: dict[str, object], expected: dict[str, list[str]]
):
    job = a_job(tmp_path, state=S.RUNNING, resources=Resources.model_validate(asked))
    title, *lines = resource_lines(job, in_slurm(**given))
    table = {name: rest for name, *rest in (re.split("  +", line.strip()) for line in lines)}
    assert title.split() == ["resources", "requested", "granted"]
    assert table == {**table, **expected}
    waiting, *_ = resource_lines(job.model_copy(update={"state": S.PENDING}), in_slurm(**given))
    assert waiting.split() == ["resources", "requested", "queued", "with"]
    (alone,) = resource_lines(job, None)
    assert alone.split(maxsplit=1) == ["requested", job.resources.describe() or "the defaults of the site"]


def test_an_attempt_that_was_queued_again_is_not_called_cancelled(tmp_path: Path):
    job = a_job(tmp_path, state=S.COMPLETED)
    job.folder.mkdir()
    at = {"at": NOON.isoformat(), "job_id": "4711", "nodes": "n1"}
    cancelled = {"event": "finished", "state": "CANCELLED", "exit_code": 143, "signal": 15}
    events = [
        {**at, "event": "started", "attempt": 1},
        {**at, "event": "terminated", "at_limit": False},
        {**at, **cancelled},
        {**at, "event": "started", "attempt": 2},
        {**at, **cancelled, "state": "COMPLETED", "exit_code": 0, "signal": None},
    ]
    job.files.task(None).events.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    with Record(tmp_path / "deephpc.db") as record:
        record.add(job)
        text = render.render_detail(gather_detail(job, None, record, None, NOON), as_json=False)
    assert "→ told to end, queued again" in text
    assert "CANCELLED" not in text
    assert "→ COMPLETED" in text


def test_a_task_is_shown_as_it_stands_itself(jobs, tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as record:
        record.add(jobs[2])
        detail = gather_detail(jobs[2], 1, record, None, NOON)
    assert render.render_detail(detail, as_json=False).startswith("run-c-0003_1 ended COMPLETED")


def test_no_runs_say_how_to_start_one():
    assert "deephpc train --help" in render.render_jobs([], (), NOON, as_json=False)


@pytest.mark.parametrize("recorded", [1, 145, 16_300])
def test_a_question_that_no_run_fits_says_how_many_there_are(recorded: int):
    tally = Tally(matching=0, recorded=recorded)
    assert render.render_jobs([], (), NOON, as_json=False, tally=tally) == f"no run matches; {recorded} recorded"


def test_a_record_without_runs_is_no_question_that_none_fits():
    tally = Tally(matching=0, recorded=0)
    assert "deephpc train --help" in render.render_jobs([], (), NOON, as_json=False, tally=tally)


@pytest.mark.parametrize(
    ("shown", "matching", "recorded", "said"),
    [
        (50, 145, 145, "50 of 145 runs; --limit 145 shows all"),
        (50, 60, 145, "50 of 60 that match; --limit 60 shows all"),
        (1, 2, 2, "1 of 2 runs; --limit 2 shows all"),
        (145, 145, 145, ""),
        (3, 3, 145, ""),
    ],
)
def test_what_a_limit_leaves_out_is_said(shown: int, matching: int, recorded: int, said: str):
    assert render.describe_cut(shown, Tally(matching=matching, recorded=recorded)) == said


def test_json_answers_say_their_shape_and_tell_no_secrets(jobs):
    answer = json.loads(render.render_jobs(jobs, ("sacct failed",), NOON, as_json=True))
    assert answer["schema"] == "deephpc.jobs/1"
    assert answer["troubles"] == ["sacct failed"]
    tally = Tally(matching=3, recorded=9)
    counted = json.loads(render.render_jobs(jobs, (), NOON, as_json=True, tally=tally))
    assert (counted["matching"], counted["recorded"]) == (3, 9)
    assert [job["run_id"] for job in answer["jobs"]] == [job.run_id for job in jobs]
    assert answer["jobs"][1]["exit_code"] == 7
    assert not {"token", "fingerprint", "submitter"} & set(answer["jobs"][0])


def test_an_end_is_one_line(jobs):
    assert render.describe_end(jobs[0]) == "run-a-0001 is RUNNING"
    assert render.describe_end(jobs[1]) == "run-b-0002 ended FAILED, exit code 7: [bold]not markup[/]"
    killed = jobs[1].model_copy(update={"signal": 9, "exit_code": 137, "reason": ""})
    assert render.describe_end(killed) == "run-b-0002 ended FAILED, signal 9"


def test_a_submitted_run_is_its_id_alone(jobs):
    assert render.render_submitted(jobs[0], as_json=False) == "run-a-0001"
    assert json.loads(render.render_submitted(jobs[0], as_json=True))["schema"] == "deephpc.submitted/1"


def test_an_export_is_csv_that_reads_back(jobs):
    text = render.render_export(jobs, {"run-b-0002": {"loss": 0.5}}, as_json=False)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["run_id"] for row in rows] == [job.run_id for job in jobs]
    assert (rows[1]["target"], rows[1]["loss"], rows[0]["loss"]) == ('é,\n"x"', "0.5", "")


def test_one_runs_metrics_are_exported_point_by_point(tmp_path: Path):
    job = a_job(tmp_path)
    job.folder.mkdir()
    job.files.task(None).metrics.write_text('{"step": 1, "loss": 2}\n{"step": 5, "loss": 1}\n')
    assert render.render_series(job, None, as_json=False).splitlines() == [
        "metric,x,value",
        "loss,1.0,2.0",
        "loss,5.0,1.0",
    ]
    answer = json.loads(render.render_series(job, None, as_json=True))
    assert answer["metrics"] == {"loss": [[1.0, 2.0], [5.0, 1.0]]}


def test_a_run_is_shown_whole(jobs, tmp_path: Path):
    job = jobs[1]
    job.folder.mkdir()
    job.files.task(None).metrics.write_text('{"loss": 2}\n{"loss": 1}\n')
    with Record(tmp_path / "deephpc.db") as record:
        record.add(job)
        detail = gather_detail(job, None, record, None, NOON)
    text = render.render_detail(detail, as_json=False)
    assert text.startswith("run-b-0002 ended FAILED, exit code 7")
    assert "loss  █▁  last 1, min 1, max 2" in text
    answer = json.loads(render.render_detail(detail, as_json=True))
    assert answer["schema"] == "deephpc.job/1"
    assert answer["job"]["run_id"] == "run-b-0002"


def test_a_diagnosis_ends_with_the_next_step(jobs):
    diagnosis = diagnose(jobs[0].model_copy(update={"state": S.PENDING, "reason": "Priority"}), None)
    lines = render.render_diagnosis(diagnosis, NOON, as_json=False).splitlines()
    assert lines[0].startswith("run-a-0001 is PENDING")
    assert lines[2].startswith("  next: ")
    assert json.loads(render.render_diagnosis(diagnosis, NOON, as_json=True))["schema"] == "deephpc.why/1"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch):
    """Have the reader's clock show UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


SOONER = [{"partition": "short", "starts_at": NOON}, {"partition": "long", "starts_at": after(9)}]


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({}, []),
        (
            {"starts_at": after(30), "ahead": 0},
            ["estimated start: any moment, as the queue stands", "no jobs wait before it in partition gpu"],
        ),
        (
            {"starts_at": after(3600), "ahead": 1},
            ["estimated start: about 13:00, as the queue stands", "1 job waits before it in partition gpu"],
        ),
        (
            {"starts_at": after(90_000), "sooner": SOONER},
            [
                "estimated start: about Mon 2026-03-02 13:00, as the queue stands",
                "partition short could start it any moment (so could long):",
                "  deephpc jobs cancel run-a && deephpc jobs rerun run-a --partition short",
            ],
        ),
    ],
)
def test_why_tells_when_a_run_may_start(facts: dict[str, object], lines: list[str]):
    assert outlook_lines("run-a", Outlook.model_validate({"partition": "gpu", **facts}), NOON) == lines
    assert outlook_lines("run-a", None, NOON) == []


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("passed_s", "more", "starts_s", "line"),
    [
        (5, 0, None, "queued less than 1 min: Priority"),
        (185, 0, 7500, "queued 3 min: Priority; about 14:05"),
        (7500, 2, 7501, "queued 3 runs, run-a-0001 2 h 5 min: Priority; any moment"),
        (200_000, 0, 400_000, "queued 2 d 7 h: Priority; about Fri 2026-03-06 03:06"),
    ],
)
def test_one_line_tells_how_long_runs_are_queued(
    tmp_path: Path, passed_s: int, more: int, starts_s: int | None, line: str
):
    waiting = [a_job(tmp_path, reason="Priority"), *(a_job(tmp_path, f"run-b-{number}") for number in range(more))]
    starts_at = None if starts_s is None else after(starts_s)
    assert waiting_line(waiting, starts_at, after(passed_s)) == line


@pytest.mark.parametrize(
    ("failed", "missing", "has_ended", "told"),
    [
        (0, 2, False, ["2 not predicted yet", "--resume run-b-0001, when it has ended"]),
        (0, 2, True, ["1 of 3 inputs have a result, 2 not predicted\n", "--resume run-b-0001: predicts"]),
        (2, 0, True, ["2 failed", "--resume run-b-0001: predicts"]),
    ],
)
def test_a_batch_says_when_it_can_be_gone_on_with(failed: int, missing: int, has_ended: bool, told: list[str]):
    summary = BatchSummary(
        run_id="run-b-0001", inputs=3, ok=1, failed=failed, missing=missing, results=Path("r"), table=Path("t")
    )
    answer = render_batch(summary, has_ended=has_ended, as_json=False)
    assert [text for text in told if text not in answer] == []
    assert ("yet" in answer) is (not has_ended)


@pytest.mark.parametrize(
    ("name", "title", "shown"),
    [
        ("ai4os-demo-app", "ai4os-demo-app", "A toy"),
        ("DEEP-OC-demo_app", "Demo App", "A toy"),
        ("plants", "Plants species classifier", "Plants species classifier"),
    ],
)
def test_a_module_found_is_told_by_more_than_its_name(name: str, title: str, shown: str):
    module = Module(name=name, source="s", title=title, summary="A toy\n" * 40, as_of=NOON)
    line = render_hits(Hits(modules=(module,)), NOON, as_json=False).splitlines()[1]
    assert line.partition(" - ")[2].split("s", 1)[1].strip().startswith(shown)


def test_a_curve_goes_up_where_its_values_do():
    assert render.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert render.sparkline([5, 5]) == "▁▁"
    assert render.sparkline([]) == ""
    assert len(render.sparkline(list(range(1000)))) == 40


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=200))
def test_any_finite_values_make_a_curve(values: list[float]):
    assert len(render.sparkline(values)) == min(40, len(values))
    assert all(math.isfinite(value) for value in values)
