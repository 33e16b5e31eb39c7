"""Host lists and counts per node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_hostlist import MOST_NAMES, compress_hostlist, expand_counts, expand_hostlist

NAMES = st.from_regex(r"[a-z]{0,3}[0-9]{0,4}(-?[a-z]{1,2}[0-9]{0,3})?", fullmatch=True).filter(bool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu[01-03,7]", ("gpu01", "gpu02", "gpu03", "gpu7")),
        ("r[1-2]n[3-4]-ib", ("r1n3-ib", "r1n4-ib", "r2n3-ib", "r2n4-ib")),
        ("gpu[01-03,7],b1,r[1-2]n3", ("gpu01", "gpu02", "gpu03", "gpu7", "b1", "r1n3", "r2n3")),
        ("n[098-101]", ("n098", "n099", "n100", "n101")),
        ("login", ("login",)),
        ("", ()),
    ],
)
def test_host_lists_are_expanded_in_order(text: str, expected: tuple[str, ...]):
    assert expand_hostlist(text) == expected


@given(st.lists(NAMES, min_size=1, max_size=40))
def test_every_set_of_names_survives_compressing_and_expanding(names: list[str]):
    expanded = expand_hostlist(compress_hostlist(names))
    assert sorted(expanded) == sorted(set(names))


@given(st.integers(0, 2000), st.integers(2, 300), st.integers(1, 6))
def test_neighbours_share_one_bracket(first: int, count: int, width: int):
    short = compress_hostlist(f"n{number:0{width}d}" for number in range(first, first + count))
    assert short.count("[") == 1
    assert len(short) < 30


@given(st.text(alphabet="ab01-[],9 ", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_host_list_or_a_value_error(text: str):
    try:
        names = expand_hostlist(text)
    except ValueError as error:
        assert str(error)
        return
    assert all("[" not in name and "," not in name for name in names)


@pytest.mark.parametrize(
    "text", ["n[0-999999999]", "a[1-1000]b[1-1000]c[1-1000]", "n[1-100000],host1", "n[3-1]", "n[", "n]", "a,,b"]
)
def test_absurd_host_lists_are_refused_and_not_built(text: str):
    with pytest.raises(ValueError, match=r"host|names"):
        expand_hostlist(text)


def test_the_longest_host_list_is_taken():
    assert len(expand_hostlist(f"n[1-{MOST_NAMES}]")) == MOST_NAMES


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a[1]"])
def test_what_is_no_host_name_is_not_compressed(name: str):
    with pytest.raises(ValueError, match="is not a host name"):
        compress_hostlist([name])


@pytest.mark.parametrize(("text", "expected"), [("4,2(x3),1", (4, 2, 2, 2, 1)), ("72(x2)", (72, 72)), ("1", (1,))])
def test_counts_per_node_are_expanded(text: str, expected: tuple[int, ...]):
    assert expand_counts(text) == expected


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 50)), min_size=1, max_size=20))
def test_counts_survive_writing_and_reading(runs: list[tuple[int, int]]):
    text = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)
    assert expand_counts(text) == tuple(count for count, times in runs for _ in range(times))


@given(st.text(alphabet="0123456789,(x) ", max_size=30))
def test_any_text_is_counts_or_a_value_error(text: str):
    try:
        assert expand_counts(text)
    except ValueError as error:
        assert "counts" in str(error)


def test_counts_for_absurdly_many_nodes_are_refused():
    with pytest.raises(ValueError, match="counts"):
        expand_counts("1(x999999999)")
