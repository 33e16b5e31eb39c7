"""What a run folder proves, and what in it proves nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.evidence import attempts_of, load_attempts, load_result, load_standing, write_standing
from deephpc.jobs.job import Standing
from deephpc.jobs.run_folder import RunFolder
from deephpc.jobs.state import JobState
from tests.fakes.samples import A_TENTH, after

RESULT: dict[str, object] = {
    "schema": "deephpc.result/1", "run_id": "r", "job_id": "1", "task": None, "attempt": 1, "state": "COMPLETED",
    "exit_code": 0, "signal": None, "ended_by": "program", "reason": "", "host": "n1", "nodes": "n1", "cpus": 2,
    "started_at": "2026-03-01T12:00:00Z", "ended_at": "2026-03-01T12:10:00Z", "elapsed_s": 600, "cpu_s": 1.5,
}  # fmt: skip
STARTED = {
    "at": "2026-03-01T12:00:00Z",
    "event": "started",
    "attempt": 1,
    "job_id": "1",
    "host": "n1",
    "nodes": "n[1-2]",
}
FINISHED = {"at": "2026-03-01T12:10:00Z", "event": "finished", "attempt": 1, "state": "FAILED", "exit_code": 7,
            "signal": None}  # fmt: skip


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    result = load_result(RunFolder(tmp_path).task(None))
    assert result is not None
    assert (result.state, result.ended_at) == (JobState.COMPLETED, after(600))


@pytest.mark.parametrize(
    "change",
    [{"state": "GREAT"}, {"schema": "deephpc.result/9"}, {"extra": 1}, {"exit_code": None},
     {"ended_at": "2026-03-01T12:10:00"}, {"ended_at": "soon"}],
)  # fmt: skip
def test_what_is_none_of_our_results_proves_nothing(tmp_path: Path, change: dict[str, object]):
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, **change}))
    assert load_result(RunFolder(tmp_path).task(None)) is None


def test_events_fold_into_one_attempt_for_each_start():
    terminated = {"at": "2026-03-01T12:09:00Z", "event": "terminated", "attempt": 1, "at_limit": True}
    attempts = attempts_of([STARTED, terminated, {**STARTED, "attempt": 2}, FINISHED])
    assert [(one.number, one.was_terminated, one.at_limit, one.state) for one in attempts] == [
        (1, True, True, None),
        (2, False, False, JobState.FAILED),
    ]
    assert attempts[1].ended_at == after(600)


def test_events_before_any_start_and_foreign_ones_are_passed_over(tmp_path: Path):
    lines = [FINISHED, {"event": "started"}, {"no": "event"}, {**STARTED, "at": 3e400}, STARTED, {"event": "grace"},
             {**FINISHED, "state": "GREAT"}]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"event": "fini')
    (attempt,) = load_attempts(RunFolder(tmp_path).task(None))
    assert (attempt.number, attempt.state, attempt.nodes) == (1, None, "n[1-2]")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(
    ["event", "attempt", "job_id", "at", "nodes", "state", "exit_code", "signal", "at_limit", "cpus"]
)
kinds = st.sampled_from([STARTED, FINISHED, {"event": "terminated", "at_limit": True}, {}])


@A_TENTH  # costly, and no text of Slurm's
@given(st.lists(st.tuples(kinds, st.dictionaries(keys, json_values, max_size=3))))
def test_no_event_however_odd_raises(pairs: list[tuple[dict[str, object], dict[str, object]]]):
    events = [{**kind, **odd} for kind, odd in pairs]
    assert len(attempts_of(events)) <= len(events)


def test_a_standing_kept_in_the_folder_reads_back(tmp_path: Path):
    folder = RunFolder(tmp_path)
    standing = Standing(state=JobState.FAILED, exit_code=7, seen_at=after(1), ended_at=after(0), source="result")
    write_standing(folder, standing, {1: JobState.FAILED, 2: JobState.COMPLETED})
    kept = load_standing(folder)
    assert kept is not None
    assert (kept.standing, kept.tasks) == (standing, {1: JobState.FAILED, 2: JobState.COMPLETED})


@pytest.mark.parametrize("text", ["", "{}", '{"standing": {"state": "GREAT"}, "tasks": {}}', "[]"])
def test_half_a_standing_is_none(tmp_path: Path, text: str):
    (tmp_path / "standing.json").write_text(text)
    assert load_standing(RunFolder(tmp_path)) is None
