"""What people and programs read."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.record import Record
from deephpc.jobs.state import JobState
from deephpc.render import jobs as render
from deephpc.workflows.detail import gather_detail
from deephpc.workflows.why import diagnose
from tests.fakes.samples import NOON, a_job, after

S = JobState


@pytest.fixture
def jobs(tmp_path: Path):
    return [
        a_job(tmp_path, "run-a-0001", state=S.RUNNING, started_at=NOON, nodes="n[1-2]"),
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


def test_no_runs_say_how_to_start_one():
    assert "deephpc train --help" in render.render_jobs([], (), NOON, as_json=False)


def test_json_answers_say_their_shape_and_tell_no_secrets(jobs):
    answer = json.loads(render.render_jobs(jobs, ("sacct failed",), NOON, as_json=True))
    assert answer["schema"] == "deephpc.jobs/1"
    assert answer["troubles"] == ["sacct failed"]
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
    lines = render.render_diagnosis(diagnosis, as_json=False).splitlines()
    assert lines[0].startswith("run-a-0001 is PENDING")
    assert lines[2].startswith("  next: ")
    assert json.loads(render.render_diagnosis(diagnosis, as_json=True))["schema"] == "deephpc.why/1"


def test_a_curve_goes_up_where_its_values_do():
    assert render.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert render.sparkline([5, 5]) == "▁▁"
    assert render.sparkline([]) == ""
    assert len(render.sparkline(list(range(1000)))) == 40


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=200))
def test_any_finite_values_make_a_curve(values: list[float]):
    assert len(render.sparkline(values)) == min(40, len(values))
    assert all(math.isfinite(value) for value in values)
