"""The local scheduler beyond the contract: exactly once, nothing left running, honest about what it cannot know."""

import contextlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.jobs.local import LocalScheduler, LocalTimes
from deephpc.jobs.local_job import SUPERVISOR_GONE, LocalJob, local_job_id
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.scheduler import Question, Refused, Submission
from deephpc.jobs.state import JobState
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.jobs.scheduler_contract import SLEEP, TASK, Bench

# a grandchild in a session of its own, whose parent is gone
DAEMON = "(setsid sleep 600 & echo $! >daemon) ; while ! [ -s daemon ]; do sleep 0.01; done; echo $$ >script"


@pytest.fixture
def scheduler(tmp_path: Path) -> LocalScheduler:
    times = LocalTimes(kill_wait=timedelta(seconds=DEADLINE_S), start_s=DEADLINE_S)
    return LocalScheduler(tmp_path / "state", times=times)


@pytest.fixture
def bench(tmp_path: Path, scheduler: LocalScheduler) -> Iterator[Bench]:
    yield Bench(scheduler, tmp_path / "runs", dict(os.environ))
    for path in (tmp_path / "state" / "local").glob("local-*"):
        LocalJob(path).request_cancel(None)


def runs(pid_file: Path) -> bool:
    try:
        text = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def job_of(bench: Bench, job_id: str) -> LocalJob:
    return LocalJob(bench.folder.parent / "state" / "local" / job_id)


def running_daemon(bench: Bench) -> tuple[str, Path]:
    submission = bench.submission(f"{DAEMON}; sleep 600")
    job_id = bench.scheduler.submit(submission).job_id
    wait_until((submission.spec.folder / "script").exists)
    bench.wait_for(job_id, JobState.RUNNING)
    return job_id, submission.spec.folder


SUBMITTER = """
import os, sys
from pathlib import Path
from deephpc.jobs.local import LocalScheduler
from deephpc.jobs.scheduler import Submission
from deephpc.jobs.spec import JobSpec
spec = JobSpec.model_validate_json(sys.argv[2])
print("ready", flush=True)
job = LocalScheduler(Path(sys.argv[1])).submit(Submission(spec, Path(sys.argv[3]), dict(os.environ)))
print(job.job_id, flush=True)
"""


def submitter(bench: Bench, submission: Submission) -> "subprocess.Popen[bytes]":
    words = [str(bench.folder.parent / "state"), submission.spec.model_dump_json(), str(submission.script)]
    return subprocess.Popen([sys.executable, "-c", SUBMITTER, *words], stdout=subprocess.PIPE)


def test_many_submissions_of_one_run_at_once_start_one_job(bench: Bench) -> None:
    submission = bench.submission(": >claim; echo started >>starts; sleep 0.2")  # as every job script does
    with contextlib.ExitStack() as stack:
        submitters = [stack.enter_context(submitter(bench, submission)) for _ in range(6)]
        said = {one.communicate()[0] for one in submitters}
    assert said == {f"ready\n{local_job_id(submission.job_name)}\n".encode()}
    job_id = bench.scheduler.submit(submission).job_id
    bench.wait_for(job_id, JobState.COMPLETED)
    assert (submission.spec.folder / "starts").read_text() == "started\n"


def test_a_submitter_killed_at_any_moment_leaves_nothing_or_one_job(bench: Bench) -> None:
    chance = random.Random(1)
    for _ in range(10):
        submission = bench.submission("echo started >>starts")
        with submitter(bench, submission) as doomed:
            assert doomed.stdout is not None
            assert doomed.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.08))  # a random moment, not a wait
            doomed.kill()
        job_id = bench.scheduler.submit(submission).job_id
        bench.wait_for(job_id, JobState.COMPLETED)
        assert (submission.spec.folder / "starts").read_text() == "started\n"


def test_a_job_that_was_ordered_but_never_started_is_not_in_the_queue(bench: Bench) -> None:
    submission = bench.submission("exit 0")
    job_id = bench.submit("exit 0")
    bench.wait_for(job_id, JobState.COMPLETED)
    order = job_of(bench, job_id).load_order()
    assert order is not None
    unstarted = job_of(bench, local_job_id(submission.job_name))
    unstarted.write_order(replace(order, token=submission.spec.token, run_folder=str(submission.spec.folder)))
    assert bench.scheduler.observe(Question(job_names=(submission.job_name,))).queue == {}
    bench.wait_for(bench.scheduler.submit(submission).job_id, JobState.COMPLETED)


def test_a_killed_supervisor_takes_the_job_with_it_and_the_job_failed_with_its_node(bench: Bench) -> None:
    job_id, folder = running_daemon(bench)
    view = job_of(bench, job_id).load_view()
    assert view is not None
    os.kill(view.supervisor.pid, signal.SIGKILL)
    (seen,) = bench.wait_for(job_id, JobState.NODE_FAIL)
    assert seen.reason == SUPERVISOR_GONE
    wait_until(lambda: not runs(folder / "daemon") and not runs(folder / "script"))


def test_a_killed_keeper_leaves_nothing_running(bench: Bench) -> None:
    job_id, folder = running_daemon(bench)
    view = job_of(bench, job_id).load_view()
    assert view is not None and view.tasks[0].keeper is not None
    os.kill(view.tasks[0].keeper.pid, signal.SIGKILL)
    bench.wait_for(job_id, JobState.NODE_FAIL)
    wait_until(lambda: not runs(folder / "daemon") and not runs(folder / "script"))


def test_a_supervisor_told_to_end_ends_the_job_in_order(bench: Bench) -> None:
    submission = bench.submission("trap 'echo told >said; exit 0' TERM; touch ready; sleep 600 & wait")
    job_id = bench.scheduler.submit(submission).job_id
    wait_until((submission.spec.folder / "ready").exists)
    view = job_of(bench, job_id).load_view()
    assert view is not None
    view.supervisor.send(signal.SIGTERM)
    (seen,) = bench.wait_for(job_id, JobState.NODE_FAIL)
    assert "SIGTERM" in seen.reason
    assert (submission.spec.folder / "said").read_text() == "told\n"


def test_after_a_cancel_nothing_is_left_running(bench: Bench) -> None:
    job_id, folder = running_daemon(bench)
    assert runs(folder / "daemon")
    bench.scheduler.cancel([job_id])
    bench.wait_for(job_id, JobState.CANCELLED)
    assert not runs(folder / "daemon")
    assert not runs(folder / "script")


def test_what_a_job_left_in_the_background_ends_with_it(bench: Bench) -> None:
    submission = bench.submission(DAEMON)
    bench.wait_for(bench.scheduler.submit(submission).job_id, JobState.COMPLETED)
    assert (submission.spec.folder / "daemon").exists()
    assert not runs(submission.spec.folder / "daemon")


def test_a_program_that_ignores_the_end_is_killed_after_the_kill_wait(bench: Bench, tmp_path: Path) -> None:
    times = LocalTimes(kill_wait=timedelta(seconds=0.5), start_s=DEADLINE_S)
    bench.scheduler = LocalScheduler(tmp_path / "state", times=times)
    submission = bench.submission("trap '' TERM; touch ready; sleep 600")
    job_id = bench.scheduler.submit(submission).job_id
    wait_until((submission.spec.folder / "ready").exists)
    began = time.monotonic()
    bench.scheduler.cancel([job_id])
    (seen,) = bench.wait_for(job_id, JobState.CANCELLED)
    assert time.monotonic() - began >= 0.5
    assert seen.signal == signal.SIGKILL


def test_a_script_that_listens_is_told_alone_and_may_end_in_its_own_way(bench: Bench) -> None:
    submission = bench.submission(
        "trap 'kill -0 $child && echo alive >said; exit 3' TERM; sleep 600 & child=$!; touch ready; wait"
    )
    job_id = bench.scheduler.submit(submission).job_id
    wait_until((submission.spec.folder / "ready").exists)
    bench.scheduler.cancel([job_id])
    (seen,) = bench.wait_for(job_id, JobState.CANCELLED)
    assert seen.exit_code == 3
    assert (submission.spec.folder / "said").read_text() == "alive\n"


def with_grace(submission: Submission, limit: float, grace: float) -> Submission:
    resources = submission.spec.resources.model_copy(update={"walltime": timedelta(seconds=limit)})
    changed = submission.spec.model_copy(update={"grace": timedelta(seconds=grace), "resources": resources})
    return replace(submission, spec=changed)


def test_the_script_is_told_before_its_time_limit(bench: Bench) -> None:
    submission = bench.submission("trap 'exit 4' USR1; sleep 600 & wait")
    (seen,) = bench.wait_for(bench.scheduler.submit(with_grace(submission, 60, 59.9)).job_id, JobState.FAILED)
    assert seen.exit_code == 4


def test_a_script_that_does_not_listen_is_not_killed_by_being_told(bench: Bench) -> None:
    submission = bench.submission("sleep 0.5; exit 0")
    (seen,) = bench.wait_for(bench.scheduler.submit(with_grace(submission, 60, 59.9)).job_id, JobState.COMPLETED)
    assert (seen.exit_code, seen.signal) == (0, None)


def test_no_more_tasks_run_at_once_than_wished(bench: Bench) -> None:
    body = f"mkdir lock || touch overlap; sleep 0.05; rmdir lock; [ {TASK} != 2 ]"
    submission = bench.submission(body, tasks=(0, 1, 2, 3), at_once=1)
    expected = (JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED)
    bench.wait_for(bench.scheduler.submit(submission).job_id, *expected)
    assert not (submission.spec.folder / "overlap").exists()


def test_a_task_waits_for_its_own_counterpart(bench: Bench) -> None:
    first = bench.submit(f"[ {TASK} != 1 ]", tasks=(0, 1, 2))
    second = bench.submit("exit 0", tasks=(0, 1, 2), after=("aftercorr", first))
    seen = bench.wait_for(second, JobState.COMPLETED, JobState.CANCELLED, JobState.COMPLETED)
    assert seen[1].reason == "DependencyNeverSatisfied"


def test_a_job_that_depends_on_an_unknown_one_is_refused(bench: Bench) -> None:
    submission = bench.submission("exit 0", after=("afterok", "local-000000000000"))
    with pytest.raises(Refused, match="local-000000000000"):
        bench.scheduler.submit(submission)
    assert bench.scheduler.observe(Question(job_names=(submission.job_name,))).queue == {}


def moved_to(bench: Bench, job_id: str, host: str) -> None:
    path = job_of(bench, job_id).path / "view.json"
    view = json.loads(path.read_text())
    view["supervisor"]["host"] = host
    path.write_text(json.dumps(view))


def test_a_job_of_another_machine_is_told_as_recorded_and_cancelled_only_there(bench: Bench) -> None:
    job_id = bench.submit(SLEEP)
    bench.wait_for(job_id, JobState.RUNNING)
    view = job_of(bench, job_id).load_view()
    assert view is not None
    moved_to(bench, job_id, "elsewhere")
    (seen,) = bench.sightings(job_id)
    assert seen.state is JobState.RUNNING
    assert "elsewhere" in seen.reason
    with pytest.raises(SiteError, match="runs on elsewhere"):
        bench.scheduler.cancel([job_id])
    view.supervisor.send(signal.SIGTERM)


def test_everything_is_for_the_owner_alone(bench: Bench) -> None:
    submission = bench.submission("exit 0")
    job_id = bench.scheduler.submit(submission).job_id
    bench.wait_for(job_id, JobState.COMPLETED)
    folder = job_of(bench, job_id).path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [*folder.iterdir(), RunFolder(submission.spec.folder).task(None).log]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert not list(folder.glob("*.part")) and not list(folder.glob("view.json.*"))


def test_the_environment_of_the_job_cannot_hurt_its_supervisor(bench: Bench) -> None:
    trap = bench.folder / "trap"
    trap.mkdir(parents=True)
    (trap / "json.py").write_text("raise SystemExit('hijacked')")
    bench.environment = {**bench.environment, "PYTHONPATH": str(trap), "PYTHONHOME": "/nonexistent"}
    submission = bench.submission('echo "$PYTHONHOME"')
    (submission.spec.folder / "json.py").write_text("raise SystemExit('hijacked')")
    bench.wait_for(bench.scheduler.submit(submission).job_id, JobState.COMPLETED)
    assert RunFolder(submission.spec.folder).task(None).log.read_text() == "/nonexistent\n"


def test_a_job_inside_a_job_does_not_inherit_who_it_is(bench: Bench) -> None:
    bench.environment = {**bench.environment, "DEEPHPC_LOCAL_TASK_ID": "9", "DEEPHPC_LOCAL_JOB_ID": "local-outer"}
    submission = bench.submission('echo "$DEEPHPC_LOCAL_JOB_ID/${DEEPHPC_LOCAL_TASK_ID-none}"')
    job_id = bench.scheduler.submit(submission).job_id
    bench.wait_for(job_id, JobState.COMPLETED)
    assert RunFolder(submission.spec.folder).task(None).log.read_text() == f"{job_id}/none\n"


def test_a_place_that_cannot_be_written_is_a_refusal(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write"):
        LocalScheduler(tmp_path / "file").submit(bench.submission("exit 0"))


def test_a_state_that_cannot_be_read_is_silence_not_absence(tmp_path: Path, bench: Bench) -> None:
    job_id = bench.submit("exit 0")
    bench.wait_for(job_id, JobState.COMPLETED)
    view = job_of(bench, job_id).path / "view.json"
    view.unlink()
    view.symlink_to(view)  # ELOOP
    seen = bench.scheduler.observe(Question(job_ids=(job_id,)))
    assert seen.queue is None
    assert len(seen.troubles) == 1
    view.unlink()


def test_there_is_no_accounting(bench: Bench) -> None:
    job_id = bench.submit("exit 0")
    assert bench.scheduler.used(job_id) == ()
    assert bench.scheduler.observe(Question(job_ids=(job_id,))).accounting == {}
