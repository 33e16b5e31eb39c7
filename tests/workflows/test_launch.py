"""From a request to the queue, once."""

from dataclasses import replace
from pathlib import Path

import pytest

from deephpc.errors import InputError
from deephpc.jobs.record import Record
from deephpc.jobs.scheduler import Observation, Submission
from deephpc.jobs.state import JobState
from deephpc.workflows.launch import Asked, launch, prepare
from deephpc.workflows.request import JobOptions, load_run_request, load_train_request
from tests.fakes.samples import NOON, a_job, settings_in
from tests.fakes.schedulers import ScriptedScheduler, seen, sighting


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "state" / "deephpc.db") as opened:
        yield opened


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    request = load_run_request(["echo", "a b"], tmp_path, JobOptions())
    return Asked(request, {}, {"PATH": "/usr/bin", "HOME": str(tmp_path)})


def launched(asked: Asked, tmp_path: Path, record: Record, scheduler: ScriptedScheduler, where: str = "local"):
    return launch(asked, settings_in(tmp_path, scheduler=where), record, scheduler, lambda: NOON)


def test_the_dry_runs_script_is_the_next_real_runs_byte_for_byte(asked: Asked, record: Record, tmp_path: Path):
    for _ in range(3):
        shown, _ = prepare(asked, settings_in(tmp_path), record, NOON)
        job, _, _ = launched(asked, tmp_path, record, ScriptedScheduler(["4711"]))
        assert job.files.script.read_text() == shown.script
        assert job.files.plan.read_text() == shown.plan.render()


def test_a_dry_run_without_a_record_shows_the_first_real_run(asked: Asked, record: Record, tmp_path: Path):
    options = JobOptions(dependency="afterok:4711")
    again = Asked(load_run_request(["echo"], tmp_path, options), {}, asked.environ)
    shown, _ = prepare(again, settings_in(tmp_path, scheduler="slurm"), None, NOON)
    job, _, _ = launched(again, tmp_path, record, ScriptedScheduler(["4712"]), "slurm")
    assert "--dependency=afterok:4711" in shown.script
    assert job.files.script.read_text() == shown.script


@pytest.mark.parametrize("inside", ["", "/.", "/../runs"])
def test_results_are_not_to_be_collected_into_the_folder_of_the_runs(record: Record, tmp_path: Path, inside: str):
    settings = settings_in(tmp_path)
    place = f"{settings.work_dir}{inside.replace('runs', settings.work_dir.name)}"
    request = load_run_request(["echo"], tmp_path, JobOptions(collect=place))
    with pytest.raises(InputError, match="would be copied onto itself"):
        launch(Asked(request, {}, {}), settings, record, ScriptedScheduler(["4711"]), lambda: NOON)
    assert not list(settings.work_dir.glob("run-*"))


def test_preparing_touches_nothing(asked: Asked, tmp_path: Path):
    prepare(asked, settings_in(tmp_path), None, NOON)
    assert list(tmp_path.iterdir()) == []


def test_the_same_request_twice_is_two_runs(asked: Asked, record: Record, tmp_path: Path):
    first, _, _ = launched(asked, tmp_path, record, ScriptedScheduler(["1"]))
    second, _, resumed = launched(asked, tmp_path, record, ScriptedScheduler(["2"]))
    assert first.run_id != second.run_id
    assert first.token != second.token
    assert not resumed


def test_a_command_repeated_after_it_was_killed_goes_on_with_its_run(asked: Asked, record: Record, tmp_path: Path):
    def killed(_: Submission) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched(asked, tmp_path, record, ScriptedScheduler(on_submit=killed))
    (left,) = record.unfinished()
    record.change(left.run_id, lambda job: job.model_copy(update={"submitter": "gone"}), NOON)
    queued = Observation(queue=seen(sighting("4711", JobState.PENDING, name=left.job_name)), accounting=None)
    scheduler = ScriptedScheduler(["4712"], [queued])
    job, _, was_resumed = launched(asked, tmp_path, record, scheduler)
    assert (job.run_id, job.job_id, was_resumed) == (left.run_id, "4711", True)
    assert not scheduler.submitted


def test_a_run_goes_to_the_clusters_that_are_meant_and_is_gone_on_with_there(
    asked: Asked, record: Record, tmp_path: Path
):
    def killed(_: Submission) -> None:
        raise KeyboardInterrupt

    there = replace(asked, environ={**asked.environ, "SBATCH_CLUSTERS": "box"})
    with pytest.raises(KeyboardInterrupt):
        launched(there, tmp_path, record, ScriptedScheduler(on_submit=killed), "slurm")
    (left,) = record.unfinished()
    record.change(left.run_id, lambda job: job.model_copy(update={"submitter": "gone"}), NOON)
    queued = Observation(queue=seen(sighting("4711;box", JobState.PENDING, name=left.job_name)), accounting=None)
    for environ in (asked.environ, {**asked.environ, "SLURM_CLUSTERS": "other"}):
        ready, resumed = prepare(
            replace(asked, environ=environ), settings_in(tmp_path, scheduler="slurm"), record, NOON
        )
        assert (ready.plan.clusters, resumed and resumed.run_id) == (("box",), left.run_id)
    scheduler = ScriptedScheduler(observations=[queued])
    job, _, _ = launched(asked, tmp_path, record, scheduler, "slurm")
    assert scheduler.questions[0].name_clusters == ("box",)
    assert job.job_id == "4711;box"


def test_a_folder_in_the_way_is_not_taken_for_the_run(asked: Asked, record: Record, tmp_path: Path):
    shown, _ = prepare(asked, settings_in(tmp_path), record, NOON)
    shown.plan.spec.folder.mkdir(parents=True)
    job, _, _ = launched(asked, tmp_path, record, ScriptedScheduler(["4711"]))
    assert job.folder != shown.plan.spec.folder


def test_a_dependency_becomes_the_schedulers_id(asked: Asked, record: Record, tmp_path: Path):
    record.add(a_job(tmp_path, "run-first-0001", job_id="local-9", scheduler="local"))
    request = load_run_request(["echo"], tmp_path, JobOptions(dependency="afterok:run-first"))
    scheduler = ScriptedScheduler(["4711"])
    launched(Asked(request, {}, asked.environ), tmp_path, record, scheduler)
    (dependency,) = scheduler.submitted[0].spec.dependencies
    assert (dependency.job_ids, dependency.run_ids) == (("local-9",), ("run-first-0001",))


def test_an_unknown_dependency_leaves_nothing(asked: Asked, record: Record, tmp_path: Path):
    request = load_run_request(["echo"], tmp_path, JobOptions(dependency="afterok:nothing"))
    with pytest.raises(InputError, match="no run named 'nothing'"):
        launched(Asked(request, {}, asked.environ), tmp_path, record, ScriptedScheduler())
    assert not (tmp_path / "work").exists()
    assert not record.unfinished()


def test_words_with_every_odd_character_reach_the_spec_exactly(asked: Asked, record: Record, tmp_path: Path):
    words = ["./my prog", "it's", 'a "b"', "$(touch x)", "`id`", "a\nb", "é日本", "", "-n", "\\", "\t"]
    request = load_run_request(words, tmp_path, JobOptions())
    scheduler = ScriptedScheduler(["4711"])
    job, _, _ = launched(Asked(request, {}, asked.environ), tmp_path, record, scheduler)
    assert scheduler.submitted[0].spec.command == tuple(words)
    assert record.get(job.run_id).target == "./my prog"


def test_a_training_records_its_code(asked: Asked, record: Record, tmp_path: Path):
    (tmp_path / "train.py").write_text("print()\n")
    request = load_train_request("train.py", [], tmp_path, JobOptions())
    ready, _ = prepare(Asked(request, {}, asked.environ), settings_in(tmp_path), record, NOON)
    assert ready.plan.source is None  # no checkout here
    assert ready.plan.request == request
