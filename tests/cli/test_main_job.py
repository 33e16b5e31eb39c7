"""The real command with fake Slurm programs: what it answers, with which exit code, and what it sends."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.programs import CommandLine


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


@pytest.fixture
def sent(deephpc: CommandLine) -> str:
    """Submit a run that waits in the queue, and return its id."""
    return deephpc("run", "--time", "10", "--", "echo", "hi").stdout.strip()


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def is_one_line_with_a_hint(stderr: str) -> bool:
    lines = stderr.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("  hint: ")


# --- submitting ---


def test_a_run_prints_its_id_and_nothing_else(deephpc: CommandLine):
    done = deephpc("run", "--name", "hello", "--time", "10", "--", "echo", "it's", "$(x)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("run-hello-")
    folder = deephpc.home / "work" / done.stdout.strip()
    assert (deephpc.slurm / "sbatch.argv").read_text() == "--parsable job.sh\n"
    assert json.loads((folder / "plan.json").read_text())["spec"]["command"] == ["echo", "it's", "$(x)"]


def test_what_the_shell_has_and_the_job_has_not_is_told_once_and_can_be_passed(deephpc: CommandLine):
    words = ("run", "--time", "10", "--", "env")
    shell = {"WANDB_API_KEY": "hunter2", "HF_HOME": "/scratch/hf", "MINE": "x"}
    told = deephpc(*words, **shell)
    assert told.stderr == (
        "note: HF_HOME, WANDB_API_KEY are set here and not in the job: "
        "--env NAME for one run, pass_env in config.toml for all\n"
    )
    named = deephpc(*words[:1], "--env", "WANDB_API_KEY", "--env", "HF_HOME", *words[1:], **shell)
    assert named.stderr == ""
    (deephpc.home / "config.toml").write_text('pass_env = ["WANDB_*", "!HF_*"]\n')
    passed = deephpc("--config", str(deephpc.home / "config.toml"), *words, **shell)
    assert passed.stderr == ""
    folder = deephpc.home / "work" / passed.stdout.strip()
    assert "WANDB_API_KEY" in (folder / "secrets" / "env.sh").read_text()
    assert "HF_HOME" not in (folder / "secrets" / "env.sh").read_text()
    assert "hunter2" not in (folder / "job.sh").read_text() + (folder / "plan.json").read_text()


@pytest.mark.parametrize("words", [("train", "t.py", "--epochs", "3"), ("run", "--lr=1", "--", "true")])
def test_an_option_of_the_programs_own_before_the_dashes_is_told_where_it_belongs(
    deephpc: CommandLine, words: tuple[str, ...]
):
    told = deephpc(*words)
    assert told.returncode == 2
    assert "goes behind `--`; see `deephpc" in told.stderr
    assert "behind" not in deephpc("jobs", "list", "--epochs", "3").stderr


def test_a_run_in_place_of_a_module_is_told_with_what_predicts(deephpc: CommandLine, sent: str):
    told = deephpc("predict", sent, "--input", "image=a.png")
    assert told.returncode == 2
    assert is_one_line_with_a_hint(told.stderr)
    assert f"{sent} is a run" in told.stderr
    assert f"--models {sent}" in told.stderr


def test_the_dry_run_sends_nothing_writes_nothing_and_shows_the_real_script(deephpc: CommandLine):
    words = ("run", "--time", "10", "--env", "KEY=hunter2", "--", "echo", "a\nb")
    before = everything(deephpc.home)
    shown = deephpc("--json", *words[:1], "--dry-run", *words[1:])
    assert shown.returncode == 0, shown.stderr
    assert everything(deephpc.home) == before
    answer = json.loads(shown.stdout)
    run_id = deephpc(*words).stdout.strip()
    assert answer["schema"] == "deephpc.dry-run/1"
    assert answer["script"] == (deephpc.home / "work" / run_id / "job.sh").read_text()
    assert "hunter2" not in shown.stdout


def test_waiting_shows_the_output_and_ends_as_the_run_does(deephpc: CommandLine):
    (deephpc.slurm / "run-at-once").touch()
    done = deephpc("run", "--time", "10", "--wait", "--", "bash", "-c", "echo hello from the job")
    assert done.returncode == 0, done.stderr
    assert "hello from the job" in done.stderr
    assert done.stdout.count("\n") == 1
    failed = deephpc("run", "--time", "10", "--wait", "--", "bash", "-c", "exit 7")
    assert failed.returncode == 6
    assert "FAILED, exit code 7" in failed.stderr
    assert f"hint: deephpc why {failed.stdout.strip()}" in failed.stderr


def test_a_training_reaches_its_program_untouched(deephpc: CommandLine):
    (deephpc.home / "train.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))\n")
    (deephpc.slurm / "run-at-once").touch()
    done = deephpc("train", "train.py", "--time", "5", "--", "--json", "--time", "x y", "-h", "é", "")
    log = deephpc("logs", done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert json.loads(log.stdout.splitlines()[-1]) == ["--json", "--time", "x y", "-h", "é", ""]


def test_a_refused_job_is_the_users_to_mend_and_keeps_its_script(deephpc: CommandLine):
    (deephpc.slurm / "refuse").write_text(
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    done = deephpc("run", "--time", "10", "--", "true")
    assert done.returncode == 2
    assert is_one_line_with_a_hint(done.stderr)
    assert "Invalid partition name specified" in done.stderr
    assert len(list((deephpc.home / "work").glob("*/job.sh"))) == 1
    (job,) = json.loads(deephpc("jobs", "--json").stdout)["jobs"]
    assert (job["state"], job["raw_state"]) == ("FAILED", "REFUSED")


@pytest.mark.parametrize(
    "words",
    [
        ("sbatch: GPU jobs go to partition short; yours was moved there",),
        ("sbatch: INFO: account proj1 has 120 core-hours left until 31 December", "sbatch: INFO: it ends \x1b[1msoon"),
        ("Guten Tag, é", "sbatch: Warning: can't run 2 processes on 3 nodes, setting nnodes to 2"),
    ],
)
def test_what_the_site_says_as_it_takes_a_job_is_told_and_kept(deephpc: CommandLine, words: tuple[str, ...]):
    (deephpc.slurm / "say").write_text("".join(f"{word}\n" for word in words))
    done = deephpc("run", "--time", "10", "--", "true")
    said = [word.removeprefix("sbatch: ") for word in words]
    shown = [word.replace("\x1b", "\\x1b") for word in said]
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"note: the site says: {word}" for word in shown]
    (deephpc.home / "state" / "deephpc.db").unlink()
    deephpc("jobs", "rebuild")
    run_id = done.stdout.strip()
    assert "the site says\n" + "".join(f"  {word}\n" for word in shown) in deephpc("jobs", "show", run_id).stdout
    assert json.loads(deephpc("--json", "jobs", "show", run_id).stdout)["said"] == said


def test_a_lost_answer_is_one_job_all_the_same(deephpc: CommandLine):
    (deephpc.slurm / "lose-the-answer").touch()
    done = deephpc("run", "--time", "10", "--", "true")
    assert done.returncode == 0, done.stderr
    assert deephpc.calls("sbatch") == 1
    (job,) = json.loads(deephpc("--json", "jobs").stdout)["jobs"]
    assert (job["run_id"], job["job_id"], job["state"]) == (done.stdout.strip(), "1", "PENDING")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "no command was given"),
        (("run", "--time", "soon", "--", "true"), "--time: "),
        (("run", "--name", "a b", "--", "true"), "'a b' cannot name a run"),
        (("run", "--gpus-per-node", "many", "--", "true"), "'many' is not a number of GPUs"),
        (("run", "--nodes", "0", "--", "true"), "--nodes 0"),
        (("run", "--env", "SLURM_X=1", "--", "true"), "SLURM_X is not yours to set"),
        (("run", "--env", "A-B=1", "--", "true"), "'A-B' is not a variable's name"),
        (("run", "--sbatch", "--output=x", "--", "true"), "--output is set by deephpc"),
        (("run", "--mail-type", "END", "--", "true"), "not whom to write to"),
        (("run", "--dependency", "afterok:nothing", "--", "true"), "no run named 'nothing'"),
        (("run", "--array", "9-0", "--", "true"), "--array: "),
        (("run", "--venv", "nowhere", "--", "true"), "is not a Python virtual environment"),
        (("run", "--nonsense", "--", "true"), "--nonsense"),
        (("train", "nothing.py"), "'nothing.py' is neither a Python file nor"),
        (("trane",), "trane"),
        (("jobs", "show", "nothing"), "no run named 'nothing'"),
        (("jobs", "--state", "GREAT"), "'GREAT' is not a state"),
        (("jobs", "--since", "x"), "--since: "),
        (("logs", "nothing"), "no run named 'nothing'"),
        (("why", "nothing"), "no run named 'nothing'"),
        (("--site", "atlantis", "jobs"), "atlantis"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_input_at_fault_is_one_line_that_names_it(deephpc: CommandLine, words: tuple[str, ...], message: str):
    done = deephpc(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[0]
    assert is_one_line_with_a_hint(done.stderr)
    assert deephpc.calls("sbatch") == 0
    assert not (deephpc.home / "work").exists()


def test_a_site_without_its_scheduler_is_the_sites_fault(deephpc: CommandLine):
    done = deephpc("run", "--time", "10", "--", "true", PATH="/usr/bin:/bin")
    assert done.returncode == 3
    assert is_one_line_with_a_hint(done.stderr)


def test_a_work_dir_that_cannot_be_written_is_the_sites_fault_and_leaves_nothing(deephpc: CommandLine):
    (deephpc.home / "work").write_text("a file")
    done = deephpc("run", "--time", "10", "--", "true")
    assert done.returncode == 3
    assert is_one_line_with_a_hint(done.stderr)
    assert deephpc.calls("sbatch") == 0
    assert json.loads(deephpc("jobs", "--json").stdout)["jobs"] == []


def test_a_damaged_record_is_one_line(deephpc: CommandLine):
    (deephpc.home / "state").mkdir()
    (deephpc.home / "state" / "deephpc.db").write_text("no database at all, but long enough to be taken for one")
    done = deephpc("jobs")
    assert done.returncode == 3
    assert is_one_line_with_a_hint(done.stderr)


def test_secrets_are_in_one_file_alone(deephpc: CommandLine):
    done = deephpc("run", "--time", "10", "--env", "KEY", "--", "true", KEY="hunter2")
    assert done.returncode == 0, done.stderr
    holders = [path for path in deephpc.home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert holders == [deephpc.home / "work" / done.stdout.strip() / "secrets" / "env.sh"]


# --- the record ---


def test_the_list_is_for_people_or_programs(deephpc: CommandLine, sent: str):
    for words in (("jobs",), ("jobs", "list")):
        assert sent in deephpc(*words).stdout
    answer = json.loads(deephpc("jobs", "--json").stdout)
    assert answer["schema"] == "deephpc.jobs/1"
    assert answer["jobs"][0]["state"] == "PENDING"
    assert json.loads(deephpc("--json", "jobs", "--state", "failed").stdout)["jobs"] == []


@pytest.mark.parametrize(
    "variables", [{"USER": "nobody"}, {"LOGNAME": "daemon"}, {"USER": "", "LOGNAME": ""}, {"USER": "no one at all"}]
)
def test_a_run_is_found_whatever_variables_say_of_the_account(
    deephpc: CommandLine, sent: str, variables: dict[str, str]
):
    listed = json.loads(deephpc("--json", "jobs", **variables).stdout)["jobs"]
    assert [(job["run_id"], job["state"], job["reason"], job["source"]) for job in listed] == [
        (sent, "PENDING", "", "queue")
    ]


def test_many_runs_are_one_question(deephpc: CommandLine):
    for number in range(3):
        deephpc("run", "--time", "10", "--", "echo", str(number))
    assert len(json.loads(deephpc("--json", "jobs").stdout)["jobs"]) == 3
    assert deephpc.calls("squeue") == 1


def test_a_run_is_shown_explained_and_its_script_printed(deephpc: CommandLine, sent: str):
    assert sent in deephpc("jobs", "show", sent[:-1]).stdout
    assert json.loads(deephpc("--json", "jobs", "show", sent).stdout)["schema"] == "deephpc.job/1"
    assert json.loads(deephpc("why", sent, "--json").stdout)["state"] == "PENDING"
    assert deephpc("jobs", "script", sent).stdout == (deephpc.home / "work" / sent / "job.sh").read_text()
    assert deephpc("logs", sent).returncode == 2


def test_a_cancelled_run_is_told_as_such(deephpc: CommandLine, sent: str):
    done = deephpc("jobs", "cancel", sent)
    assert (done.returncode, done.stdout) == (0, f"{sent}: told to end\n")
    waited = deephpc("jobs", "wait", sent)
    assert waited.returncode == 6
    assert "CANCELLED" in waited.stderr


def test_a_rerun_is_a_new_run_of_the_same(deephpc: CommandLine, sent: str):
    again = deephpc("jobs", "rerun", sent).stdout.strip()
    plans = [json.loads((deephpc.home / "work" / run / "plan.json").read_text()) for run in (sent, again)]
    assert again != sent
    assert plans[0]["request"] == plans[1]["request"]


def test_tasks_of_an_array_are_run_again_waited_for_and_shown_alone(deephpc: CommandLine):
    array = deephpc("run", "--time", "10", "--array", "0-4%2", "--", "true").stdout.strip()
    for words, tasks in ((("_3",), [3]), (("_4", "_0"), [0, 4]), (("",), [0, 1, 2, 3, 4])):
        again = deephpc("jobs", "rerun", *(f"{array}{word}" for word in words))
        assert again.returncode == 0, again.stderr
        plan = json.loads((deephpc.home / "work" / again.stdout.strip() / "plan.json").read_text())
        assert plan["spec"]["array"] == {"tasks": tasks, "at_once": 2}
    assert "nothing of run" in deephpc("jobs", "rerun", array, "--failed").stderr
    shown = json.loads(deephpc("--json", "jobs", "show", f"{array}_3").stdout)
    assert (shown["job"]["run_id"], shown["task"]) == (f"{array}_3", 3)
    late = deephpc("jobs", "wait", f"{array}_3", "--timeout", "0:01")
    assert (late.returncode, f"not finished in time: {array}_3" in late.stderr) == (3, True)


def test_waiting_gives_up_in_time(deephpc: CommandLine, sent: str):
    done = deephpc("jobs", "wait", sent, "--timeout", "0:01")
    assert done.returncode == 3
    assert "not finished in time" in done.stderr


def test_a_deleted_record_is_rebuilt(deephpc: CommandLine, sent: str):
    before = json.loads(deephpc("--json", "jobs").stdout)["jobs"]
    (deephpc.home / "state" / "deephpc.db").unlink()
    assert deephpc("jobs", "rebuild").returncode == 0
    after = json.loads(deephpc("--json", "jobs").stdout)["jobs"]
    assert [_without_looks(job) for job in after] == [_without_looks(job) for job in before]
    assert before[0]["run_id"] == sent


def _without_looks(job: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in job.items() if name != "seen_at"}


def test_an_export_goes_to_a_file(deephpc: CommandLine, sent: str):
    assert deephpc("jobs", "export").stdout.splitlines()[0].startswith("run_id,kind,target")
    assert json.loads(deephpc("jobs", "export", "--format", "json").stdout)["jobs"][0]["run_id"] == sent
    assert json.loads(deephpc("jobs", "export", sent, "--format", "json").stdout)["metrics"] == {}


def test_a_reader_that_leaves_early_is_no_error(deephpc: CommandLine, sent: str):
    program = Path(sys.executable).with_name("deephpc")
    done = subprocess.run(["bash", "-c", f"'{program}' jobs script {sent} | true; echo ${{PIPESTATUS[0]}}"],
                          env=deephpc.environ(), capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- completion ---


def test_run_ids_complete(deephpc: CommandLine, sent: str):
    completed = deephpc(_DEEPHPC_COMPLETE="complete_bash", COMP_WORDS=f"deephpc logs {sent[:5]}", COMP_CWORD="2")
    assert completed.stdout.split() == [sent]
    assert completed.stderr == ""


@pytest.mark.parametrize("content", [None, b"", b"no database at all, whatever its name may say" * 10])
def test_completion_is_silent_about_what_is_wrong(deephpc: CommandLine, content: bytes | None):
    if content is not None:
        (deephpc.home / "state").mkdir()
        (deephpc.home / "state" / "deephpc.db").write_bytes(content)
    completed = deephpc(_DEEPHPC_COMPLETE="complete_bash", COMP_WORDS="deephpc logs tr", COMP_CWORD="2")
    assert (completed.stdout.strip(), completed.stderr) == ("", "")


def test_a_completion_reads_a_record_with_an_odd_path(deephpc: CommandLine):
    state = deephpc.home / "odd ?#% folder"
    state.mkdir()
    with closing(sqlite3.connect(state / "deephpc.db")) as connection, connection:
        connection.execute("create table jobs (run_id text, created_at text)")
        connection.execute("insert into jobs values ('train-x-0001', '')")
    completed = deephpc(_DEEPHPC_COMPLETE="complete_bash", COMP_WORDS="deephpc logs tr", COMP_CWORD="2",
                        DEEPHPC_STATE_DIR=str(state))  # fmt: skip
    assert completed.stdout.split() == ["train-x-0001"]


def test_a_list_says_what_it_leaves_out_and_when_nothing_matches(deephpc: CommandLine):
    assert "deephpc train --help" in deephpc("jobs").stdout
    for name in ("one", "two", "three"):
        assert deephpc("run", "--name", name, "--time", "10", "--", "true").returncode == 0
    for words in (("--state", "FAILED"), ("--text", "atlantis"), ("--kind", "train")):
        assert deephpc("jobs", *words).stdout == "no run matches; 3 recorded\n", words
    cut = deephpc("jobs", "-n", "2")
    assert (len(cut.stdout.splitlines()), cut.stderr) == (3, "2 of 3 runs; --limit 3 shows all\n")
    assert deephpc("jobs", "-n", "1", "--text", "run-t").stderr == "1 of 2 that match; --limit 2 shows all\n"
    assert deephpc("jobs").stderr == ""
    answer = json.loads(deephpc("--json", "jobs", "-n", "1", "--text", "run-t").stdout)
    assert (len(answer["jobs"]), answer["matching"], answer["recorded"]) == (1, 2, 3)
