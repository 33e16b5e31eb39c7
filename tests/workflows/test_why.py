"""Why a run waits or failed, and the next step."""

import json
from pathlib import Path

import pytest

from deephpc.jobs.job import Job
from deephpc.jobs.record import Record
from deephpc.jobs.slurm_outlook import Outlook
from deephpc.jobs.spec import Dependency
from deephpc.jobs.state import JobState
from deephpc.jobs.truth import REQUEUES
from deephpc.workflows.in_image import Enclosed
from deephpc.workflows.plan import NewRun, plan_job
from deephpc.workflows.request import JobOptions, load_module_request, load_run_request
from deephpc.workflows.why import diagnose, look_ahead
from tests.fakes.samples import NOON, TOKEN, a_container, a_job, settings_in
from tests.fakes.schedulers import ScriptedScheduler

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
    job.folder.mkdir()
    assert "never started" in diagnose(job, None).text


@pytest.mark.parametrize(
    ("log", "told", "next_step"),
    [
        (None, "c7 has no run folder", "DEEPHPC_WORK_DIR"),
        ("deephpc: cannot enter /scratch/run-a on c7", "c7 has no run folder", "DEEPHPC_WORK_DIR"),
        ("deephpc: /x/run-a is somebody else's folder now; nothing in it is run", "another account", "only you"),
        ("deephpc: /x/run-a was removed or emptied while the job waited", "removed or emptied", "purge"),
        ("deephpc: cannot write in /x/run-a after 50 tries", "cannot be written on c7", "jobs rerun run-"),
        (
            "mkdir: cannot create directory 'output': No space left on device\nslurmstepd: error: done",
            "(cannot create directory 'output': No space left on device)",
            "make room",
        ),
    ],
)
def test_a_job_that_its_script_stopped_says_what_it_missed_and_what_to_set(
    tmp_path: Path, log: str | None, told: str, next_step: str
):
    job = a_job(tmp_path, state=S.FAILED, exit_code=73, nodes="c7")
    job.folder.mkdir()
    if log is not None:
        job.files.task(None).log.write_text(f"{log}\n")
    diagnosis = diagnose(job, None)
    assert told in diagnosis.text
    assert diagnosis.text.startswith("the program never started")
    assert "exit code 73" not in diagnosis.text
    assert next_step in diagnosis.next_step


def test_a_node_without_a_place_for_its_private_folder_says_what_to_set(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, exit_code=73, nodes="c7")
    job.folder.mkdir()
    started = {"event": "started", "at": NOON.isoformat(), "attempt": 1, "job_id": "4711"}
    job.files.task(None).events.write_text(json.dumps(started) + "\n")
    job.files.task(None).log.write_text("deephpc: no private folder can be made in /local on c7\n")
    assert "no folder can be made on c7" in diagnose(job, None).text
    assert "node_scratch" in diagnose(job, None).next_step


def test_a_program_that_itself_ends_with_73_keeps_its_exit_code(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, exit_code=73)
    job.folder.mkdir()
    events = (
        {"event": "started", "at": NOON.isoformat(), "attempt": 1, "job_id": "4711"},
        {"event": "finished", "at": NOON.isoformat(), "attempt": 1, "state": "FAILED", "exit_code": 73},
    )
    job.files.task(None).events.write_text("".join(json.dumps(one) + "\n" for one in events))
    assert "the program ended with exit code 73" in diagnose(job, None).text


def test_a_job_without_a_run_folder_here_or_there_says_whose_exit_code_that_is(tmp_path: Path):
    diagnosis = diagnose(a_job(tmp_path, state=S.FAILED, exit_code=73), None)
    assert "the job script's where it finds no run folder" in diagnosis.text
    assert "is gone" in diagnosis.text


@pytest.mark.parametrize(
    ("nodes", "allowed", "told"),
    [
        ("c2", 0, "its node c2 failed; it may not be queued again (--max-requeues 0)"),
        ("c2", 1, "its node c2 failed"),
        ("c[1-2]", 0, "a node it ran on failed (it ran on c[1-2]); it may not be queued again (--max-requeues 0)"),
    ],
)
def test_a_node_that_failed_is_named_and_why_the_run_ended_with_it(tmp_path: Path, nodes: str, allowed: int, told: str):
    request = load_run_request(("true",), tmp_path, JobOptions(max_requeues=allowed))
    plan, _ = plan_job(request, settings_in(tmp_path), NewRun("run-a-0001", TOKEN, NOON), environ={})
    job = a_job(tmp_path, state=S.NODE_FAIL, nodes=nodes)
    job.folder.mkdir()
    job.files.plan.write_text(plan.render())
    started = {"event": "started", "at": NOON.isoformat(), "attempt": 1, "job_id": "4711", "nodes": nodes}
    job.files.task(None).events.write_text(json.dumps(started) + "\n")
    assert diagnose(job, None).text == told


@pytest.mark.parametrize(
    ("kind", "state", "task", "said"),
    [
        ("run", S.CANCELLED, 3, "`deephpc jobs rerun run-a-0001_3`"),
        ("train", S.TIMEOUT, 1, "`deephpc jobs rerun run-a-0001_1 --time …`"),
        ("run", S.FAILED, 3, "`deephpc logs run-a-0001_3`"),
        ("run", S.CANCELLED, None, "`deephpc jobs rerun run-a-0001 --failed`"),
        ("run", S.OUT_OF_MEMORY, None, "`deephpc jobs rerun run-a-0001 --failed --mem …`"),
        ("predict", S.FAILED, 3, "`deephpc predict --results run-a-0001`"),
    ],
)
def test_the_next_step_is_about_the_task_that_was_asked_for(
    tmp_path: Path, kind: str, state: JobState, task: int | None, said: str
):
    job = a_job(tmp_path, kind=kind, state=state, tasks={1: state, 2: S.COMPLETED, 3: state})
    assert said in diagnose(job, task).next_step


def test_a_run_between_two_lives_of_its_job_is_told_as_that(tmp_path: Path):
    job = a_job(tmp_path, reason=REQUEUES)
    job.folder.mkdir()
    events = (
        {"event": "started", "at": NOON.isoformat(), "attempt": 1, "job_id": "4711"},
        {"event": "continued", "at": NOON.isoformat(), "attempt": 1, "exit_code": 75, "by": "requeue"},
    )
    job.files.task(None).events.write_text("".join(json.dumps(event) + "\n" for event in events))
    text = diagnose(job, None).text
    assert text == "attempt 1 asked to be continued (exit code 75); the next one waits: its job is being queued again"


def ended(tmp_path: Path, state: JobState, **facts: object) -> Job:
    """Return a run that began and whose folder tells how it ended."""
    job = a_job(tmp_path, state=state)
    job.folder.mkdir()
    at = NOON.isoformat()
    files = job.files.task(None)
    files.events.write_text(json.dumps({"event": "started", "at": at, "attempt": 1, "job_id": "4711"}) + "\n")
    result = {"schema": "deephpc.result/1", "run_id": job.run_id, "job_id": "4711", "task": None, "attempt": 1,
              "state": state.value, "exit_code": 1, "signal": None, "ended_by": "program", "reason": "", "host": "n1",
              "nodes": "n1", "cpus": 1, "started_at": at, "ended_at": at, "elapsed_s": 0, "cpu_s": None}  # fmt: skip
    files.result.write_text(json.dumps({**result, **facts}))
    return job


@pytest.mark.parametrize(
    ("engine", "facts", "doubted"),
    [
        ("udocker-p2", {"exit_code": 139}, True),
        ("udocker-p1", {"exit_code": 139, "signal": 11}, True),
        ("udocker-p1", {"exit_code": 143, "signal": 15}, False),
        ("udocker-p2", {"exit_code": 1, "reason": "the server ended with exit code 139: … signal 11 (SIGSEGV)"}, True),
        ("udocker-p2", {"exit_code": 1, "reason": "signal 115"}, False),
        ("udocker-r", {"exit_code": 139}, False),
        ("apptainer", {"exit_code": 134}, False),
    ],
)
def test_a_crash_under_proot_may_be_its_own(tmp_path: Path, engine: str, facts: dict[str, object], doubted: bool):
    request = load_module_request("serve", "docker://reg.org/plants:1", (), tmp_path, JobOptions())
    plan, _ = plan_job(request, settings_in(tmp_path), NewRun("run-a-0001", TOKEN, NOON), environ={})
    job = ended(tmp_path, S.FAILED, **facts)
    job.files.plan.write_text(plan.model_copy(update={"engine": engine}).render())
    assert ("proot itself" in diagnose(job, None).next_step) is doubted


@pytest.mark.parametrize(("exit_code", "said"), [(2, "the module refused its arguments"), (1, "exit code 1")])
def test_arguments_that_a_module_refused_in_its_job_are_told_as_that(tmp_path: Path, exit_code: int, said: str):
    request = load_module_request("train", "docker://reg.org/plants:1", ("train",), tmp_path, JobOptions())
    plan, _ = plan_job(request, settings_in(tmp_path), NewRun("run-a-0001", TOKEN, NOON), environ={})
    job = ended(tmp_path, S.FAILED, exit_code=exit_code)
    job.files.plan.write_text(plan.render())
    diagnosis = diagnose(job, None)
    assert said in diagnosis.text
    assert ("`deephpc module show docker://reg.org/plants:1`" in diagnosis.next_step) is (exit_code == 2)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("OSError: [Errno 30] Read-only file system: '/srv/plants/models/2026-11-30'", "/srv/plants/models/2026-11-30"),
        ("cp: cannot create regular file '/opt/x y/a.txt': Read-only file system", "/opt/x y/a.txt"),
        ("mkdir: cannot create directory ‘/data/ü’: Read-only file system", "/data/ü"),
        ("OSError: [Errno 13] Permission denied: '/srv/plants/models'", None),
        ("Read-only file system", None),
    ],
)
def test_a_place_that_an_image_closes_to_writing_is_named(tmp_path: Path, line: str, place: str | None):
    request = load_module_request("train", "docker://reg.org/plants:1", ("train",), tmp_path, JobOptions())
    enclosed = Enclosed(a_container(is_module=True), ("train",))
    plan, _ = plan_job(request, settings_in(tmp_path), NewRun("run-a-0001", TOKEN, NOON), environ={}, enclosed=enclosed)
    job = ended(tmp_path, S.FAILED, exit_code=1)
    job.files.plan.write_text(plan.render())
    job.files.task(None).log.write_text(f"epoch 1\n{line}\n")
    next_step = diagnose(job, None).next_step
    assert (f"{place} is read-only" in next_step) is (place is not None)
    assert ("--bind" in next_step) is (place is not None)


@pytest.mark.parametrize(
    ("given", "entrypoint", "told"),
    [
        (("python3", "a b.py"), ("/usr/local/bin/entry", "--now"), "ENTRYPOINT (/usr/local/bin/entry --now)"),
        (("-c", "exit 3"), ("sh",), "ENTRYPOINT (sh)"),
        (("python3", "a.py"), (), ""),
        ((), ("/usr/local/bin/entry",), ""),
    ],
)
def test_words_that_an_images_entrypoint_was_given_are_told(
    tmp_path: Path, given: tuple[str, ...], entrypoint: tuple[str, ...], told: str
):
    request = load_run_request(given, tmp_path, JobOptions(), "docker://reg.org/plants:1")
    enclosed = Enclosed(None, (*entrypoint, *given))
    plan, _ = plan_job(request, settings_in(tmp_path), NewRun("run-a-0001", TOKEN, NOON), environ={}, enclosed=enclosed)
    job = ended(tmp_path, S.FAILED, exit_code=3)
    job.files.plan.write_text(plan.render())
    assert told in diagnose(job, None).next_step
    assert ("ENTRYPOINT" in diagnose(job, None).next_step) is bool(told)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("cannot enter /home/me/x on n1", "folder you submit from"),
        ("module load gcc/99 failed", "module avail"),
        ("cannot activate /home/me/venv", "venv"),
        ("never heard of", "deephpc logs run-a-0001"),
    ],
)
def test_a_failed_set_up_says_that_the_program_never_started_and_why(tmp_path: Path, reason: str, hint: str):
    diagnosis = diagnose(ended(tmp_path, S.FAILED, ended_by="setup", reason=reason), None)
    assert diagnosis.text == f"the program never started: {reason}"
    assert hint in diagnosis.next_step


@pytest.mark.parametrize(
    ("kind", "end", "said"),
    [("afterok", S.FAILED, "did not complete (FAILED)"), ("afternotok", S.COMPLETED, "completed")],
)
@pytest.mark.parametrize("waits", [{"state": S.CANCELLED}, {"state": S.PENDING, "reason": "DependencyNeverSatisfied"}])
def test_a_run_that_waited_in_vain_names_the_one_it_waited_for(
    tmp_path: Path, kind: str, end: JobState, said: str, waits: dict[str, object]
):
    request = load_run_request(["true"], tmp_path, JobOptions())
    after_it = Dependency.model_validate({"kind": kind, "job_ids": ("1",), "run_ids": ("run-first-1",)})
    new = NewRun("run-a-0001", TOKEN, NOON)
    settings = settings_in(tmp_path, scheduler="slurm")
    plan, _ = plan_job(request, settings, new, dependencies=[after_it], environ={})
    job = plan.new_job().model_copy(update={"job_id": "2", **waits})
    job.folder.mkdir(parents=True)
    job.files.plan.write_text(plan.render())
    with Record(tmp_path / "deephpc.db") as record:
        record.add(a_job(tmp_path, "run-first-1", state=end, job_id="1"))
        text = diagnose(job, None, record).text
        assert "never started" not in diagnose(job.model_copy(update={"state": S.RUNNING}), None, record).text
    assert text == f"run-first-1 {said}, so it never started"


def test_a_task_is_not_explained_by_what_is_known_of_the_whole_array(tmp_path: Path):
    job = a_job(tmp_path, state=S.RUNNING, raw_state="SUSPENDED", tasks={0: S.RUNNING, 1: S.PENDING, 2: S.COMPLETED})
    assert [diagnose(job, number).raw_state for number in (None, 0, 1, 2)] == ["SUSPENDED", "", "", ""]
    assert "other tasks" in diagnose(job, 1).text


def test_an_array_that_was_never_sent_has_no_tasks_of_its_own(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, raw_state="REFUSED", reason="Invalid qos", job_id=None, tasks={0: S.PENDING})
    diagnosis = diagnose(job, 0)
    assert diagnosis.state is S.FAILED
    assert "Invalid qos" in diagnosis.text


def test_a_suspended_run_says_who_resumes_it(tmp_path: Path):
    diagnosis = diagnose(a_job(tmp_path, state=S.RUNNING, raw_state="SUSPENDED"), None)
    assert "suspended" in diagnosis.text
    assert "administrator" in diagnosis.next_step


def test_a_held_run_is_let_go_by_its_own_number(tmp_path: Path):
    job = a_job(tmp_path, job_id="113", reason="JobHeldUser")
    assert "scontrol release 113`" in diagnose(job, None).next_step


@pytest.mark.parametrize(
    ("tasks", "facts", "command"),
    [
        ({}, {"reason": "JobHeldUser"}, "scontrol --clusters=box release 113"),
        ({3: S.PENDING}, {"reason": "JobHeldUser"}, "scontrol --clusters=box release 113_3"),
        ({}, {"state": S.RUNNING, "raw_state": "STOPPED"}, "scancel --clusters=box --signal=CONT 113"),
    ],
)
def test_what_to_type_names_the_cluster_of_a_run(
    tmp_path: Path, tasks: dict[int, S], facts: dict[str, object], command: str
):
    job = a_job(tmp_path, job_id="113;box", tasks=tasks, **facts)
    assert f"`{command}`" in diagnose(job, 3 if tasks else None).next_step


def test_a_run_whose_folder_is_gone_says_so(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, exit_code=7)
    diagnosis = diagnose(job, None)
    assert diagnosis.text.endswith(f"; its run folder {job.folder} is gone")
    assert "never started" not in diagnosis.text


def test_a_run_that_left_checkpoints_says_where_they_lie(tmp_path: Path):
    job = ended(tmp_path, S.TIMEOUT)
    assert "checkpoint" not in diagnose(job, None).next_step
    checkpoints = job.files.task(None).checkpoints
    checkpoints.mkdir()
    (checkpoints / "last.pt").write_text("")
    next_step = diagnose(job, None).next_step
    assert "`deephpc jobs rerun run-a-0001 --time …`" in next_step
    assert next_step.endswith(f"the old checkpoints lie in {checkpoints}")


def test_an_array_is_explained_by_its_first_failed_task(tmp_path: Path):
    job = a_job(tmp_path, state=S.FAILED, tasks={0: S.COMPLETED, 3: S.FAILED, 7: S.FAILED})
    assert diagnose(job, None).run_id == "run-a-0001_3"
    assert diagnose(job, 7).run_id == "run-a-0001_7"
    assert diagnose(job, 0).state is S.COMPLETED


@pytest.mark.parametrize(
    ("facts", "task", "asked"),
    [
        ({"state": S.PENDING}, None, ["4711"]),
        ({"state": S.RUNNING, "tasks": {0: S.RUNNING, 1: S.PENDING}, "job_id": "4711;big"}, 1, ["4711_1;big"]),
        ({"state": S.RUNNING}, None, []),
        ({"state": S.SUBMITTING, "job_id": None}, None, []),
        ({"state": S.CANCELLED}, None, []),
    ],
)
def test_a_start_is_asked_for_where_a_run_waits(
    tmp_path: Path, facts: dict[str, object], task: int | None, asked: list[str]
):
    scheduler = ScriptedScheduler(expected=Outlook(partition="debug", ahead=3))
    job = a_job(tmp_path, **facts)
    told = look_ahead(job, task, scheduler, {})
    assert [job_id for job_id, _ in scheduler.foreseen] == asked
    assert told == (Outlook(partition="debug") if asked else None)
    assert look_ahead(job, task, None, {}) is None
