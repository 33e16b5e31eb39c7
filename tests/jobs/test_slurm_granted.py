"""What squeue and sacct say that a job was granted, as recorded from two releases."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_granted import Granted, accounts_argv, parse_accounts, parse_queue, queue_argv

RECORDED = Path(__file__).parent.parent / "recorded"
PARSERS = {"queue": parse_queue, "accounts": parse_accounts}
SOURCES = [(release, source) for release in ("22.05.8", "24.11.5") for source in PARSERS]
FACTS = ("partition", "walltime", "nodes", "cpus", "memory_mib", "gpus", "gpu_type")
#: What was asked for stands in the names: `gpu` was moved to partition gpu by job_submit/lua.
EXPECTED = {
    "plain.0001": ("debug", timedelta(minutes=5), 1, 1, 600, None, None),
    "gpu.0002": ("gpu", timedelta(hours=1), 2, 2, 1200, 4, "a100"),
    "typed.0003": ("gpu", timedelta(days=1), 1, 1, 1024, 1, "a100"),
    "wide.0004": ("debug", timedelta(minutes=10), 2, 8, 800, None, None),
    "arr.0005": ("debug", timedelta(minutes=5), 1, 2, 1200, None, None),
    "held.0006": ("debug,short", timedelta(minutes=10), 1, 1, 600, None, None),
    "big.0007": ("debug", None, 2, 1, 12000, None, None),
    "done.0008": ("debug", timedelta(minutes=5), 1, 1, 600, None, None),
}


def recorded(release: str, source: str) -> tuple[Granted, ...]:
    first, _, rest = (RECORDED / f"slurm-{release}-granted-{source}.txt").read_text(encoding="utf-8").partition("\n")
    asked = {"queue": queue_argv, "accounts": accounts_argv}[source]("1", "alice")
    assert first.startswith(f"slurm-wlm {release}: {' '.join(asked[:-1])} ".replace("\x1f", "<1f>"))
    return PARSERS[source](rest)


@pytest.mark.parametrize(("release", "source"), SOURCES)
def test_what_was_granted_is_read_alike_from_both_sources_of_both_releases(release: str, source: str):
    rows = recorded(release, source)
    assert {row.name: tuple(getattr(row, fact) for fact in FACTS) for row in rows} == EXPECTED
    assert {(row.account, row.qos) for row in rows} == {("proj1", "normal")}
    assert all(row.submitted_at is not None and row.submitted_at.year == 2026 for row in rows)
    assert len(rows) in (11, 10)  # squeue has two rows for an array whose second task waits


def test_a_cluster_that_keeps_no_accounts_names_none_and_counts_no_gpus():
    fields = ["debug", "(null)", "(null)", "5:00", "1", "8", "1796085986", "cpu=8,mem=4800M,node=1,billing=8", "a", ""]
    (row,) = parse_queue("\x1f".join(f"{field:<200}" for field in fields))
    assert (row.account, row.qos, row.cpus, row.gpus) == ("", "", 8, None)


@pytest.mark.parametrize("argv", [queue_argv, accounts_argv])
def test_a_job_is_asked_for_by_task_and_where_it_is(argv):
    assert argv("4711_3;big", "me")[-2:] == ["--clusters=big", "--jobs=4711_3"]
    assert not any(word.startswith("--clusters") for word in argv("4711", "me"))


@pytest.mark.parametrize("parse", PARSERS.values())
@given(
    st.lists(
        st.text(max_size=40) | st.lists(st.text(st.sampled_from("0=,-:cpumeg/ N"), max_size=9)).map("\x1f".join)
    ).map("\n".join)
)
def test_lines_that_make_no_sense_are_passed_over(parse, text: str):
    assert all(isinstance(row, Granted) for row in parse(text))
