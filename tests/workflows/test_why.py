"""Why a run waits or failed, and the next step."""

import json
from pathlib import Path

import pytest

from deephpc.jobs.state import JobState
from deephpc.workflows.why import diagnose
from tests.fakes.samples import NOON, a_job

S = JobState


@pytest.mark.parametrize("state", list(S))
def test_every_state_is_explained_with_a_next_step(tmp_path: Path, state: JobState):
    for job_id in ("4711", None):
        diagnosis = diagnose(a_job(tmp_path, state=state, job_id=job_id, reason="Priority"), None)
        assert diagnosis.text
        assert diagnosis.next_step
        assert "\n" not in diagnosis.text + diagnosis.next_step


def test_a_refused_job_is_told_with_the_schedulers_words(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, raw_state="REFUSED", reason="Invalid account", job_id=None)
    assert diagnose(job, None).text == "the scheduler refused it: Invalid account"


def test_a_program_that_failed_shows_its_exit_code_and_the_end_of_its_log(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, exit_code=7)
    job.folder.mkdir()
    started = {"event": "started", "at": NOON.isoformat(), "attempt": 1, "job_id": "1"}
    job.files.task(None).events.write_text(json.dumps(started) + "\n")
    lines = "".join(f"line {number}\n" for number in range(100))
    job.files.task(None).log.write_bytes(lines.encode() + b"10%\r50%\r100%\r\nTraceback\xff\n")
    diagnosis = diagnose(job, None)
    assert "7" in diagnosis.text
    assert diagnosis.last_lines[-2:] == ("100%", "Traceback\N{REPLACEMENT CHARACTER}")
    assert len(diagnosis.last_lines) == 15


def test_a_program_that_never_started_is_the_sites_fault(tmp_path: Path):
    job = a_job(tmp_path, state=S.NODE_FAIL)
    assert "never started" in diagnose(job, None).text


def test_an_array_is_explained_by_its_first_failed_task(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, tasks={0: S.COMPLETED, 3: S.FAILED, 7: S.FAILED})
    assert diagnose(job, None).run_id == "run-a-0001_3"
    assert diagnose(job, 7).run_id == "run-a-0001_7"
    assert diagnose(job, 0).state is S.COMPLETED
