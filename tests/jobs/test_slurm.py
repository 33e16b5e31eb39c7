"""The Slurm scheduler with fake programs first on PATH: what they are called with, what is made of their answers."""

import os
import shlex
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deephpc.errors import SiteError
from deephpc.jobs.scheduler import Ambiguous, Question, Refused, Submission, cluster_of
from deephpc.jobs.slurm import SlurmScheduler, Timeouts
from deephpc.jobs.slurm_controller import CONTROLLER_VARIABLES, clusters_meant
from deephpc.jobs.spec import Environment, JobSpec, Resources
from deephpc.jobs.state import JobState
from deephpc.jobs.submission import find_by_name
from deephpc.shell import CommandNotFound
from deephpc.workflows.plan import job_environment
from tests.fakes.waiting import DEADLINE_S

PATIENT = Timeouts(*[DEADLINE_S] * 6)
FROZEN = "sleep 600"
RUNNING = "7\x1fRUNNING\x1fNone\x1f10\x1f20\x1fN/A\x1f4\x1fn[1-2]\x1frun-a.1234"
TASK = "8_0\x1fRUNNING\x1fNone\x1f10\x1f20\x1fN/A\x1f4\x1fn1\x1frun-b.1234"
ENDED = "9\x1fFAILED\x1fNone\x1f10\x1f20\x1f30\x1f4\x1fn1\x1f7:0\x1fbig\x1frun-c.1234"


class Fakes:
    """Programs that note their arguments, place and environment, and say what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.path = f"{self.bin}:{os.environ['PATH']}"

    def make(self, name: str, stdout: str = "", stderr: str = "", status: int = 0, before: str = "") -> None:
        program = self.bin / name
        program.write_text(
            "#!/bin/bash\n"
            f"printf '%s\\0' \"$@\" > {self.folder}/{name}.argv\n"
            f"echo x >> {self.folder}/{name}.calls\n"
            f"pwd > {self.folder}/{name}.cwd; env -0 > {self.folder}/{name}.env\n"
            f"{before}\n"
            f"printf '%s' {shlex.quote(stdout)}; printf '%s' {shlex.quote(stderr)} >&2; exit {status}\n"
        )
        program.chmod(0o755)

    def argv(self, name: str) -> list[str]:
        return (self.folder / f"{name}.argv").read_text().split("\0")[:-1]

    def calls(self, name: str) -> int:
        noted = self.folder / f"{name}.calls"
        return len(noted.read_text().splitlines()) if noted.exists() else 0

    def environment(self, name: str) -> dict[str, str]:
        text = (self.folder / f"{name}.env").read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def slurm(fakes: Fakes) -> SlurmScheduler:
    return scheduler(fakes)


def scheduler(fakes: Fakes, silence: Path | None = None, **timeouts: float) -> SlurmScheduler:
    """Return one that waits for every answer, but for those with a time-out."""
    environ = {"PATH": fakes.path, "SQUEUE_FORMAT": "%i"}
    return SlurmScheduler(environ, "me", timeouts=replace(PATIENT, **timeouts), silence=silence)


@pytest.fixture
def submission(tmp_path: Path, fakes: Fakes) -> Submission:
    folder = tmp_path / "runs" / "run a"
    folder.mkdir(parents=True)
    (folder / "job.sh").write_text("#!/bin/bash\n")
    spec = JobSpec(
        run_id="run-a",
        token="1234abcd",
        kind="run",
        folder=folder,
        command=("true",),
        workdir=tmp_path,
        resources=Resources(),
        environment=Environment(),
    )
    environ = {"PATH": fakes.path, "SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "5", "SBATCH_EXPORT": "NONE", "MINE": "é"}
    return Submission(spec=spec, script=folder / "job.sh", environment=environ)


def test_a_job_is_sent_from_inside_its_run_folder(slurm: SlurmScheduler, fakes: Fakes, submission: Submission):
    fakes.make("sbatch", "Welcome\n4711\n")
    assert slurm.submit(submission).job_id == "4711"
    assert fakes.argv("sbatch") == ["--parsable", "job.sh"]
    assert (fakes.folder / "sbatch.cwd").read_text().strip() == str(submission.spec.folder)


def test_the_job_inherits_the_users_environment_but_nothing_of_an_enclosing_job(
    slurm: SlurmScheduler, fakes: Fakes, submission: Submission
):
    fakes.make("sbatch", "4711\n")
    slurm.submit(submission)
    seen = fakes.environment("sbatch")
    assert seen["MINE"] == "é"
    assert not {"SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SBATCH_EXPORT"} & set(seen)


def test_a_refusal_is_told_in_one_line(slurm: SlurmScheduler, fakes: Fakes, submission: Submission):
    said = "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    fakes.make("sbatch", stderr=said, status=1)
    with pytest.raises(Refused, match=r"^Invalid partition name specified$"):
        slurm.submit(submission)


@pytest.mark.parametrize(
    ("stdout", "stderr", "status"),
    [
        ("", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", 1),
        ("hello\n", "", 0),
        ("4711\n", "wrapper: accounting hook failed\n", 1),
    ],
)
def test_no_clear_answer_is_ambiguous(
    slurm: SlurmScheduler, fakes: Fakes, submission: Submission, stdout: str, stderr: str, status: int
):
    fakes.make("sbatch", stdout, stderr, status)
    with pytest.raises(Ambiguous):
        slurm.submit(submission)


def test_a_frozen_controller_is_ambiguous_after_the_deadline(fakes: Fakes, submission: Submission):
    fakes.make("sbatch", "4711\n", before=FROZEN)
    with pytest.raises(Ambiguous, match="no answer within 1 s"):
        scheduler(fakes, submit=1.0).submit(submission)


def test_a_machine_without_sbatch_says_so(slurm: SlurmScheduler, fakes: Fakes, submission: Submission):
    bare = Submission(submission.spec, submission.script, {"PATH": str(fakes.bin)})
    with pytest.raises(CommandNotFound, match="sbatch"):
        slurm.submit(bare)


def test_live_jobs_are_settled_by_the_queue_alone(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", RUNNING + "\n")
    fakes.make("sacct")
    seen = slurm.observe(Question(job_ids=("7",)))
    assert seen.queue is not None
    assert seen.queue["7"][0].nodes == ("n1", "n2")
    assert seen.accounting is None
    assert seen.troubles == ()
    assert (fakes.calls("squeue"), fakes.calls("sacct")) == (1, 0)


def test_the_users_own_formats_do_not_reach_the_programs(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", RUNNING + "\n")
    slurm.observe(Question(job_ids=("7",)))
    seen = fakes.environment("squeue")
    assert "SQUEUE_FORMAT" not in seen
    assert (seen["SLURM_TIME_FORMAT"], seen["SLURM_BITSTR_LEN"], seen["TZ"]) == ("%s", "0", "UTC")


def test_any_number_of_jobs_costs_one_call_to_each_source(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", RUNNING + "\n" + TASK + "\n")
    fakes.make("sacct", ENDED + "\n")
    seen = slurm.observe(Question(job_ids=("7", "8", "9", "10")))
    assert seen.queue is not None
    assert seen.accounting is not None
    assert set(seen.queue) == {"7", "8"}
    assert seen.accounting["9"][0].exit_code == 7
    assert (fakes.calls("squeue"), fakes.calls("sacct")) == (1, 1)


def test_names_beside_ids_are_asked_for_apart_so_that_no_id_is_missed(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", "")
    fakes.make("sacct", ENDED + "\n")
    seen = slurm.observe(Question(job_ids=("9",), job_names=("run-d.1234",)))
    assert seen.accounting is not None
    assert set(seen.accounting) == {"9"}
    assert (fakes.calls("squeue"), fakes.calls("sacct")) == (1, 2)


def test_an_array_in_the_queue_is_looked_up_in_accounting_too(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", TASK + "\n")
    fakes.make("sacct", "")
    assert slurm.observe(Question(job_ids=("8",))).accounting == {}
    assert fakes.argv("sacct")[-1] == "--jobs=8"


def test_an_array_whose_tasks_all_live_is_settled_by_the_queue_alone(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", TASK + "\n")
    fakes.make("sacct", "")
    seen = slurm.observe(Question(job_ids=("8",), live_tasks={"8": 1}))
    assert (fakes.calls("squeue"), fakes.calls("sacct"), seen.accounting) == (1, 0, None)
    slurm.observe(Question(job_ids=("8",), live_tasks={"8": 2}))  # one of them has ended
    assert fakes.calls("sacct") == 1


def test_jobs_are_found_by_name_and_others_of_the_user_left_out(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", RUNNING + "\n" + TASK + "\n")
    fakes.make("sacct", ENDED + "\n")
    since = datetime(2026, 11, 21, tzinfo=timezone.utc)
    seen = slurm.observe(Question(job_names=("run-b.1234",), since=since))
    assert seen.queue is not None
    assert set(seen.queue) == {"8"}
    assert seen.accounting == {}
    assert fakes.argv("sacct")[-2:] == ["--starttime=2026-11-20T23:55:00", "--name=run-b.1234"]


def test_queue_and_accounting_are_asked_side_by_side(fakes: Fakes):
    awaits = "while [ ! -e {}/{}.calls ]; do sleep 0.01; done"
    fakes.make("squeue", RUNNING + "\n", before=awaits.format(fakes.folder, "sacct"))
    fakes.make("sacct", ENDED + "\n", before=awaits.format(fakes.folder, "squeue"))
    seen = scheduler(fakes, head_start=0.0).observe(Question(job_ids=("7", "9")))
    assert seen.queue is not None
    assert seen.accounting is not None
    assert (list(seen.queue), list(seen.accounting)) == (["7"], ["9"])


def test_silence_is_never_absence(fakes: Fakes):
    fakes.make("squeue", before=FROZEN)
    fakes.make("sacct", before=FROZEN)
    seen = scheduler(fakes, queue=1.0, accounting=1.0, head_start=0.0).observe(Question(job_ids=("7",)))
    assert (seen.queue, seen.accounting) == (None, None)
    assert seen.troubles == ("squeue gave no answer within 1 s", "sacct gave no answer within 1 s")


def test_frozen_accounting_is_left_alone_for_a_minute(fakes: Fakes, tmp_path: Path):
    silence = tmp_path / "silent"
    slurm = scheduler(fakes, silence)
    fakes.make("squeue", "")
    fakes.make("sacct", before=FROZEN)
    assert scheduler(fakes, silence, accounting=1.0).observe(Question(job_ids=("9",))).accounting is None
    calls = fakes.calls("sacct")
    fakes.make("sacct", ENDED + "\n")
    second = slurm.observe(Question(job_ids=("9",)))
    assert fakes.calls("sacct") == calls
    assert second.accounting is None
    assert "asked again in a minute" in second.troubles[0]
    assert slurm.used("9") == ()

    os.utime(silence, (time.time() - 61, time.time() - 61))
    third = slurm.observe(Question(job_ids=("9",)))
    assert third.accounting is not None
    assert third.accounting["9"][0].state is JobState.FAILED
    assert not silence.exists()


def test_a_silence_that_cannot_be_noted_is_no_error(fakes: Fakes):
    slurm = scheduler(fakes, Path("/proc/nowhere/silent"), accounting=1.0)
    fakes.make("squeue", "")
    fakes.make("sacct", before=FROZEN)
    assert slurm.observe(Question(job_ids=("9",))).accounting is None


def test_a_site_without_accounting_has_nothing_more_to_say(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue", "")
    fakes.make("sacct", stderr="Slurm accounting storage is disabled\n", status=1)
    seen = slurm.observe(Question(job_ids=("9",)))
    assert (seen.queue, seen.accounting, seen.troubles) == ({}, {}, ())


@pytest.mark.parametrize("status", [0, 1])
def test_a_dead_database_is_silence_whatever_sacct_exits_with(slurm: SlurmScheduler, fakes: Fakes, status: int):
    fakes.make("squeue", "")
    fakes.make("sacct", stderr="sacct: error: Problem talking to the database: Connection refused\n", status=status)
    seen = slurm.observe(Question(job_ids=("9",)))
    assert seen.accounting is None
    assert "Connection refused" in seen.troubles[0]


def test_a_dead_controller_leaves_accounting_to_answer(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make(
        "squeue", stderr="slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", status=1
    )
    fakes.make("sacct", ENDED + "\n")
    seen = slurm.observe(Question(job_ids=("9",)))
    assert seen.queue is None
    assert seen.accounting is not None
    assert "Unable to contact" in seen.troubles[0]


def test_missing_programs_are_troubles_and_no_exception(fakes: Fakes):
    bare = SlurmScheduler({"PATH": str(fakes.bin)}, "me", timeouts=PATIENT)
    seen = bare.observe(Question(job_ids=("9",)))
    assert (seen.queue, seen.accounting) == (None, None)
    assert len(seen.troubles) == 2


def row(job_id: int, state: str, name: str) -> str:
    return f"{job_id}\x1f{state}\x1fNone\x1f10\x1f20\x1fN/A\x1f4\x1fn1\x1f{name}"


def clusters(fakes: Fakes, program: str, **rows: str) -> None:
    """Make squeue or sacct answer for each cluster; without a header neither says which (22.05.8, 24.11.5)."""
    cases = "".join(f"*' --clusters={name} '*) printf '%s\n' {shlex.quote(text)} ;;\n" for name, text in rows.items())
    fakes.make(
        program,
        before=f"""case " $* " in
            *--clusters=gone*) echo '{program}: error: connect failure to slurmctld' >&2; exit 1 ;;
            {cases}
            *--clusters=*) echo "{program}: error: no such cluster" >&2; exit 1 ;;
            *) printf '%s\n' {shlex.quote(row(7, "PENDING", "run-here.1234"))} ;;
        esac; exit""",
    )


@pytest.mark.parametrize("name", ["box", "big", "other-1"])
def test_jobs_of_a_named_cluster_are_asked_for_there(slurm: SlurmScheduler, fakes: Fakes, name: str):
    clusters(fakes, "squeue", **{name: RUNNING})
    seen = slurm.observe(Question(job_ids=(f"7;{name}",)))
    assert seen.queue is not None
    assert list(seen.queue) == [f"7;{name}"]
    assert seen.accounting is None


def test_the_same_number_on_several_clusters_is_several_jobs(slurm: SlurmScheduler, fakes: Fakes):
    clusters(fakes, "squeue", big=RUNNING, small=row(7, "COMPLETING", "run-s.1234"))
    seen = slurm.observe(Question(job_ids=("7", "7;big"), ended_ids=("7;small",)))
    assert seen.queue is not None
    assert {job_id: one.raw_state for job_id, (one,) in seen.queue.items()} == {
        "7": "PENDING", "7;big": "RUNNING", "7;small": "COMPLETING",
    }  # fmt: skip
    assert fakes.calls("squeue") == 3


@pytest.mark.parametrize("there", [("7;big",), ("7",), ("7", "7;big")])
def test_a_cluster_that_does_not_answer_is_silent_about_its_own_jobs_alone(
    slurm: SlurmScheduler, fakes: Fakes, there: tuple[str, ...]
):
    for program in ("squeue", "sacct"):
        clusters(fakes, program, big=RUNNING)
    seen = slurm.observe(Question(job_ids=(*there, "9;gone")))
    assert seen.queue is not None
    assert set(seen.queue) == set(there)
    assert (seen.queue_answers("gone"), seen.accounting_answers("gone")) == (False, False)
    assert seen.queue_answers(*map(cluster_of, there))
    assert all("cluster gone" in trouble for trouble in seen.troubles)


def test_no_cluster_that_answers_is_silence(slurm: SlurmScheduler, fakes: Fakes):
    for program in ("squeue", "sacct"):
        clusters(fakes, program)
    seen = slurm.observe(Question(job_ids=("9;gone", "9;unheard-of")))
    assert (seen.queue, seen.accounting) == (None, None)


@pytest.mark.parametrize("program", ["squeue", "sacct"])
def test_a_job_without_an_answer_is_looked_for_where_it_may_be(slurm: SlurmScheduler, fakes: Fakes, program: str):
    book = "9\x1fFAILED\x1fNone\x1f10\x1f20\x1f30\x1f4\x1fn1\x1f7:0\x1fbig\x1frun-c.1234"
    clusters(fakes, "squeue", big=row(9, "PENDING", "run-c.1234") if program == "squeue" else "", small="")
    clusters(fakes, "sacct", big=book if program == "sacct" else "", small="")
    seen = slurm.observe(Question(job_names=("run-c.1234",), name_clusters=("small", "big")))
    assert find_by_name("run-c.1234", seen.queue, seen.accounting) == ("9;big",)
    asked = slurm.observe(Question(job_names=("run-c.1234",), name_clusters=("gone", "small")))
    assert not asked.queue_answers("gone", "small")


def test_all_clusters_are_asked_by_their_names_and_are_silent_where_those_cannot_be_had(
    slurm: SlurmScheduler, fakes: Fakes
):
    fakes.make("sacctmgr", "big\nsmall\n")
    clusters(fakes, "squeue", big="", small=row(9, "PENDING", "run-c.1234"))
    clusters(fakes, "sacct", big="", small="")
    question = Question(job_names=("run-c.1234",), name_clusters=("all",))
    seen = slurm.observe(question)
    assert find_by_name("run-c.1234", seen.queue) == ("9;small",)
    assert seen.queue_answers("all")
    fakes.make("sacctmgr", "big\ngone\n")
    assert not slurm.observe(question).queue_answers("all")
    fakes.make("sacctmgr", status=1)
    assert slurm.observe(question).queue is None


@pytest.mark.parametrize(
    ("environ", "raw", "meant"),
    [
        ({}, (), ()),
        ({"SBATCH_CLUSTERS": "box"}, (), ("box",)),
        ({"SLURM_CLUSTERS": "Box"}, (), ("box",)),
        ({"SBATCH_CLUSTERS": "a,b", "SLURM_CLUSTERS": "c"}, (), ("a", "b")),
        ({"SBATCH_CLUSTERS": "", "SLURM_CLUSTERS": " c ,"}, (), ("c",)),
        ({"SBATCH_CLUSTERS": "a"}, ("--nice=10", "--clusters=d"), ("d",)),
        ({"SBATCH_CLUSTERS": ","}, ("--cluster=d,e",), ("d", "e")),
    ],
)
def test_which_clusters_are_meant_is_settled_once(
    environ: dict[str, str], raw: tuple[str, ...], meant: tuple[str, ...]
):
    assert clusters_meant(environ, raw) == meant


@pytest.mark.parametrize("named", [(), ("box",), ("a", "b")])
def test_whatever_tells_where_the_controller_is_is_the_same_for_every_command(
    fakes: Fakes, submission: Submission, named: tuple[str, ...]
):
    told = {name: f"the {name}" for name in CONTROLLER_VARIABLES}
    environ = {"PATH": fakes.path, **told, "SBATCH_CLUSTERS": "x", "SLURM_CLUSTERS": "y", "SLURM_WORKING_CLUSTER": "z"}
    for program in ("sbatch", "squeue", "sacct", "scancel"):
        fakes.make(program, "4711;box\n" if program == "sbatch" else "")
    slurm = SlurmScheduler(environ, "me", timeouts=PATIENT)
    sent = replace(submission, environment=job_environment({**environ, "SLURM_JOB_ID": "1"}), clusters=named)
    assert slurm.submit(sent).job_id == "4711;box"
    slurm.observe(Question(job_ids=("4711;box",)))
    slurm.cancel(["4711;box"])
    assert fakes.argv("sbatch")[1:-1] == ([f"--clusters={','.join(named)}"] if named else [])
    for program in ("sbatch", "squeue", "sacct", "scancel"):
        seen = fakes.environment(program)
        assert {name: text for name, text in seen.items() if name in told} == told
        assert not {"SBATCH_CLUSTERS", "SLURM_CLUSTERS", "SLURM_WORKING_CLUSTER"} & set(seen)
        if program != "sbatch":
            assert "--clusters=box" in fakes.argv(program)


def test_an_id_that_a_wrapper_cut_off_its_cluster_gets_it_back(
    slurm: SlurmScheduler, fakes: Fakes, submission: Submission
):
    fakes.make("sbatch", "4711\n")
    for named, job_id in ((("box",), "4711;box"), (("a", "b"), "4711"), (("all",), "4711"), ((), "4711")):
        assert slurm.submit(replace(submission, clusters=named)).job_id == job_id


def test_nothing_asked_calls_nothing(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("squeue")
    assert slurm.observe(Question()).queue == {}
    assert fakes.calls("squeue") == 0


def test_jobs_and_tasks_are_cancelled_in_one_call_per_cluster(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("scancel")
    slurm.cancel(["7", "8_3"])
    assert fakes.argv("scancel") == ["--quiet", "7", "8_3"]
    slurm.cancel(["7;big"])
    assert fakes.argv("scancel") == ["--quiet", "--clusters=big", "7"]
    slurm.cancel([])
    assert fakes.calls("scancel") == 2


def test_what_is_gone_already_is_cancelled_enough(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("scancel", stderr="scancel: error: Kill job error on job id 7: Invalid job id specified\n", status=1)
    slurm.cancel(["7"])
    assert fakes.calls("scancel") == 1


def test_a_cancellation_that_failed_is_said(slurm: SlurmScheduler, fakes: Fakes):
    fakes.make("scancel", stderr="scancel: error: Kill job error on job id 7: Access/permission denied\n", status=1)
    with pytest.raises(SiteError, match="permission denied"):
        slurm.cancel(["7"])


def test_a_cancellation_without_answer_may_be_tried_again(fakes: Fakes):
    fakes.make("scancel", before=FROZEN)
    with pytest.raises(SiteError, match="no answer") as caught:
        scheduler(fakes, cancel=1.0).cancel(["7"])
    assert caught.value.transient


def test_usage_comes_from_accounting_or_not_at_all(slurm: SlurmScheduler, fakes: Fakes):
    given = "billing=2,cpu=2,gres/gpu=1,mem=4G,node=1"
    row = f"7_3\x1f100\x1f01:30.500\x1f2\x1f{given}\x1f\x1f\x1f1\x1f\x1fCOMPLETED\x1f10\x1frun-a\n"
    fakes.make("sacct", row)
    (used,) = slurm.used("7_3")
    assert (used.task, used.cpu_seconds, used.gpus, used.memory_mib) == (3, 90.5, 1, 4096)
    fakes.make("sacct", status=1)
    assert slurm.used("7_3") == ()
