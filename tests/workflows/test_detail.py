"""All that is known of one run, and what it cost."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.slurm_granted import Granted
from deephpc.jobs.slurm_usage import Accounted
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState
from deephpc.workflows.detail import gather_detail, usage_from_accounting
from tests.fakes.samples import NOON, a_job, after
from tests.fakes.schedulers import ScriptedScheduler

ASKED = Resources(nodes=2, cpus_per_task=4, gpus_per_node=1, memory_mib=1000)


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "deephpc.db") as opened:
        yield opened


def ended(tmp_path: Path, **facts: object) -> Job:
    job = a_job(tmp_path, state=JobState.COMPLETED, resources=ASKED, **facts)
    job.folder.mkdir()
    return job


def leave_events(folder: Path, *events: tuple[str, float, dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"event": name, "at": after(at).isoformat(), "attempt": 1, "job_id": "1", **more} for name, at, more in events
    ]
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


FINISHED = {"state": "COMPLETED", "exit_code": 0, "signal": None}


def test_a_run_of_which_nothing_is_left_still_has_its_row(record: Record, tmp_path: Path):
    job = a_job(tmp_path)
    record.add(job)
    detail = gather_detail(job, None, record, None, NOON)
    assert (detail.plan, detail.result, detail.usage, detail.attempts) == (None, None, None, ())
    assert [event.to_state for event in detail.events] == [JobState.PENDING]
    assert detail.places == {}


def test_the_jobs_own_samples_tell_what_it_used(record: Record, tmp_path: Path):
    job = ended(tmp_path)
    leave_events(job.folder, ("started", 0, {}), ("finished", 3600, FINISHED))
    sample = {"at": after(1).isoformat(), "cpu_s": 7200.0, "rss_mib": 250, "processes": 2,
              "gpus": [{"index": 0, "utilization_percent": 40, "memory_mib": 10}]}  # fmt: skip
    job.files.task(None).usage.write_text(f"{json.dumps(sample)}\n")
    usage = gather_detail(job, None, record, None, after(9999)).usage
    assert usage is not None
    assert (usage.core_hours, usage.gpu_hours, usage.elapsed_s) == (8.0, 2.0, 3600)
    assert usage.cpu_efficiency == pytest.approx(0.5)  # 7200 CPU seconds of 4 cores on the first node for an hour
    assert (usage.memory_peak_mib, usage.memory_efficiency, usage.gpu_utilization_percent) == (250, 0.25, 40)


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"rss_mib": "much", "gpus": 3}', '{"gpus": [1]}', '{"cpu_s": null}']
)
def test_junk_among_the_samples_is_passed_over(record: Record, tmp_path: Path, line: str):
    job = ended(tmp_path)
    leave_events(job.folder, ("started", 0, {}), ("finished", 60, FINISHED))
    job.files.task(None).usage.write_text(line + "\n")
    usage = gather_detail(job, None, record, None, after(60)).usage
    assert usage is not None
    assert (usage.memory_peak_mib, usage.cpu_efficiency) == (None, None)


def test_every_attempt_is_charged(record: Record, tmp_path: Path):
    job = ended(tmp_path)
    second = ("started", 5400.0, {"attempt": 2})
    leave_events(job.folder, ("started", 0, {}), second, ("finished", 9000, {**FINISHED, "attempt": 2}))
    usage = gather_detail(job, None, record, None, after(9999)).usage
    assert usage is not None
    assert usage.elapsed_s == 9000
    assert usage.core_hours == 20.0


@pytest.mark.parametrize("tasks", [(0,), (0, 1), (0, 1, 2)])
def test_the_tasks_of_an_array_are_added_up(record: Record, tmp_path: Path, tasks: tuple[int, ...]):
    job = ended(tmp_path, tasks=dict.fromkeys(tasks, JobState.COMPLETED))
    for number in tasks:
        leave_events(job.files.task(number).path, ("started", 0, {}), ("finished", 1800, FINISHED))
    whole = gather_detail(job, None, record, None, after(9999)).usage
    one = gather_detail(job, 0, record, None, after(9999)).usage
    assert whole is not None
    assert one is not None
    assert whole.core_hours == 4.0 * len(tasks)
    assert one.core_hours == 4.0


def test_a_running_job_is_charged_until_now(record: Record, tmp_path: Path):
    job = ended(tmp_path).model_copy(update={"state": JobState.RUNNING})
    leave_events(job.folder, ("started", 0, {}))
    usage = gather_detail(job, None, record, None, after(900)).usage
    assert usage is not None
    assert usage.core_hours == 2.0


def granted(**facts: object) -> Granted:
    known = {"partition": "short", "account": "proj1", "qos": "normal", "walltime": timedelta(minutes=5), "nodes": 2,
             "cpus": 8, "memory_mib": 4000, "gpus": 2, "submitted_at": NOON, "name": ""}  # fmt: skip
    return Granted.model_validate({**known, **facts})


@pytest.mark.parametrize(
    "others",
    [
        [],
        [granted(name="run-other.ffffffff")],
        [granted(name="theirs", submitted_at=after(-86400)), granted(name="run-b.00000000", partition="gpu")],
    ],
)
def test_what_was_granted_is_that_of_the_runs_own_job(record: Record, tmp_path: Path, others: list[Granted]):
    job = ended(tmp_path)
    record.add(job)
    own = granted(name=job.job_name)
    told = gather_detail(job, None, record, ScriptedScheduler(granted=[*others, own]), NOON).granted
    assert told == own
    assert gather_detail(job, None, record, ScriptedScheduler(granted=others), NOON).granted is None


def row(**facts: object) -> Accounted:
    known = {"job_id": "1", "task": None, "elapsed_s": 3600, "cpu_seconds": 7200.0, "cpus": 4, "gpus": 1, "nodes": 1,
             "memory_mib": 1000, "max_rss_mib": 250.0, "energy_joules": None}  # fmt: skip
    return Accounted(**{**known, **facts})


def test_accountings_rows_are_added_up():
    usage = usage_from_accounting([row(), row(cpu_seconds=None, max_rss_mib=None)], 1000)
    assert usage is not None
    assert (usage.source, usage.core_hours, usage.gpu_hours, usage.elapsed_s) == ("accounting", 8.0, 2.0, 7200)
    assert (usage.cpu_efficiency, usage.memory_efficiency) == (0.25, 0.25)


def test_accounting_without_any_cpu_time_is_no_usage():
    assert usage_from_accounting([], 1000) is None
    assert usage_from_accounting([row(cpu_seconds=None)], 1000) is None
    assert usage_from_accounting([row(elapsed_s=0)], 1000) is None


@pytest.mark.parametrize(
    "other",
    [
        {"name": "bash", "submitted_at": NOON - timedelta(days=400)},
        {"name": "run-a-0001.00000000", "submitted_at": after(5)},
        {"name": "somebody's", "submitted_at": NOON - timedelta(hours=1)},
    ],
)
def test_what_another_job_of_the_same_id_used_is_not_the_runs(record: Record, tmp_path: Path, other: dict[str, Any]):
    job = ended(tmp_path)
    ours = row(elapsed_s=2, cpus=2, gpus=0, name=job.job_name, submitted_at=NOON)
    scheduler = ScriptedScheduler(accounted=[row(elapsed_s=10**6, cpus=64, **other), ours])
    usage = gather_detail(job, None, record, scheduler, after(9)).usage
    assert usage is not None
    assert (usage.elapsed_s, round(usage.core_hours * 3600)) == (2, 4)


def test_places_are_those_that_exist(record: Record, tmp_path: Path):
    job = ended(tmp_path)
    job.files.task(None).output.mkdir()
    detail = gather_detail(job, None, record, None, NOON)
    assert detail.places == {"run folder": job.folder, "output": job.folder / "output"}
