"""Deciding a run is pure; carrying it out writes all of it, or nothing."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.errors import InputError, SiteError
from deephpc.jobs.record import Record
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Ambiguous, Refused, Submission
from deephpc.jobs.spec import Resources
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import Patience, read_answer
from deephpc.workflows.plan import NewRun, job_environment, load_plan, plan_job
from deephpc.workflows.request import JobOptions, JobRequest, load_run_request
from deephpc.workflows.submit import Ready, carry_out, find_unfinished
from tests.fakes.samples import NOON, TOKEN, after, settings_in
from tests.fakes.schedulers import NOTHING, SILENCE, ScriptedScheduler

IMPATIENT = Patience(deadline_s=0.0, settle_s=0.0, pause_s=0.0)
NEW = NewRun("run-echo-0001", TOKEN, NOON)
ENVIRON = {"PATH": "/usr/bin", "HOME": "/home/me", "SECRET_TOKEN": "s3cret", "SBATCH_PARTITION": "x", "LC_ALL": "C"}


@pytest.fixture
def request_(tmp_path: Path) -> JobRequest:
    options = JobOptions(resources=Resources(walltime=timedelta(minutes=5)), variable_names=("API_KEY",))
    return load_run_request(["echo", "it's\n$(x)"], tmp_path, options)


@pytest.fixture
def record(tmp_path: Path):
    with Record(tmp_path / "state" / "deephpc.db") as opened:
        yield opened


def ready(request: JobRequest, tmp_path: Path, new: NewRun = NEW) -> Ready:
    plan, script = plan_job(request, settings_in(tmp_path), new, environ=ENVIRON)
    return Ready(plan=plan, script=script, diff="diff --git\n", variables={"API_KEY": "hunter2 'x'\n$(y)"})


def carried_out(one: Ready, record: Record, scheduler: ScriptedScheduler, **more):
    return carry_out(one, record, scheduler, environ=ENVIRON, clock=lambda: after(1), patience=IMPATIENT, **more)


def everything_under(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_equal_inputs_give_equal_bytes(request_: JobRequest, tmp_path: Path):
    first, second = (plan_job(request_, settings_in(tmp_path), NEW, environ=ENVIRON) for _ in range(2))
    assert first[0].render() == second[0].render()
    assert first[1] == second[1]


@pytest.mark.parametrize(("asked_s", "grace_s"), [(None, 30), (48, 48), (90, 90), (0, 0)])
def test_a_short_job_is_told_of_its_end_when_half_of_it_is_over_unless_asked_otherwise(
    request_: JobRequest, tmp_path: Path, asked_s: float | None, grace_s: float
):
    asked = None if asked_s is None else timedelta(seconds=asked_s)
    options = request_.options.model_copy(
        update={"resources": Resources(walltime=timedelta(minutes=1)), "grace": asked}
    )
    short = request_.model_copy(update={"options": options})
    assert ready(short, tmp_path).plan.spec.grace == timedelta(seconds=grace_s)


def test_deciding_touches_nothing(request_: JobRequest, tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    ready(request_, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_reads_back_from_its_file(request_: JobRequest, tmp_path: Path):
    plan = ready(request_, tmp_path).plan
    (tmp_path / "plan.json").write_text(plan.render())
    assert load_plan(RunFolder(tmp_path)) == plan
    (tmp_path / "plan.json").write_text(plan.render()[:50])
    assert load_plan(RunFolder(tmp_path)) is None


def test_a_job_inherits_the_login_but_no_secrets():
    assert set(job_environment(ENVIRON)) == {"PATH", "HOME", "LC_ALL"}


def test_a_submitted_run_is_recorded_and_whole(request_: JobRequest, record: Record, tmp_path: Path):
    one = ready(request_, tmp_path)

    def already_there(submission: Submission) -> None:
        assert record.get("run-echo-0001").state is JobState.SUBMITTING
        assert submission.script.read_text() == one.script

    scheduler = ScriptedScheduler(["4711"], on_submit=already_there)
    job, heard = carried_out(one, record, scheduler)
    folder = job.files
    assert (job.state, job.job_id, job.submitter, heard) == (JobState.PENDING, "4711", "", ())
    assert record.get(job.run_id) == job
    assert read_answer(folder) == ("4711", after(1))
    assert load_plan(folder) == one.plan
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "job.sh", "plan.json", "sample_usage.py", "secrets", "source.diff", "submitted.json"]  # fmt: skip


def test_the_values_of_variables_are_nowhere_but_in_their_file(request_: JobRequest, record: Record, tmp_path: Path):
    scheduler = ScriptedScheduler(["4711"])
    job, _ = carried_out(ready(request_, tmp_path), record, scheduler)
    secret = job.files.secret_env
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(job.folder.stat().st_mode) == 0o700
    assert "hunter2" in secret.read_text()
    secret.unlink()
    assert "hunter2" not in everything_under(tmp_path)
    assert "hunter2" not in str(scheduler.submitted[0])
    assert "s3cret" not in everything_under(tmp_path)


def test_a_refused_job_keeps_its_script_and_is_recorded_as_failed(request_: JobRequest, record: Record, tmp_path: Path):
    with pytest.raises(InputError, match="the job was refused: Invalid partition name specified") as caught:
        carried_out(ready(request_, tmp_path), record, ScriptedScheduler([Refused("Invalid partition name specified")]))
    job = record.get("run-echo-0001")
    assert (job.state, job.raw_state, job.reason) == (JobState.FAILED, "REFUSED", "Invalid partition name specified")
    assert job.files.script.exists()
    assert str(job.folder) in caught.value.hint


def test_an_unanswered_submission_stays_in_the_record(request_: JobRequest, record: Record, tmp_path: Path):
    scheduler = ScriptedScheduler([Ambiguous("timed out")], [SILENCE])
    with pytest.raises(SiteError) as caught:
        carried_out(ready(request_, tmp_path), record, scheduler)
    assert caught.value.transient
    assert record.get("run-echo-0001").state is JobState.SUBMITTING


def test_a_work_dir_that_cannot_be_written_leaves_neither_row_nor_folder(
    request_: JobRequest, record: Record, tmp_path: Path
):
    (tmp_path / "work").write_text("a file")
    scheduler = ScriptedScheduler()
    with pytest.raises(SiteError, match="cannot write in"):
        carried_out(ready(request_, tmp_path), record, scheduler)
    assert not record.has("run-echo-0001")
    assert not scheduler.submitted


def test_a_run_folder_that_cannot_be_filled_is_taken_away_again(request_: JobRequest, record: Record, tmp_path: Path):
    one = ready(request_, tmp_path)
    broken = Ready(plan=one.plan, script="\udcff", variables=one.variables)
    with pytest.raises(UnicodeEncodeError):
        carried_out(broken, record, ScriptedScheduler())
    assert not record.has("run-echo-0001")
    assert not one.plan.spec.folder.exists()


def kill_while_submitting(one: Ready, record: Record) -> None:
    """Leave everything as a killed command does: in the record with a submitter that is no more."""

    def killed(_: Submission) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carried_out(one, record, ScriptedScheduler(on_submit=killed))
    gone = {"submitter": f"{one.plan.spec.run_id} 1 2"}
    record.change(one.plan.spec.run_id, lambda job: job.model_copy(update=gone), NOON)


def test_a_killed_submission_is_found_by_the_same_request(request_: JobRequest, record: Record, tmp_path: Path):
    one = ready(request_, tmp_path)
    settings = settings_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        carried_out(one, record, ScriptedScheduler(on_submit=lambda _: (_ for _ in ()).throw(KeyboardInterrupt())))
    assert find_unfinished(record, request_, settings, after(1)) is None  # its submitter, this process, lives
    record.change("run-echo-0001", lambda job: job.model_copy(update={"submitter": ""}), NOON)
    found = find_unfinished(record, request_, settings, after(1))
    other = load_run_request(["echo", "other"], tmp_path, JobOptions())
    assert found is not None
    assert found.run_id == "run-echo-0001"
    assert find_unfinished(record, other, settings, after(1)) is None
    assert find_unfinished(record, request_, settings, NOON + timedelta(days=2)) is None


def test_a_submission_on_another_login_node_is_left_to_it_for_a_while(
    request_: JobRequest, record: Record, tmp_path: Path
):
    kill_while_submitting(ready(request_, tmp_path), record)
    settings = settings_in(tmp_path)
    with pytest.raises(SiteError, match="is being submitted on run-echo-0001") as caught:
        find_unfinished(record, request_, settings, after(60))
    assert caught.value.transient
    assert find_unfinished(record, request_, settings, after(180)) is not None


def test_going_on_looks_before_it_sends_and_keeps_the_id(request_: JobRequest, record: Record, tmp_path: Path):
    one = ready(request_, tmp_path)
    kill_while_submitting(one, record)
    scheduler = ScriptedScheduler(["4712"], [NOTHING])
    job, _ = carried_out(one, record, scheduler, resumed=record.get("run-echo-0001"))
    assert (job.run_id, job.job_id, job.state) == ("run-echo-0001", "4712", JobState.PENDING)
    assert len(scheduler.questions) == 2
    assert record.count(one.plan.fingerprint) == 1


def test_only_one_of_two_commands_goes_on_with_a_run(request_: JobRequest, record: Record, tmp_path: Path):
    one = ready(request_, tmp_path)
    kill_while_submitting(one, record)
    resumed = record.get("run-echo-0001")
    carried_out(one, record, ScriptedScheduler(["4712"]), resumed=resumed)
    scheduler = ScriptedScheduler(["4713"])
    with pytest.raises(SiteError, match="taken on by another command"):
        carried_out(one, record, scheduler, resumed=resumed)
    assert not scheduler.submitted
