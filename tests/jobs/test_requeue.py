"""A program that ends with exit code 75 is continued: the real job script under bash, and under the local scheduler."""

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.jobs.evidence import load_attempts, load_result
from deephpc.jobs.local import LocalScheduler
from deephpc.jobs.local_job import LocalJob
from deephpc.jobs.run_folder import read_json_lines
from deephpc.jobs.scheduler import Question, Submission
from deephpc.jobs.spec import Array, Launch, Resources
from deephpc.jobs.state import JobState
from tests.fakes.waiting import wait_until
from tests.jobs.test_script import Run

#: Counts the attempts in a checkpoint, and is done in the third.
COUNTS = 'echo >> "$DEEPHPC_CHECKPOINT_DIR/steps"; [ "$(wc -l < "$DEEPHPC_CHECKPOINT_DIR/steps")" -ge 3 ] || exit 75'
SCONTROL = """#!/bin/sh
if [ "$1" = --oneliner ]; then
  echo "JobId=4711 PreemptTime=${PREEMPTED:-None} ${LIMIT:+RunTime=00:01:28 TimeLimit=$LIMIT }TimeMin=N/A"; exit
fi
echo "$@" >> "$SAID"
[ -z "$ANSWER" ] || { echo "$ANSWER" >&2; exit 1; }
"""
#: Keeps a checkpoint named for the signal that told it of its end, and asks to be continued.
SAVES = """
import os, signal, sys, time
def told(number, frame):
    with open(os.path.join(os.environ["DEEPHPC_CHECKPOINT_DIR"], signal.Signals(number).name), "w"):
        sys.exit(75)
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, told)
open("ready", "w").close()
time.sleep(600)
"""
#: Has the id that its caller wants, and tells of the variables that a job inside a job must not inherit.
SBATCH = """#!/bin/sh
left=$SLURM_JOB_ID$SLURM_CPUS_PER_TASK$DEEPHPC_ATTEMPT$TMPDIR$SBATCH_CLUSTERS$SLURM_CLUSTERS$SLURM_JWT
echo "sbatch $* in ${PWD##*/} with <$left> $SLURM_CONF" >> "$SAID"
[ -z "$ANSWER" ] || { echo "$ANSWER" >&2; exit 1; }
echo "the site greets you"; echo 4712
"""
SQUEUE = """#!/bin/sh
echo "the site greets you"
echo "squeue $*$SQUEUE_STATES$SLURM_CLUSTERS" >> "$SAID"
printf "%s\\n" 4711 $QUEUED
"""


class Slurms:
    """A job script as Slurm runs it, with an scontrol of ours that notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder / "said"
        (folder / "bin").mkdir()
        for name, text in (("scontrol", SCONTROL), ("sbatch", SBATCH), ("squeue", SQUEUE)):
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(stat.S_IRWXU)

    def run(self, *command: str, **changes: object) -> Run:
        return Run(self.folder / "run-a-0001", *command, **changes)

    def start(self, run: Run, *, job_id: str = "4711", answer: str = "", **more: str):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        facts = {"SLURM_JOB_NAME": "run-a-0001.01234567", "SLURM_JOB_ID": job_id, **more}
        return run.start(PATH=path, SAID=str(self.said), ANSWER=answer, **facts)

    def __call__(self, run: Run, *, job_id: str = "4711", answer: str = "", **more: str) -> tuple[int, str]:
        return run.end(self.start(run, job_id=job_id, answer=answer, **more))

    @property
    def requests(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []


@pytest.fixture
def slurm(tmp_path: Path) -> Slurms:
    return Slurms(tmp_path)


def test_a_program_that_asks_to_be_continued_is_queued_again_and_leaves_no_result(slurm: Slurms):
    run = slurm.run("bash", "-c", COUNTS, max_requeues=3)
    code, out = slurm(run)
    assert code == 75
    assert slurm.requests == ["requeue 4711"]
    assert not run.task().result.exists()
    kept = json.loads((run.files.path / "attempts" / "result-1.json").read_text())
    assert (kept["state"], kept["exit_code"], kept["attempt"]) == ("PENDING", 75, 1)
    assert run.events() == ["started", "continued"]
    assert "attempt 1 ended with exit code 75, to be continued" in out


def test_it_is_continued_until_it_is_done_and_its_attempts_are_counted(slurm: Slurms):
    run = slurm.run("bash", "-c", f'echo "this is $DEEPHPC_ATTEMPT"; {COUNTS}', max_requeues=3)
    outs = [slurm(run) for _ in range(3)]
    assert [code for code, _ in outs] == [75, 75, 0]
    assert all(f"this is {number}\n" in out for number, (_, out) in enumerate(outs, 1))
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.attempt) == (JobState.COMPLETED, 3)
    attempts = load_attempts(run.task())
    assert [(attempt.number, attempt.continues, attempt.exit_code) for attempt in attempts] == [
        (1, "requeue", 75), (2, "requeue", 75), (3, None, 0),
    ]  # fmt: skip
    assert slurm.requests == ["requeue 4711"] * 2


def test_a_task_of_an_array_is_queued_again_alone(slurm: Slurms):
    run = slurm.run("bash", "-c", COUNTS, max_requeues=3)
    facts = {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "7"}
    assert slurm(run, **facts)[0] == 75
    assert slurm.requests == ["requeue 4711_7"]
    assert not run.task(7).result.exists()
    assert (run.task(7).path / "attempts" / "result-1.json").exists()
    assert run.end(slurm.start(run, SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID="8"))[0] == 75
    assert [attempt.number for attempt in load_attempts(run.task(8))] == [1]


def test_two_attempts_in_a_row_without_a_newer_checkpoint_end_it_with_the_reason(slurm: Slurms):
    run = slurm.run("bash", "-c", "exit 75", max_requeues=9)
    assert slurm(run)[0] == 75
    assert not run.task().result.exists()
    assert slurm(run)[0] == 75
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.exit_code, result.ended_by, result.attempt) == (JobState.FAILED, 75, "program", 2)
    assert result.reason == ("two attempts in a row asked to continue (exit code 75) and left no newer checkpoint")
    assert len(slurm.requests) == 1


def test_a_checkpoint_written_again_under_its_name_or_deep_in_a_folder_is_newer(slurm: Slurms):
    program = 'mkdir -p "$DEEPHPC_CHECKPOINT_DIR/a b"; date +%s%N > "$DEEPHPC_CHECKPOINT_DIR/a b/latest\n.pt"; exit 75'
    run = slurm.run("bash", "-c", program, max_requeues=9)
    assert [slurm(run)[0] for _ in range(4)] == [75] * 4
    assert len(slurm.requests) == 4


def test_one_attempt_that_moved_on_in_between_forgives_the_one_before(slurm: Slurms):
    program = '[ $((DEEPHPC_ATTEMPT % 2)) = 1 ] || date > "$DEEPHPC_CHECKPOINT_DIR/$DEEPHPC_ATTEMPT"; exit 75'
    run = slurm.run("bash", "-c", program, max_requeues=9)
    for _ in range(5):
        slurm(run)
    assert len(slurm.requests) == 5
    assert not run.task().result.exists()


def test_an_attempt_that_its_node_took_away_is_none_of_the_two(slurm: Slurms):
    killed = 'if [ "$DEEPHPC_ATTEMPT" = 2 ]; then date > "$DEEPHPC_CHECKPOINT_DIR/saved"; kill -KILL $PPID; fi; exit 75'
    run = slurm.run("bash", "-c", killed, max_requeues=9)
    for _ in range(3):
        slurm(run)
    assert not run.task().result.exists()
    assert len(slurm.requests) == 2


@pytest.mark.parametrize("allowed", [0, 2])
def test_no_more_requeues_than_allowed(slurm: Slurms, allowed: int):
    program = 'date > "$DEEPHPC_CHECKPOINT_DIR/$DEEPHPC_ATTEMPT"; exit 75'
    run = slurm.run("bash", "-c", program, max_requeues=allowed)
    for _ in range(allowed + 1):
        slurm(run)
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.attempt) == (JobState.FAILED, allowed + 1)
    assert f"{allowed} requeues are allowed (--max-requeues)" in result.reason
    assert len(slurm.requests) == allowed


def test_a_cluster_that_does_not_queue_it_again_is_named_in_the_reason(slurm: Slurms):
    run = slurm.run("bash", "-c", COUNTS, max_requeues=3)
    assert slurm(run, answer='Requested "operation" is presently disabled for job 4711')[0] == 75
    result = load_result(run.task())
    assert result is not None
    assert result.state is JobState.FAILED
    assert "did not queue it again" in result.reason
    assert "presently disabled" in result.reason
    assert run.events() == ["started", "continued", "finished"]
    assert not load_attempts(run.task())[0].continues
    assert not list((run.files.path / "attempts").glob("result*"))


def test_cancelled_through_deephpc_it_is_not_continued(slurm: Slurms):
    run = slurm.run("bash", "-c", f'echo "{{}}" > "$DEEPHPC_OUTPUT_DIR/../cancelled.json"; {COUNTS}', max_requeues=3)
    slurm(run)
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.CANCELLED, "signal")
    assert slurm.requests == []


def test_cancelled_between_two_attempts_the_next_one_runs_nothing(slurm: Slurms, tmp_path: Path):
    run = slurm.run("bash", "-c", f"echo >> ran; {COUNTS}", max_requeues=3)
    slurm(run)
    run.files.cancelled.write_text("{}")
    slurm(run)
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.attempt) == (JobState.CANCELLED, 2)
    assert (tmp_path / "ran").read_text() == "\n"


def test_a_program_that_saves_at_its_time_limit_is_continued_too(slurm: Slurms, tmp_path: Path):
    program = "trap 'date > \"$DEEPHPC_CHECKPOINT_DIR/late\"; exit 75' TERM; touch ready; while :; do sleep 0.05; done"
    run = slurm.run("bash", "-c", program, max_requeues=3, resources=Resources(walltime=timedelta(seconds=1)))
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert run.end(process)[0] == 75
    assert slurm.requests == ["requeue 4711"]
    assert not run.task().result.exists()


def test_told_to_end_before_its_limit_it_is_cancelled_whatever_its_exit_code(slurm: Slurms, tmp_path: Path):
    run = slurm.run("bash", "-c", "trap 'exit 75' TERM; touch ready; while :; do sleep 0.05; done", max_requeues=3)
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    run.end(process)
    result = load_result(run.task())
    assert result is not None
    assert result.state is JobState.CANCELLED
    assert slurm.requests == []


@pytest.mark.parametrize(
    ("limit", "state"),
    [
        ("00:01:00", "PENDING"),
        ("00:01:29", "PENDING"),
        ("1-00:00:00", "CANCELLED"),
        ("UNLIMITED", "CANCELLED"),
        ("00:30:00", "CANCELLED"),
    ],
)
def test_the_limit_counts_that_the_job_has_when_it_is_told_to_end(
    slurm: Slurms, tmp_path: Path, limit: str, state: str
):
    """It may have been changed since: RunTime and TimeLimit decide, as scontrol of 22.05 and 24.11 writes them."""
    asked = Resources(walltime=timedelta(seconds=3600 if state == "PENDING" else 1))
    run = slurm.run(sys.executable, "-c", SAVES, max_requeues=3, resources=asked, grace=timedelta(0))
    process = slurm.start(run, LIMIT=limit)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert run.end(process)[0] == 75
    result = load_result(run.task())
    assert (result.state.value if result else "PENDING") == state
    assert slurm.requests == (["requeue 4711"] if state == "PENDING" else [])


def test_without_a_limit_of_its_own_a_program_is_told_by_the_one_that_slurm_gives(slurm: Slurms):
    run = slurm.run(sys.executable, "-c", SAVES, max_requeues=3)
    assert "--signal" not in run.files.script.read_text()
    assert slurm(run, LIMIT="00:01:28")[0] == 75
    assert list(dict.fromkeys(run.events())) == ["started", "grace", "continued"]  # told again once it listens


def test_no_clock_is_left_behind_by_a_job_that_is_killed(slurm: Slurms):
    run = slurm.run("bash", "-c", "kill -KILL $PPID", max_requeues=1)
    slurm(run)
    ours = str(run.files.script).encode()

    def left() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found += [path.parent.name] if ours in path.read_bytes() else []
        return found

    wait_until(lambda: not left())


def test_attempts_that_saved_are_free_whoever_asked_for_the_next(slurm: Slurms, tmp_path: Path):
    """A program that queues its own job again (as Lightning does) is ended by Slurm, and says nothing to deephpc."""
    saves = 'date -d "+2 minutes" > c; touch -d "+2 minutes" c; mv c "$DEEPHPC_CHECKPOINT_DIR/$DEEPHPC_ATTEMPT"'
    run = slurm.run(
        "bash", "-c", f'[ "$DEEPHPC_ATTEMPT" -gt 4 ] || {{ {saves}; sleep 0.01; }}; kill -KILL $PPID', max_requeues=1
    )
    while not run.task().result.exists():
        slurm(run)
    # four saved, so the fifth start was the last free one; the sixth was a requeue, the seventh one too many
    assert [attempt.free for attempt in load_attempts(run.task())] == [False, True, True, True, True, False, False]


def test_attempts_that_save_as_soon_as_they_begin_are_not_free(slurm: Slurms):
    program = 'date > "$DEEPHPC_CHECKPOINT_DIR/$DEEPHPC_ATTEMPT"; kill -KILL $PPID'
    run = slurm.run("bash", "-c", program, max_requeues=1)
    for _ in range(3):
        slurm(run)
    assert load_result(run.task()) is not None


def test_a_limit_too_short_for_slurms_own_signal_is_told_by_the_script(slurm: Slurms):
    program = "trap 'date > \"$DEEPHPC_CHECKPOINT_DIR/saved\"; exit 75' USR1; while :; do sleep 0.05; done"
    limits = {"resources": Resources(walltime=timedelta(seconds=60)), "grace": timedelta(seconds=58)}
    run = slurm.run("bash", "-c", program, max_requeues=3, **limits)
    assert slurm(run)[0] == 75
    assert run.events() == ["started", "grace", "continued"]


def test_attempts_that_worked_until_their_end_was_near_use_up_no_requeues(slurm: Slurms, tmp_path: Path):
    program = f"[ \"$DEEPHPC_ATTEMPT\" -le 3 ] || {{ kill -KILL $PPID; exit; }}; exec {sys.executable} -c '{SAVES}'"
    run = slurm.run("bash", "-c", program, max_requeues=1)
    for _ in range(3):
        (tmp_path / "ready").unlink(missing_ok=True)
        process = slurm.start(run)
        wait_until((tmp_path / "ready").exists)
        process.send_signal(signal.SIGUSR1)
        assert run.end(process)[0] == 75
    assert [attempt.earned for attempt in load_attempts(run.task())] == [True] * 3
    for _ in range(2):  # which their node takes away
        slurm(run)
        assert not run.task().result.exists()
    slurm(run)
    result = load_result(run.task())
    assert result is not None
    assert result.reason == "started 6 times, only 1 requeues are allowed (--max-requeues)"


def test_who_may_never_be_queued_again_is_not_continued_either(slurm: Slurms, tmp_path: Path):
    run = slurm.run(sys.executable, "-c", SAVES, max_requeues=0)
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    assert run.end(process)[0] == 75
    result = load_result(run.task())
    assert result is not None
    assert "0 requeues are allowed (--max-requeues)" in result.reason
    assert slurm.requests == []


def test_a_program_that_still_loads_when_its_end_comes_near_is_told_once_it_listens(slurm: Slurms):
    program = f"touch ready; while [ ! -e listen ]; do sleep 0.05; done; exec {sys.executable} -c '{SAVES}'"
    run = slurm.run("bash", "-c", program, max_requeues=3)
    process = slurm.start(run)
    wait_until((slurm.folder / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "grace" in run.events())
    (slurm.folder / "listen").touch()
    assert run.end(process)[0] == 75
    assert [path.name for path in run.task().checkpoints.iterdir()] == ["SIGUSR1"]
    told = [event["told"] for event in read_json_lines(run.task().events) if event["event"] == "grace"]
    assert told == [False, True]


# --- who is told ---

STARTER = "import subprocess, sys; children = [subprocess.Popen(sys.argv[1:]) for _ in range(2)]; " \
    "sys.exit(max(child.wait() for child in children))"  # fmt: skip


def saving(tmp_path: Path) -> str:
    (tmp_path / "saves.py").write_text(SAVES)
    return f"{sys.executable} {tmp_path}/saves.py"


@pytest.mark.parametrize(
    "wrapper",
    [
        "{saves}; exit $?",
        "trap 'echo left' EXIT; {saves}",
        "trap 'echo left' EXIT; set -o pipefail; {saves} | tee log",
        "(bash -c '{saves}; exit $?'; exit $?)",
        "python3 -c '{starter}' {saves}; exit $?",
    ],
)
@pytest.mark.parametrize("sent", ["SIGUSR1", "SIGTERM"])
def test_who_listens_below_the_program_is_told_and_its_exit_code_counts(
    slurm: Slurms, tmp_path: Path, wrapper: str, sent: str
):
    words = wrapper.format(saves=saving(tmp_path), starter=STARTER)
    run = slurm.run("bash", "-c", words, max_requeues=3, resources=Resources(walltime=timedelta(hours=1)))
    process = slurm.start(run, LIMIT="00:01:00")
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.Signals[sent])
    assert run.end(process)[0] == 75
    assert slurm.requests == ["requeue 4711"]
    assert [path.name for path in run.task().checkpoints.iterdir()] == [sent]


def test_who_listens_below_a_program_that_catches_everything_and_heeds_nothing_is_told(slurm: Slurms, tmp_path: Path):
    """As programs in Go do: here rclone, which waits for a command that is to tell a password."""
    (tmp_path / "rclone.conf").write_text("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n")
    rclone = Path(sys.executable).with_name("rclone")
    words = (str(rclone), "--config", f"{tmp_path}/rclone.conf", "--password-command", saving(tmp_path), "listremotes")
    run = slurm.run(*words, max_requeues=3, resources=Resources(walltime=timedelta(hours=1)))
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    run.end(process)
    assert [path.name for path in run.task().checkpoints.iterdir()] == ["SIGUSR1"]


@pytest.mark.parametrize("trap", ["", "trap 'echo left > left' EXIT; ", "trap 'echo left > left' EXIT HUP; "])
def test_where_nobody_listens_nothing_is_killed_and_it_is_said(slurm: Slurms, tmp_path: Path, trap: str):
    run = slurm.run("bash", "-c", f"{trap}touch ready; while [ ! -e go ]; do sleep 0.05; done; [ ! -e left ] && exit 5")
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "grace" in run.events())
    (tmp_path / "go").touch()
    code, out = run.end(process)
    assert code == 5
    assert "nothing in the program listens for SIGUSR1" in out
    assert [attempt.told for attempt in load_attempts(run.task())] == [False]


def test_a_wrapper_that_goes_on_after_its_program_was_told_to_end_is_ended(slurm: Slurms, tmp_path: Path):
    run = slurm.run("bash", "-c", f"{saving(tmp_path)}; echo $? > code; sleep 600; touch never; sleep 600")
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert run.end(process)[0] == 143
    assert (tmp_path / "code").read_text() == "75\n"
    assert not (tmp_path / "never").exists()


# --- preempted ---

PREEMPTED = "slurmstepd-c2: error: *** JOB 4711 ON c2 CANCELLED AT 2026-11-21T12:11:14 DUE TO PREEMPTION ***\n"


def test_a_job_ended_for_another_warns_a_program_that_listens(slurm: Slurms, tmp_path: Path):
    run = slurm.run(sys.executable, "-c", SAVES, max_requeues=3)
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    (run.files.path / "job.log").write_text(PREEMPTED)
    process.terminate()
    run.end(process)
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.PREEMPTED, "signal")
    assert [path.name for path in run.task().checkpoints.iterdir()] == ["SIGUSR1"]
    assert slurm.requests == []  # Slurm queues it again itself


def test_an_earlier_attempt_that_had_to_make_room_makes_no_preemption_of_a_cancel(slurm: Slurms, tmp_path: Path):
    run = slurm.run(sys.executable, "-c", SAVES, max_requeues=3)
    (run.files.path / "job.log").write_text(PREEMPTED + "--- deephpc: run-a-0001, attempt 2, job 4711 on c1, now\n")
    process = slurm.start(run)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    run.end(process)
    result = load_result(run.task())
    assert result is not None
    assert result.state is JobState.CANCELLED
    assert [path.name for path in run.task().checkpoints.iterdir()] == ["SIGTERM"]


@pytest.mark.parametrize(("preempted", "code"), [("2026-11-21T12:12:22", 143), ("", 143), ("2026-11-21T12:12:22", 0)])
def test_ranks_that_ended_to_make_room_are_continued(slurm: Slurms, preempted: str, code: int):
    launch = Launch(launcher="srun")
    run = slurm.run("true", max_requeues=3, launch=launch, resources=Resources(nodes=1, tasks_per_node=1))
    run.files.container.mkdir()
    (run.files.container / "launch.sh").write_text(f": >/dev/fd/9; exit {code}\n")
    assert slurm(run, PREEMPTED=preempted)[0] == code
    is_continued = bool(preempted and code)
    assert slurm.requests == (["requeue 4711"] if is_continued else [])
    assert run.task().result.exists() != is_continued


# --- in a successor of the job ---


def a_chain(slurm: Slurms, program: str = COUNTS) -> Run:
    return slurm.run("bash", "-c", program, max_requeues=3, chain=True)


def test_a_chained_run_goes_on_in_a_job_submitted_from_its_node(slurm: Slurms):
    run = a_chain(slurm)
    surroundings = {"SLURM_CPUS_PER_TASK": "4", "SLURM_CONF": "/etc/slurm.conf", "TMPDIR": "/tmp"}
    surroundings |= {"SBATCH_CLUSTERS": "a", "SLURM_CLUSTERS": "b", "SLURM_JWT": "old", "SQUEUE_STATES": "c"}
    assert slurm(run, **surroundings)[0] == 75
    assert slurm.requests == ["sbatch --parsable job.sh in run-a-0001 with <> /etc/slurm.conf"]
    assert run.events() == ["started", "continued", "chained"]
    (attempt,) = load_attempts(run.task())
    assert (attempt.continues, attempt.successor) == ("chain", "4712")
    assert not run.task().result.exists()


def test_a_successor_goes_on_with_the_run_and_a_duplicate_of_any_job_does_not(slurm: Slurms):
    run = a_chain(slurm, f'echo "$DEEPHPC_ATTEMPT" >> ran; {COUNTS}')
    slurm(run)
    assert slurm(run, job_id="4712")[0] == 75
    code, out = slurm(run, job_id="4713")
    assert code == 0
    assert "attempt 3, job 4713" in out
    for late in ("4711", "4712", "4714"):
        code, out = slurm(run, job_id=late)
        assert code == 0
        assert f"belongs to job 4713; this duplicate (job {late}) ends" in out
    assert (slurm.folder / "ran").read_text() == "1\n2\n3\n"
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.job_id, result.attempt) == (JobState.COMPLETED, "4713", 3)


def test_of_two_successors_at_the_same_moment_one_goes_on(slurm: Slurms):
    run = a_chain(slurm)
    slurm(run)
    both = [slurm.start(run, job_id=job_id) for job_id in ("4712", "4713")]
    assert sorted(run.end(process)[0] for process in both) == [0, 75]
    assert [attempt.number for attempt in load_attempts(run.task())] == [1, 2]


def test_while_an_attempt_runs_another_job_is_refused(slurm: Slurms):
    run = a_chain(slurm, "touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 75")
    process = slurm.start(run)
    wait_until((slurm.folder / "ready").exists)
    assert "this duplicate (job 4712) ends" in slurm(run, job_id="4712")[1]
    (slurm.folder / "go").touch()
    assert run.end(process)[0] == 75


def test_a_successor_requeued_by_slurm_after_its_node_failed_is_still_the_one(slurm: Slurms):
    killed = f'[ "$DEEPHPC_ATTEMPT" != 2 ] || {{ kill -KILL $PPID; exit; }}; {COUNTS}'
    run = a_chain(slurm, killed)
    slurm(run)
    slurm(run, job_id="4712")
    assert slurm(run, job_id="4712")[0] == 75
    assert [(one.number, one.job_id) for one in load_attempts(run.task())] == [(1, "4711"), (2, "4712"), (3, "4712")]


def test_a_successor_whose_submission_got_no_answer_is_found_in_the_queue(slurm: Slurms):
    run = a_chain(slurm)
    assert slurm(run, answer="sbatch: error: Socket timed out on send/recv operation", QUEUED="4719")[0] == 75
    assert [line.split()[0] for line in slurm.requests] == ["sbatch", "squeue"]
    assert "--name=run-a-0001.01234567" in slurm.requests[1]
    assert load_attempts(run.task())[0].successor == "4719"


def test_a_node_that_may_not_submit_leaves_that_to_the_login_node(slurm: Slurms):
    run = a_chain(slurm)
    code, out = slurm(run, answer="sbatch: error: Access/permission denied")
    assert code == 75
    assert "this node cannot submit the next job" in out
    assert run.events() == ["started", "continued", "unplaced"]
    assert not run.task().result.exists()
    assert load_attempts(run.task())[0].successor is None


# --- the local scheduler ---


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Callable[[Run], str]]:
    scheduler = LocalScheduler(tmp_path / "state")

    def submit(run: Run) -> str:
        return scheduler.submit(Submission(run.spec, run.files.script, dict(os.environ))).job_id

    yield submit
    for path in (tmp_path / "state" / "local").glob("local-*"):
        LocalJob(path).request_cancel(None)


def seen(tmp_path: Path, job_id: str) -> dict[int | None, JobState]:
    answer = LocalScheduler(tmp_path / "state").observe(Question(job_ids=(job_id,))).queue
    return {one.task: one.state for one in answer[job_id]} if answer else {}


def test_the_local_scheduler_continues_a_run_in_the_same_job(tmp_path: Path, local: Callable[[Run], str]):
    run = Run(tmp_path / "run-a-0001", "bash", "-c", COUNTS, max_requeues=3)
    job_id = local(run)
    wait_until(lambda: seen(tmp_path, job_id) == {None: JobState.COMPLETED})
    assert [attempt.number for attempt in load_attempts(run.task())] == [1, 2, 3]
    assert "attempt 3" in run.task().log.read_text()
    (sighting,) = (LocalScheduler(tmp_path / "state").observe(Question(job_ids=(job_id,))).queue or {})[job_id]
    assert sighting.restarts == 2


def test_the_local_scheduler_continues_each_task_of_an_array_on_its_own(tmp_path: Path, local: Callable[[Run], str]):
    program = f'[ "$DEEPHPC_TASK_ID" = 2 ] || exit 0; {COUNTS}'
    run = Run(tmp_path / "run-a-0001", "bash", "-c", program, max_requeues=3, array=Array(tasks=(1, 2)))
    job_id = local(run)
    wait_until(lambda: seen(tmp_path, job_id) == {1: JobState.COMPLETED, 2: JobState.COMPLETED})
    assert [len(load_attempts(run.task(number))) for number in (1, 2)] == [1, 3]


def test_cancelled_while_it_saves_for_the_next_attempt_a_local_job_ends(tmp_path: Path, local: Callable[[Run], str]):
    saves = """
import os, signal, sys, time
def told(*_):
    open(os.path.join(os.environ["DEEPHPC_CHECKPOINT_DIR"], "saved"), "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, told)
open("ready", "w").close()
time.sleep(600)
"""
    run = Run(tmp_path / "run-a-0001", sys.executable, "-c", saves, max_requeues=3)
    job_id = local(run)
    wait_until((tmp_path / "ready").exists)
    LocalScheduler(tmp_path / "state").cancel([job_id])
    wait_until(lambda: seen(tmp_path, job_id) == {None: JobState.CANCELLED})
    assert len(load_attempts(run.task())) == 1
