"""The states of a run, and what an array of them amounts to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.state import ACTIVE, FAILURES, FINAL, UNSENT, JobState, summarize
from tests.fakes.samples import A_TENTH

S = JobState


def test_every_state_is_of_one_kind():
    assert set(S) == UNSENT | ACTIVE | FINAL
    assert not UNSENT & ACTIVE
    assert not UNSENT & FINAL
    assert not ACTIVE & FINAL


def test_lost_is_a_failure_and_only_completed_is_none():
    assert S.LOST in FAILURES
    assert {S.COMPLETED} == FINAL - FAILURES
    assert not S.UNKNOWN.is_final


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ({S.COMPLETED}, S.COMPLETED),
        ({S.COMPLETED, S.FAILED}, S.FAILED),
        ({S.FAILED, S.RUNNING, S.PENDING}, S.RUNNING),
        ({S.PENDING, S.COMPLETED}, S.PENDING),
        ({S.CANCELLED, S.TIMEOUT, S.COMPLETED}, S.TIMEOUT),
        ({S.LOST, S.FAILED}, S.LOST),
        (set(), S.UNKNOWN),
    ],
)
def test_an_array_stands_as_its_liveliest_task_then_as_its_worst(states: set[S], whole: S):
    assert summarize(frozenset(states)) is whole


@A_TENTH  # costly, and no text of Slurm's
@given(st.frozensets(st.sampled_from(S), min_size=1))
def test_an_array_is_final_only_when_every_task_is_and_completed_only_when_all_are(states: frozenset[S]):
    whole = summarize(states)
    assert whole in states
    assert whole.is_final == all(state.is_final for state in states)
    assert whole is not S.COMPLETED or states == {S.COMPLETED}
