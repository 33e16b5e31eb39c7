"""What squeue and sacct say, recorded from real clusters and made up by Hypothesis."""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_reports import (
    parse_sacct,
    parse_squeue,
    parse_state,
    sacct_argv,
    sacct_by_name_argv,
    squeue_argv,
)
from deephpc.jobs.slurm_usage import parse_cpu_time, parse_size_mib, parse_usage, usage_argv
from deephpc.jobs.state import JobState

RECORDED = Path(__file__).parent.parent / "recorded"
RELEASES = sorted(path.name.split("-")[1] for path in RECORDED.glob("slurm-*-squeue.txt"))
SINCE = datetime(2026, 11, 21, 5, 0, tzinfo=timezone.utc)
#: The 22.05 cluster had no control groups: Slurm itself killed the job.
OUT_OF_MEMORY = {"22.05.8": JobState.FAILED, "24.11.5": JobState.OUT_OF_MEMORY}
LINES = st.lists(
    st.text(st.sampled_from("0123456789_[]-%,+;.abPENDINGRUC \x1f\n:"), max_size=80)
    | st.lists(st.text(max_size=12), min_size=9, max_size=12).map("\x1f".join),
    max_size=5,
).map("\n".join)


def recorded(release: str, source: str) -> str:
    first, _, rest = (RECORDED / f"slurm-{release}-{source}.txt").read_text(encoding="utf-8").partition("\n")
    assert release in first
    return rest


def states(report, name: str):
    return {one.task: one.state for sightings in report.values() for one in sightings if one.name == name}


def test_two_releases_are_recorded():
    assert RELEASES == ["22.05.8", "24.11.5"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_queue_is_read_as_it_stood(release: str):
    report = parse_squeue(recorded(release, "squeue"))
    assert states(report, "ok.0001") == {None: JobState.COMPLETED}
    assert states(report, "seven.0002") == {None: JobState.FAILED}
    assert states(report, "oom.0004") == {None: OUT_OF_MEMORY[release]}
    assert states(report, "can.0005") == {None: JobState.CANCELLED}
    assert states(report, "run.0016") == {None: JobState.RUNNING}
    assert states(report, "arr.0006") == {
        0: JobState.COMPLETED,
        1: JobState.FAILED,
        2: JobState.FAILED,
        3: JobState.FAILED,
    }
    assert states(report, "het.0014") == {None: JobState.PENDING}
    waiting = states(report, "harr.0008")
    assert list(waiting) == [1, 2, 3, 7, *range(100, 201, 2)]
    assert set(waiting.values()) == {JobState.PENDING}


@pytest.mark.parametrize("release", RELEASES)
def test_a_waiting_job_has_its_reason_and_no_start(release: str):
    waiting = {
        one.name: one
        for sightings in parse_squeue(recorded(release, "squeue")).values()
        for one in sightings
        if one.state is JobState.PENDING
    }
    assert waiting["held.0007"].reason == "JobHeldUser"
    assert waiting["dep.0009"].reason == "Dependency"
    assert waiting["nev.0010"].reason == "DependencyNeverSatisfied"
    assert waiting["begin.0012"].started_at is None


@pytest.mark.parametrize("release", RELEASES)
def test_accounting_is_read_with_exit_codes_signals_and_restarts(release: str):
    report = parse_sacct(recorded(release, "sacct"))
    by_name = {one.name: one for sightings in report.values() for one in sightings if one.task is None}
    assert (by_name["ok.0001"].state, by_name["ok.0001"].exit_code) == (JobState.COMPLETED, 0)
    assert (by_name["seven.0002"].exit_code, by_name["seven.0002"].signal) == (7, None)
    assert (by_name["killed.0003"].exit_code, by_name["killed.0003"].signal) == (None, 9)
    assert by_name["oom.0004"].state is OUT_OF_MEMORY[release]
    assert by_name["oom.0004"].signal in (None, 9)
    assert by_name["can.0005"].raw_state.startswith("CANCELLED by ")
    assert (by_name["can.0005"].state, by_name["can.0005"].exit_code) == (JobState.CANCELLED, None)
    assert (by_name["rq.0011"].state, by_name["rq.0011"].restarts) == (JobState.COMPLETED, 1)
    assert (by_name["run.0016"].ended_at, by_name["run.0016"].nodes) == (None, ("c2",))
    assert len(by_name["step.0015"].nodes) == 2
    assert states(report, "arr.0006")[3] is JobState.FAILED
    assert by_name["ok.0001"].submitted_at is not None
    assert abs(by_name["ok.0001"].submitted_at - SINCE) < timedelta(days=1)


@pytest.mark.parametrize("release", RELEASES)
def test_usage_is_read_with_memory_from_the_steps(release: str):
    used = {one.job_id: one for one in parse_usage(recorded(release, "usage"))}
    ids = {one.name: job for job, all_ in parse_sacct(recorded(release, "sacct")).items() for one in all_}
    step = used[ids["step.0015"]]
    assert step.cpus == 2
    assert step.nodes == 2
    assert 45 < (step.max_rss_mib or 0) < 200
    assert step.memory_mib == 600
    assert 0.1 < (step.cpu_efficiency or 0) <= 1.0
    assert used[ids["gpu.0013"]].gpus == 1
    assert used[ids["gpu.0013"]].gpu_hours > 0
    assert ids["held.0007"] not in used


def test_every_attempt_of_a_requeued_job_is_accounted_for():
    used = [one for one in parse_usage(recorded("24.11.5", "usage")) if one.job_id == "12"]
    assert [one.elapsed_s for one in used] == [1, 0]


@pytest.mark.parametrize(
    "word", ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"]
)
def test_whatever_waits_in_the_queue_is_pending(word: str):
    assert parse_state(word) is JobState.PENDING


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("CANCELLED by 0", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_ME+", JobState.OUT_OF_MEMORY),
        ("NODE_FAIL", JobState.NODE_FAIL),
        ("COMPLET+", JobState.UNKNOWN),
        ("SUSPENDED", JobState.RUNNING),
        ("REVOKED", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
        ("BRAND_NEW", JobState.UNKNOWN),
    ],
)
def test_states_are_recognised_by_their_first_word(raw: str, expected: JobState):
    assert parse_state(raw) is expected


@pytest.mark.parametrize("state", sorted(JobState))
def test_slurms_words_for_our_own_final_states_are_ours(state: JobState):
    if state.is_final and state is not JobState.LOST:
        assert parse_state(state.value) is state


def test_an_unknown_state_keeps_its_raw_word():
    line = "\x1f".join(["7", "BRAND_NEW", "None", "10", "20", "30", "1", "n1", "run.1"])
    (sighting,) = parse_squeue(line)["7"]
    assert (sighting.state, sighting.raw_state) == (JobState.UNKNOWN, "BRAND_NEW")


@given(LINES)
def test_no_answer_of_any_source_is_an_exception(text: str):
    for parse in (parse_squeue, parse_sacct):
        assert all(sightings for sightings in parse(text).values())
    assert all(one.elapsed_s >= 0 for one in parse_usage(text))


@given(st.text(max_size=30) | st.text(alphabet="0123456789-:.KMG", max_size=20))
def test_any_amount_is_a_number_or_none(text: str):
    for value in (parse_cpu_time(text), parse_size_mib(text)):
        assert value is None or value >= 0


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_cpu_times_are_read_back(days: int, hours: int, minutes: int, seconds: int):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_cpu_time(f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}") == total


def test_a_wrappers_chatter_between_the_lines_is_passed_over():
    line = "\x1f".join(["7", "RUNNING", "None", "10", "20", "30", "1", "n1", "run.1"])
    assert list(parse_squeue(f"Welcome!\n{line}\nbye\n")) == ["7"]


def test_a_delimiter_in_the_name_stays_in_the_name():
    line = "\x1f".join(["7", "RUNNING", "None", "10", "20", "30", "1", "n1", "a\x1fb"])
    assert parse_squeue(line)["7"][0].name == "a\x1fb"


def test_times_in_slurms_standard_form_are_taken_as_utc():
    line = "\x1f".join(["7", "RUNNING", "None", "2026-11-21T05:14:16", "Unknown", "N/A", "1", "n1", "run.1"])
    (sighting,) = parse_squeue(line)["7"]
    assert sighting.submitted_at == datetime(2026, 11, 21, 5, 14, 16, tzinfo=timezone.utc)
    assert sighting.started_at is None


def test_a_list_of_tasks_cut_short_is_one_sighting_without_task():
    line = "\x1f".join(["7_[1,3,5,...]", "PENDING", "Priority", "10", "N/A", "N/A", "1", "", "run.1"])
    (sighting,) = parse_squeue(line)["7"]
    assert sighting.task is None


def test_jobs_of_a_named_cluster_carry_its_name():
    line = "\x1f".join(["7", "RUNNING", "None", "10", "20", "30", "1", "n1", "run.1"])
    row = "\x1f".join(["7", "RUNNING", "None", "10", "20", "Unknown", "1", "n1", "0:0", "big", "run.1"])
    for cluster, job_id in (("big", "7;big"), ("a-1", "7;a-1"), ("", "7")):
        assert list(parse_squeue(line, cluster)) == [job_id]
        assert list(parse_sacct(row, cluster)) == [job_id]


def test_each_cluster_is_asked_alone_by_an_option():
    assert "--clusters=big" in squeue_argv("me", "big")
    assert "--clusters=big" in sacct_argv(["7"], "me", "big")
    assert "--clusters=big" in sacct_by_name_argv(["run.1"], user="me", since=SINCE, cluster="big")
    for argv in (squeue_argv("me"), sacct_argv(["7"], "me"), sacct_by_name_argv(["run.1"], user="me", since=SINCE)):
        assert not any(word.startswith(("--clusters", "-M")) for word in argv)


def test_the_last_life_of_a_requeued_job_counts_in_whatever_order_it_is_listed():
    first = "\x1f".join(["7", "NODE_FAIL", "None", "10", "20", "30", "1", "n1", "0:0", "c", "r"])
    second = "\x1f".join(["7", "COMPLETED", "None", "35", "40", "50", "1", "n2", "0:0", "c", "r"])
    for text in (f"{first}\n{second}", f"{second}\n{first}"):
        (sighting,) = parse_sacct(text)["7"]
        assert (sighting.state, sighting.restarts, sighting.nodes) == (JobState.COMPLETED, 1, ("n2",))


def test_jobs_that_were_given_the_same_id_are_told_apart():
    rows = [
        ["7", "COMPLETED", "None", "10", "20", "30", "1", "n1", "0:0", "c", "old"],
        ["7", "NODE_FAIL", "None", "50", "60", "70", "1", "n1", "0:0", "c", "run-a.01234567"],
        ["7", "FAILED", "None", "90", "91", "92", "1", "n1", "1:0", "c", "new"],
        ["7", "RUNNING", "None", "75", "80", "Unknown", "1", "n1", "0:0", "c", "run-a.01234567"],
    ]
    lives = parse_sacct("\n".join(map("\x1f".join, rows)))["7"]
    assert {one.name: (one.state, one.restarts) for one in lives} == {
        "old": (JobState.COMPLETED, 0),
        "run-a.01234567": (JobState.RUNNING, 1),
        "new": (JobState.FAILED, 0),
    }


def test_what_was_used_says_whose_it_was():
    rows = [
        ["7", "9", "01:30", "1", "cpu=1", "", "", "1", "", "COMPLETED", "1795238056", "old\x1fname"],
        ["7.batch", "9", "01:30", "1", "cpu=1", "2M", "1", "1", "0", "COMPLETED", "1795238056", "batch"],
        ["7", "2", "00:01", "1", "cpu=1", "", "", "1", "", "COMPLETED", "1795238060", "run-a.01234567"],
        ["7.batch", "2", "00:01", "1", "cpu=1", "1M", "1", "1", "0", "COMPLETED", "1795238060", "batch"],
    ]
    old, ours = parse_usage("\n".join(map("\x1f".join, rows)))
    assert (old.name, old.max_rss_mib) == ("old\x1fname", 2)
    assert (ours.name, ours.max_rss_mib, ours.submitted_at) == (
        "run-a.01234567",
        1,
        datetime(2026, 11, 21, 5, 14, 20, tzinfo=timezone.utc),
    )


def test_accounting_is_asked_by_id_however_old_the_jobs_are():
    argv = sacct_argv(["7", "8"], "me")
    assert argv[-2:] == ["--user=me", "--jobs=7,8"]
    assert not any(word.startswith("--starttime") for word in argv)


def test_ids_go_in_portions_that_fit_one_argument():
    argv = sacct_argv([str(number) for number in range(4_000_000_000, 4_000_020_000)], "me")
    portions = [word.removeprefix("--jobs=").split(",") for word in argv if word.startswith("--jobs=")]
    assert sum(map(len, portions)) == 20_000
    assert max(map(len, argv)) < 128 * 1024


def test_accounting_is_asked_by_name_where_no_id_came_back():
    argv = sacct_by_name_argv(["run.1", "run.2"], user="me", since=SINCE)
    assert argv[-3:] == ["--user=me", "--starttime=2026-11-21T04:55:00", "--name=run.1,run.2"]


def test_usage_is_asked_for_tasks_too():
    assert usage_argv(["7", "8_3"], "me")[-1] == "--jobs=7,8_3"
    assert {"--clusters=big", "--user=me"} <= set(usage_argv(["7;big"], "me"))


def test_the_queue_is_asked_for_one_user_and_every_state():
    assert {"--user=me", "--states=all", "--noheader"} <= set(squeue_argv("me"))


def test_a_job_among_three_thousand_costs_a_few_calls_as_one_among_thirty_does():
    def calls_for_each(count: int) -> float:
        queue = "\n".join(
            "\x1f".join([str(n), "RUNNING", "None", str(n), str(n + 1), "N/A", "4", f"n{n % 50}", f"run-{n}.abc"])
            for n in range(10_000, 10_000 + count)
        )
        calls = 0

        def note(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            found = parse_squeue(queue)
        finally:
            sys.setprofile(None)
        assert len(found) == count
        return calls / count

    assert calls_for_each(3000) < 2 * calls_for_each(30) < 100
