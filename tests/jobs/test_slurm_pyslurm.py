"""The pyslurm scheduler with a stand-in for pyslurm (`stand_in/`): not the real one, which `make test-pyslurm` uses."""

import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deephpc.jobs.local_job import LocalJob
from deephpc.jobs.scheduler import Question
from deephpc.jobs.slurm import SlurmScheduler, Timeouts
from deephpc.jobs.slurm_pyslurm import PyslurmScheduler, open_pyslurm, parse_rows
from deephpc.jobs.state import JobState
from tests.fakes.waiting import DEADLINE_S, GROWING_S
from tests.jobs.scheduler_contract import CLAUSES, SLEEP, Bench

HERE = Path(__file__).parent
ROW = {
    **{"id": 7, "name": "run-a.1234", "state": "RUNNING", "reason": "None", "array_id": None, "array_task_id": None},
    **{"array_tasks_waiting": None, "submitted_at": 10, "started_at": 20, "ended_at": None, "exit_code": 0},
    **{"signal": 0, "cpus": 4, "nodes": "n[1-2]", "restarts": 1},
}
ARRAY = {**ROW, "id": 9, "array_id": 8, "name": "run-b.1234"}
ASKED = Question(job_ids=("7", "8"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the stand-ins for pyslurm and for Slurm's programs first."""
    programs, state = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    (state / "numbers").mkdir(parents=True)
    for name in ("sbatch", "scancel", "sinfo"):
        program = programs / name
        start = f'PYTHONPATH="{HERE.parents[1]}" exec "{sys.executable}" "{HERE}/stand_in/slurm_on_local.py"'
        program.write_text(f'#!/bin/sh\n{start} {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.syspath_prepend(str(HERE.parents[1]))
    monkeypatch.syspath_prepend(str(HERE / "stand_in"))
    monkeypatch.setenv("STAND_IN_SLURM", str(state))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield state
    for job in (state / "local").glob("local-*"):
        LocalJob(job).request_cancel(None)


@pytest.fixture
def slurm(stand_in: Path) -> SlurmScheduler:
    return SlurmScheduler(os.environ, "me", timeouts=Timeouts(*[DEADLINE_S] * 6))


@pytest.fixture
def bench(slurm: SlurmScheduler, tmp_path: Path) -> Bench:
    return Bench(PyslurmScheduler(slurm, read_timeout_s=DEADLINE_S), tmp_path / "runs", dict(os.environ))


@pytest.mark.slow
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_with_a_stand_in_for_pyslurm_the_contract_is_kept(clause: Callable[[Bench], None], bench: Bench) -> None:
    assert "stand_in" in sys.path[0]
    clause(bench)


def test_pyslurm_is_used_when_it_fits_the_release(slurm: SlurmScheduler) -> None:
    scheduler, note = open_pyslurm(slurm, read_timeout_s=DEADLINE_S)
    assert isinstance(scheduler, PyslurmScheduler)
    assert note == ""


@pytest.mark.parametrize("version", ["25.11.1", "24.5.0", "2.0"])
def test_a_pyslurm_of_another_release_gives_way_with_one_line(
    version: str, slurm: SlurmScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_PYSLURM_VERSION", version)
    scheduler, note = open_pyslurm(slurm, read_timeout_s=DEADLINE_S)
    assert scheduler is slurm
    assert note == f"pyslurm {version} does not fit slurm 24.11.5: Slurm's commands are used instead"


def test_without_pyslurm_the_commands_are_used_with_one_line() -> None:
    slurm = SlurmScheduler(os.environ, "me")
    scheduler, note = open_pyslurm(slurm, read_timeout_s=DEADLINE_S)
    assert scheduler is slurm
    assert "No module named 'pyslurm'" in note
    assert "\n" not in note


def test_a_dead_controller_is_silence(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_CONTROLLER", "down")
    seen = bench.scheduler.observe(Question(job_ids=("7",)))
    assert seen.queue is None
    assert seen.troubles[0] == "pyslurm failed: RPCError: Unable to contact slurm controller (connect failure)"


def test_a_site_without_accounting_is_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_DATABASE", "none")
    seen = bench.scheduler.observe(Question(job_ids=("7",)))
    assert (seen.queue, seen.accounting, seen.troubles) == ({}, {}, ())


def test_a_dead_database_is_silence_and_the_queue_is_still_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_DATABASE", "down")
    seen = bench.scheduler.observe(Question(job_ids=("7",)))
    assert seen.queue == {}
    assert seen.accounting is None
    assert seen.troubles == ("pyslurm failed: RPCError: Failed to open onnection to slurmdbd",)


def test_a_frozen_database_is_given_up_in_time_and_the_queue_still_told(
    slurm: SlurmScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_DATABASE", "frozen")
    for read_timeout_s in GROWING_S:  # in which the queue must answer
        seen = PyslurmScheduler(slurm, read_timeout_s=read_timeout_s).observe(Question(job_ids=("7",)))
        if seen.queue is not None:
            break
    assert seen.queue == {}
    assert seen.accounting is None
    assert seen.troubles == (f"pyslurm gave no answer about accounting within {read_timeout_s:g} s",)


def test_jobs_named_and_jobs_numbered_are_found_in_one_question(bench: Bench) -> None:
    by_id, by_name, other = (bench.submission(SLEEP) for _ in range(3))
    number = bench.scheduler.submit(by_id).job_id
    names = {bench.scheduler.submit(one).job_id: one.job_name for one in (by_name, other)}
    question = Question(job_ids=(number,), job_names=(by_name.job_name,), since=datetime.now(timezone.utc))
    seen = bench.scheduler.observe(question)
    assert seen.queue is not None
    assert set(seen.queue) == {number, next(one for one, name in names.items() if name == by_name.job_name)}


def test_nothing_asked_is_nothing_called(slurm: SlurmScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_DATABASE", "down")
    assert PyslurmScheduler(slurm).observe(Question()).troubles == ()


def test_a_running_job_is_read() -> None:
    (seen,) = parse_rows([ROW], ASKED)["7"]
    assert (seen.state, seen.raw_state, seen.source) == (JobState.RUNNING, "RUNNING", "pyslurm")
    assert seen.nodes == ("n1", "n2")
    assert seen.started_at == datetime.fromtimestamp(20, timezone.utc)
    assert (seen.exit_code, seen.signal, seen.reason, seen.restarts) == (None, None, "", 1)


def test_tasks_that_wait_are_each_told() -> None:
    row = {**ARRAY, "id": 8, "state": "PENDING", "array_tasks_waiting": "1-5:2,9", "reason": "JobArrayTaskLimit"}
    seen = parse_rows([row], ASKED)["8"]
    assert [one.task for one in seen] == [1, 3, 5, 9]
    assert {one.started_at for one in seen} == {None}
    assert {one.reason for one in seen} == {"JobArrayTaskLimit"}


def test_the_first_task_is_zero_though_pyslurm_shows_none() -> None:
    seen = parse_rows([{**ARRAY, "array_task_id": None}, {**ARRAY, "array_task_id": 1}], ASKED)["8"]
    assert [one.task for one in seen] == [0, 1]


def test_a_job_nobody_asked_for_is_left_out() -> None:
    assert parse_rows([{**ROW, "id": 70}, ROW], Question(job_ids=("70",), job_names=("run-a",))).keys() == {"70"}


def test_the_end_of_a_failed_job_is_read() -> None:
    row = {**ROW, "state": "FAILED", "exit_code": 7, "ended_at": 30, "reason": "NonZeroExitCode"}
    (seen,) = parse_rows([row], ASKED)["7"]
    assert (seen.state, seen.exit_code, seen.signal, seen.reason) == (JobState.FAILED, 7, None, "")
    assert seen.ended_at == datetime.fromtimestamp(30, timezone.utc)


def test_a_job_cut_short_has_no_exit_code() -> None:
    (seen,) = parse_rows([{**ROW, "state": "CANCELLED", "signal": 15, "ended_at": 30}], ASKED)["7"]
    assert (seen.exit_code, seen.signal) == (None, 15)
