"""When a waiting job may start: Slurm's recorded answers, and programs that answer, fail or hang."""

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.scheduler import Submission
from deephpc.jobs.slurm_outlook import Desk, count_ahead, foresee, line_argv, parse_trial, parse_turns, turn_argv
from deephpc.shell import Completed
from tests.fakes.samples import a_spec
from tests.fakes.waiting import DEADLINE_S
from tests.jobs.test_slurm import Fakes

RECORDED = Path(__file__).parent.parent / "recorded"
#: Who stands before each job of the recordings; held ones, and those with a time or a dependency to wait for, do not.
AHEAD = {
    "24.11.5": {21: 0, 22: 1, 26: 2, 27: 3, 29: 4, 24: 2},
    "22.05.8": {21: 0, 26: 1, 27: 2, 22: 3, 29: 4},
}
OWN = "4711\x1f50\x1fPriority\x1f1796090000\x1fdebug\n"
LINE = OWN + "".join(
    f"{number}\x1f{priority}\x1f{reason}\x1fN/A\x1fdebug\n"
    for number, priority, reason in (
        (12, 50, "Priority"),
        (13, 60, "Resources"),
        (9, 70, "Dependency"),
        (8, 0, "Priority"),
    )
)
SOONER = "Job 9 to start at 1796080000 using 1 processors on nodes c1 in partition short"
PARTITIONS = "\n".join(
    "\x1f".join((name, up, "1-0", "1:00", "1-4", "8", "6000", "3", "(null)", groups))
    for name, up, groups in (
        ("debug*", "up", "all"),
        ("short", "up", "all"),
        ("off", "down", "all"),
        ("gpu", "up", "x"),
    )
)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def submission(tmp_path: Path, fakes: Fakes) -> Submission:
    spec = a_spec(tmp_path / "run a", "true")
    spec.folder.mkdir()
    return Submission(spec=spec, script=spec.folder / "job.sh", environment={"PATH": fakes.path})


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def answering(fakes: Fakes, timeout_s: float = DEADLINE_S, **others: str) -> Desk:
    """Make a Slurm that answers all but what others say; return where it is asked."""
    own, line = OWN.replace("\n", "\\n"), LINE.replace("\n", "\\n")
    fakes.make("squeue", before=f"case $* in *--jobs=*) printf '{own}' ;; *) printf '{line}' ;; esac")
    fakes.make("scontrol", "PrivateData = none\n")
    fakes.make("sinfo", PARTITIONS)
    fakes.make("sbatch", stderr=f"sbatch: hello\nsbatch: {SOONER}\n")
    for name, before in others.items():
        fakes.make(name, before=before)
    return Desk({"PATH": fakes.path}, timeout_s)


@pytest.mark.parametrize("release", AHEAD)
def test_those_ahead_are_counted_as_recorded(release: str):
    first, _, text = (RECORDED / f"slurm-{release}-line.txt").read_text(encoding="utf-8").partition("\n")
    assert first == f"slurm-wlm {release}: {' '.join(line_argv('debug', ''))}".replace("\x1f", "<1f>")
    line = {turn.number: turn for turn in parse_turns(text)}
    assert {number: count_ahead(line[number], [*line.values()]) for number in AHEAD[release]} == AHEAD[release]
    assert line[21].starts_at is not None
    assert line[23].starts_at is None


def test_a_start_is_told_with_those_ahead_and_where_it_is_sooner(fakes: Fakes, submission: Submission):
    told = foresee("4711", "me", answering(fakes), submission)
    assert told is not None
    assert (told.partition, told.starts_at, told.ahead) == ("debug", at(1796090000), 2)
    assert [(one.partition, one.starts_at) for one in told.sooner] == [("short", at(1796080000))]
    assert fakes.calls("sbatch") == 1
    assert fakes.argv("sbatch") == ["--test-only", "--partition=short", "job.sh"]
    assert (fakes.folder / "sbatch.cwd").read_text().strip() == str(submission.spec.folder)


def test_the_estimate_alone_is_one_question(fakes: Fakes):
    told = foresee("4711_3;big", "me", answering(fakes), None)
    assert told is not None
    assert (told.starts_at, told.ahead, told.sooner) == (at(1796090000), None, ())
    assert (fakes.calls("squeue"), fakes.calls("sbatch"), fakes.calls("scontrol")) == (1, 0, 0)
    assert turn_argv("4711_3;big", "me")[-3:] == ["--clusters=big", "--user=me", "--jobs=4711_3"]


@pytest.mark.parametrize(
    ("others", "ahead", "sooner"),
    [
        ({"scontrol": "echo 'PrivateData = accounts,jobs'"}, None, 1),
        ({"scontrol": "exit 1"}, None, 1),
        ({"sinfo": "echo denied >&2; exit 1"}, 2, 0),
        ({"sbatch": "echo 'allocation failure: Unspecified error' >&2; exit 1"}, 2, 0),
        ({"sbatch": "echo 'Job 1 to start at 1796090000 using 1 processors on nodes c1 in partition short' >&2"}, 2, 0),
        ({"sbatch": "echo 'Job 1 to start at soon using 1 processors on nodes c1 in partition short' >&2"}, 2, 0),
    ],
)
def test_what_is_not_answered_is_not_told(
    fakes: Fakes,
    submission: Submission,
    others: dict[str, str],
    ahead: int | None,
    sooner: int,
):
    told = foresee("4711", "me", answering(fakes, **others), submission)
    assert told is not None
    assert (told.starts_at, told.ahead, len(told.sooner)) == (at(1796090000), ahead, sooner)


@pytest.mark.parametrize("squeue", ["exit 1", "exec sleep 600", "echo 4711", "true"])
def test_a_queue_that_does_not_tell_of_the_job_is_asked_once(fakes: Fakes, submission: Submission, squeue: str):
    desk = answering(fakes, 0.5 if "sleep" in squeue else DEADLINE_S, squeue=squeue)
    assert foresee("4711", "me", desk, submission) is None
    assert (fakes.calls("squeue"), fakes.calls("sbatch")) == (1, 0)


@pytest.mark.parametrize(
    "reason", ["JobHeldUser", "Dependency", "BeginTime", "AssocMaxJobsLimit", "QOSMaxCpuPerUserLimit"]
)
def test_where_no_partition_would_help_none_is_tried(fakes: Fakes, submission: Submission, reason: str):
    desk = answering(fakes, squeue=f"printf '{OWN}'".replace("Priority", reason).replace("\n", "\\n"))
    told = foresee("4711", "me", desk, submission)
    assert told is not None
    assert (told.ahead, told.sooner, fakes.calls("sbatch")) == (None, (), 0)


def test_trials_end_in_time(fakes: Fakes, submission: Submission):
    desk = answering(fakes, sbatch="exec sleep 600")
    starts = replace(desk, timeout_s=0.2).try_in([f"p{number}" for number in range(30)], "", submission)
    assert list(starts) == []
    assert fakes.calls("sbatch") <= 3


@given(st.text(st.sampled_from("0123456789\x1f\n .Priority-N/A"), max_size=80), st.text(max_size=40))
def test_no_text_makes_a_reader_fail(text: str, said: str):
    assert isinstance(parse_turns(text), tuple)
    completed = Completed(("sbatch",), 0, "", f"Job 1 to start at {said} using 1 processors on nodes c1 in partition p")
    assert parse_trial(completed) is None or said.strip().isascii()
