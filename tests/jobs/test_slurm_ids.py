"""Ids, tasks and arrays as Slurm writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_ids import (
    MOST_TASKS,
    SlurmId,
    parse_array,
    parse_array_ids,
    parse_slurm_id,
    parse_task_set,
    render_array,
)
from deephpc.jobs.spec import Array

JOBS = st.integers(1, 2**32 - 1)
TASKS = st.integers(0, 4_000_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", SlurmId(7)),
        ("7_3", SlurmId(7, task=3)),
        ("7+1", SlurmId(7, het=1)),
        ("123;cluster", SlurmId(123, cluster="cluster")),
        ("123.batch", SlurmId(123, step="batch")),
        ("7_3.0", SlurmId(7, task=3, step="0")),
        ("7_3;big-one", SlurmId(7, task=3, cluster="big-one")),
    ],
)
def test_each_form_of_an_id_is_read(text: str, expected: SlurmId):
    assert parse_slurm_id(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "0", "x", "7_", "7;", "-7", "7 ", "7\n", "7_3+1", "99999999999", "٣", "7;a b"])
def test_what_is_no_id_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a Slurm job id"):
        parse_slurm_id(text)


@given(
    job=JOBS,
    task=st.none() | TASKS,
    step=st.none() | st.sampled_from(["batch", "extern", "0", "12"]),
    cluster=st.none() | st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True),
)
def test_ids_survive_writing_and_reading(job: int, task: int | None, step: str | None, cluster: str | None):
    slurm_id = SlurmId(job, task=task, step=step, cluster=cluster)
    assert parse_slurm_id(str(slurm_id)) == slurm_id


@given(st.text(alphabet="0123456789-,:%_[]+;.x \n", max_size=30) | st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_value_error(text: str):
    for parse in (parse_slurm_id, parse_task_set, parse_array_ids, parse_array):
        try:
            assert parse(text) is not None
        except ValueError as error:
            assert str(error)


@given(
    st.sets(TASKS, min_size=1, max_size=60) | st.sets(st.integers(0, 40), min_size=1), st.none() | st.integers(1, 99)
)
def test_arrays_survive_writing_and_reading(tasks: set[int], at_once: int | None):
    array = Array(tasks=tuple(sorted(tasks)), at_once=at_once)
    assert parse_array(render_array(array)) == array


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(3, 400))
def test_an_even_row_of_tasks_is_written_as_one_range(first: int, step: int, count: int):
    text = render_array(Array(tasks=tuple(range(first, first + step * count, step))))
    assert "," not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-9:2,20%4", ((0, 2, 4, 6, 8, 20), 4)),
        ("3,1,3", ((1, 3), None)),
        ("1-3%0", ((1, 2, 3), None)),
    ],
)
def test_task_lists_are_read_in_order_and_once(text: str, expected: tuple[tuple[int, ...], int | None]):
    assert parse_task_set(text) == expected


def test_pending_tasks_of_an_array_are_all_named():
    assert parse_array_ids("7_[1-3,9%2]") == (SlurmId(7), (1, 2, 3, 9))
    assert parse_array_ids("7_[0-1];big") == (SlurmId(7, cluster="big"), (0, 1))
    assert parse_array_ids("7_4") == (SlurmId(7, task=4), (4,))
    assert parse_array_ids("7") == (SlurmId(7), None)


def test_a_list_slurm_cut_short_says_nothing_about_its_tasks():
    assert parse_array_ids("7_[1,3,5,...]") == (SlurmId(7), None)


@pytest.mark.parametrize("text", ["0-999999999", "0-4000000", "0-99999,100000-199999", "5-1", "1-5:0", "1--5"])
def test_absurd_ranges_are_refused_and_not_built(text: str):
    with pytest.raises(ValueError, match="array tasks"):
        parse_array(text)


def test_the_largest_array_is_taken():
    assert len(parse_array(f"1-{MOST_TASKS}").tasks) == MOST_TASKS
