"""Slurm's notation for time and memory."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_units import parse_memory, parse_walltime, render_memory, render_walltime

YEAR_S = 365 * 86400


@given(st.integers(1, 100 * YEAR_S))
def test_time_limits_survive_writing_and_reading(seconds: int):
    limit = timedelta(seconds=seconds)
    assert parse_walltime(render_walltime(limit)) == limit


@given(st.integers(0, 2**40))
def test_memory_survives_writing_and_reading(mib: int):
    assert parse_memory(render_memory(mib)) == mib


@given(st.text(max_size=20) | st.text(alphabet="0123456789-:KMGTB ", max_size=20))
def test_any_text_is_an_amount_or_a_value_error(text: str):
    for parse in (parse_walltime, parse_memory):
        try:
            parse(text)
        except ValueError as error:
            assert repr(text)[:10] in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", timedelta(minutes=30)),
        ("30:15", timedelta(minutes=30, seconds=15)),
        ("2:00:00", timedelta(hours=2)),
        ("1-12", timedelta(days=1, hours=12)),
        ("1-12:30", timedelta(days=1, hours=12, minutes=30)),
        ("1-00:00:01", timedelta(days=1, seconds=1)),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_every_form_of_a_time_limit_is_read(text: str, expected: timedelta | None):
    assert parse_walltime(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0:00", "-", "1-", "-1-2", "1:2:3:4", "1d", "٣", "99999999999-00"])
def test_what_is_no_time_limit_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a time limit"):
        parse_walltime(text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("16G", 16384), ("16000", 16000), ("1T", 1048576), ("2048K", 2), ("1K", 1), ("0", 0), ("4gb", 4096)],
)
def test_every_form_of_memory_is_read(text: str, mib: int):
    assert parse_memory(text) == mib


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1X", "1 G"])
def test_what_is_no_memory_is_refused(text: str):
    with pytest.raises(ValueError, match="is not an amount of memory"):
        parse_memory(text)
