"""The job script: its text, its quoting, and what the real script does under bash without any scheduler."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deephpc import __version__
from deephpc.jobs.evidence import load_attempts, load_result
from deephpc.jobs.run_folder import RunFolder, TaskFolder, read_json_lines
from deephpc.jobs.script import LONGEST_WORD_BYTES, quote_for_bash, render_script
from deephpc.jobs.slurm_options import Dialect, render_directives
from deephpc.jobs.spec import Array, Collection, Dependency, Environment, Gateway, JobSpec, Mail, Resources
from deephpc.jobs.state import JobState
from deephpc.places import shipped
from deephpc.workflows.source import COMMAND_FILES, render_command_files
from tests.fakes.samples import a_spec
from tests.fakes.waiting import DEADLINE_S, wait_until

GOLDEN = Path(__file__).parent.parent / "golden"
NASTY = ["", " ", "'", '"', "\\", "$(touch x)", "`touch x`", "a\nb", "a\r\nb", "\t",
         "\x01\x7f\x1b[31m", "é", "日本",
         "\u2028", "\ufeff", "!!", "~", "*", "-n", "--", "#", "a=b", "$'x'", "\\'", "${HOME}", "%s",
         "\N{PILE OF POO}"]  # fmt: skip
words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))
lists_of_words = st.lists(words | st.sampled_from(NASTY), max_size=8)


# --- the text ---


def plain_spec() -> JobSpec:
    folder = Path("/scratch/runs/run-simulate-1a2b")
    return a_spec(folder, "./simulate", "--steps", "100", workdir=Path("/home/me"),
                  resources=Resources(cpus_per_task=2, walltime=timedelta(minutes=10)))  # fmt: skip


def rich_spec() -> JobSpec:
    return a_spec(
        Path("/scratch/My Runs/train-digits-7f3a"),
        "python3", "/home/mé/it's here/train.py", "--name", 'a "b" $(c)\nd', "",
        kind="train", workdir=Path("/home/mé/it's here"), has_secrets=True, max_requeues=3,
        resources=Resources(nodes=2, tasks_per_node=1, cpus_per_task=8, gpus_per_node=4, gpu_type="a100",
                            memory_mib=65536, walltime=timedelta(hours=8), partition="gpu", account="proj1"),
        environment=Environment(modules=("GCC/12.3.0", "CUDA"), setup=("ulimit -c 0",), venv=Path("/home/mé/v env"),
                                variables={"NCCL_SOCKET_IFNAME": "ib0", "GREETING": "it's\na day"}),
        array=Array(tasks=(0, 1, 2, 7), at_once=2), grace=timedelta(minutes=2),
        dependencies=(Dependency(kind="afterok", job_ids=("4711", "4712")),), mail=Mail(address="me@example.org"),
        raw_options=("--reservation=course",),
    )  # fmt: skip


def endless_spec() -> JobSpec:
    return a_spec(Path("/scratch/runs/run-true-0000"), "true", workdir=Path("/"))


def server_spec(**changes: object) -> JobSpec:
    gateway = Gateway(python=Path("/home/me/my env/bin/python"))
    return a_spec(
        Path("/scratch/runs/serve-digits-91c2"), "python3", "/deephpc/bin/deepaas_serve.py", kind="serve",
        workdir=Path("/home/me"), **{"gateway": gateway, **changes},
    )  # fmt: skip


def collecting_spec() -> JobSpec:
    collection = Collection(python=Path("/home/me/my env/bin/python"), cache_dir=Path("/scratch/me/it's"))
    return a_spec(Path("/scratch/runs/run-true-0001"), "true", workdir=Path("/"), collection=collection)


ALL_SPECS = {
    "collecting": collecting_spec(),
    "plain": plain_spec(),
    "rich": rich_spec(),
    "no-walltime": endless_spec(),
    "server": server_spec(gateway=Gateway(python=Path("/usr/bin/python3"), port_variable="PORT")),
    "server-in-image": server_spec(in_container=True, node_scratch="$LOCAL_SCRATCH"),
}


@pytest.mark.parametrize("spec", ALL_SPECS.values(), ids=ALL_SPECS)
def test_a_script_is_as_the_golden_file_has_it(spec: JobSpec, request: pytest.FixtureRequest):
    """Set WRITE_GOLDEN=1 to write the files anew, then read the difference."""
    text = render_script(spec, render_directives(spec, Dialect())).replace(f"deephpc {__version__}", "deephpc VERSION")
    golden = GOLDEN / f"job-{request.node.callspec.id}.sh"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("spec", ALL_SPECS.values(), ids=ALL_SPECS)
def test_a_rendered_script_passes_shellcheck(spec: JobSpec, tmp_path: Path):
    script = tmp_path / "job.sh"
    script.write_text(render_script(spec, render_directives(spec, Dialect())), encoding="utf-8")
    beside_python = Path(sys.executable).with_name("shellcheck")
    program = str(beside_python) if beside_python.exists() else "shellcheck"
    done = subprocess.run([program, "--norc", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_a_word_longer_than_linux_allows_is_refused():
    with pytest.raises(ValueError, match="131072 bytes is longer than Linux allows"):
        render_script(a_spec(Path("/r"), "echo", "x" * (LONGEST_WORD_BYTES + 1)), ())


def test_a_script_longer_than_slurm_allows_is_refused():
    with pytest.raises(ValueError, match="at most 2 MiB"):
        render_script(a_spec(Path("/r"), *["x" * 100_000] * 22), ())


def test_a_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        render_script(a_spec(Path("/r"), "a\0b"), ())


# --- quoting ---


@given(lists_of_words)
@example(NASTY)
def test_quoted_words_come_out_of_bash_as_they_went_in(given_words: list[str]):
    quoted = [quote_for_bash(word) for word in given_words]
    assert not any(character in word for word in quoted for character in "\n\r\x1b\x85\u2028")
    program = "printf '%s\\0' " + " ".join(["x", *quoted])
    for locale in ("C", "C.UTF-8"):
        out = subprocess.run(["bash", "-c", program], stdout=subprocess.PIPE, check=True, env={"LC_ALL": locale}).stdout
        assert out.decode("utf-8").split("\0")[1:-1] == given_words


@given(words)
def test_an_exported_value_is_one_shell_word(word: str):
    assert quote_for_bash(word)
    assert "\n" not in quote_for_bash(word)


# --- the script at work ---


class Run:
    """One run folder and the real script in it, run by bash as a batch job would be."""

    def __init__(self, folder: Path, *command: str, **changes: object) -> None:
        folder.mkdir(mode=0o700)
        self.spec = a_spec(folder, *command, **changes)
        self.files = RunFolder(folder)
        self.files.script.write_text(render_script(self.spec, ()), encoding="utf-8")
        self.files.plan.write_text("{}")

    def start(self, *, job_id: str = "local-1", task: int | None = None, **more: str):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "DEEPHPC_"))}
        environ = {**kept, "DEEPHPC_LOCAL_JOB_ID": job_id, **more}
        if task is not None:
            environ["DEEPHPC_LOCAL_TASK_ID"] = str(task)
        return subprocess.Popen(
            ["bash", self.files.script], cwd=self.files.path, env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        )  # fmt: skip

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        out, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out

    def __call__(self, **facts) -> tuple[int, str]:
        return self.end(self.start(**facts))

    def events(self, task: int | None = None) -> list[str]:
        return [str(event["event"]) for event in read_json_lines(self.files.task(task).events)]

    def task(self, number: int | None = None) -> TaskFolder:
        return self.files.task(number)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    return lambda *command, **changes: Run(tmp_path / "run-a-0001", *command, **changes)


def test_a_program_that_succeeds_leaves_its_proof(make):
    run = make("echo", "hello")
    code, out = run()
    result = load_result(run.task())
    assert code == 0
    assert "attempt 1, job local-1" in out
    assert out.endswith("hello\n")
    assert result is not None
    assert (result.state, result.exit_code, result.signal, result.ended_by) == (JobState.COMPLETED, 0, None, "program")
    assert (result.run_id, result.job_id, result.attempt, result.task) == ("run-a-0001", "local-1", 1, None)
    assert result.started_at <= result.ended_at
    assert run.events() == ["started", "finished"]
    assert not list(run.files.path.glob(".*part"))


def test_a_program_that_fails_keeps_its_exit_code(make):
    run = make("bash", "-c", "exit 7")
    assert run()[0] == 7
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.exit_code, result.signal) == (JobState.FAILED, 7, None)
    (attempt,) = load_attempts(run.task())
    assert (attempt.state, attempt.exit_code) == (JobState.FAILED, 7)


def test_a_program_killed_by_a_signal_says_which(make):
    run = make("bash", "-c", "kill -SEGV $$")
    assert run()[0] == 139
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.exit_code, result.signal) == (JobState.FAILED, 139, signal.SIGSEGV)


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_a_node_without_deephpc_starts_no_server_and_says_so(make, python: str):
    run = make("touch", "started", gateway=Gateway(python=Path(python)))
    run()
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.FAILED, "setup")
    assert result.reason.startswith("deephpc is not on this node: ")
    assert python in result.reason
    assert not (run.files.path / "started").exists()


def test_what_a_killed_gateway_published_does_not_outlive_it(make, tmp_path: Path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/bash\n: >/dev/fd/9\ntouch endpoint.json certificate.pem\nkill -9 $$\n")
    killed.chmod(0o755)
    run = make("true", gateway=Gateway(python=killed), workdir=tmp_path / "run-a-0001")
    assert run()[0] == 137
    assert not [path.name for path in run.files.path.iterdir() if path.name in ("endpoint.json", "certificate.pem")]


def test_a_program_that_is_not_there_fails_with_the_shells_code(make):
    run = make("no-such-program")
    assert run()[0] == 127
    result = load_result(run.task())
    assert result is not None
    assert result.state is JobState.FAILED


def test_the_program_finds_what_it_was_promised(make, tmp_path: Path):
    program = 'env -0 > seen; ls -d "$DEEPHPC_OUTPUT_DIR" "$DEEPHPC_CHECKPOINT_DIR" "$DEEPHPC_DATA_DIR"; cat'
    run = make("bash", "-c", program, environment=Environment(variables={"GREETING": "it's\na day"}), has_secrets=True)
    run.files.secrets.mkdir()
    run.files.secret_env.write_text("export TOKEN='s e\ncret'\n")
    code, out = run()
    seen = dict(entry.split("=", 1) for entry in (tmp_path / "seen").read_text().split("\0") if entry)
    folder = str(run.files.path)
    assert code == 0, out
    assert seen["GREETING"] == "it's\na day"
    assert seen["TOKEN"] == "s e\ncret"
    assert (seen["DEEPHPC_RUN_ID"], seen["DEEPHPC_ATTEMPT"]) == ("run-a-0001", "1")
    assert seen["DEEPHPC_METRICS"] == f"{folder}/metrics.jsonl"
    assert seen["DEEPHPC_OUTPUT_DIR"] == f"{folder}/output"
    assert "TOKEN" not in run.files.script.read_text()


def test_the_users_words_reach_the_program_exactly_and_nothing_of_them_is_run(make, tmp_path: Path):
    show = "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))"
    run = make(sys.executable, "-c", show, *NASTY)
    code, out = run()
    assert code == 0, out
    assert json.loads((tmp_path / "seen").read_text()) == NASTY
    assert not (tmp_path / "x").exists()


def test_a_folder_with_every_odd_character_works(tmp_path: Path):
    home = tmp_path / 'it\'s a $(touch x) `touch x` "day"\né'
    home.mkdir()
    run = Run(home / "run-a-0001", "pwd")
    code, out = run()
    assert code == 0, out
    assert out.endswith(f"{home}\n")
    assert not list(tmp_path.rglob("x"))


LISTENER = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (print("told", flush=True), sys.exit(0)))
open("ready", "w").close()
time.sleep(600)
"""


def test_a_program_that_listens_is_told_before_the_limit(make, tmp_path: Path):
    run = make(sys.executable, "-c", LISTENER)
    process = run.start()
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    code, out = run.end(process)
    result = load_result(run.task())
    assert (code, out.splitlines()[-1]) == (0, "told")
    assert result is not None
    assert result.state is JobState.COMPLETED
    assert [event["told"] for event in read_json_lines(run.task().events) if event["event"] == "grace"] == [True]


def test_a_program_that_does_not_listen_is_not_killed_by_being_told(make, tmp_path: Path):
    run = make("bash", "-c", "touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 5")
    process = run.start()
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "grace" in run.events())
    (tmp_path / "go").touch()
    assert run.end(process)[0] == 5
    assert [event["told"] for event in read_json_lines(run.task().events) if event["event"] == "grace"] == [False]


def test_files_that_were_edited_while_the_job_waited_are_named(make, tmp_path: Path):
    for name in ("same.py", "edited ü.py", "removed.py"):
        (tmp_path / name).write_text("print(1)\n")
    (tmp_path / "huge.bin").write_bytes(bytes(17 * 1024 * 1024))
    run = make("cat", "same.py", "edited ü.py")
    words = ("cat", "same.py", "edited ü.py", "removed.py", "huge.bin", "no such", "a\0b", ".")
    kept = render_command_files(words, tmp_path)
    assert len(kept.splitlines()) == 3
    (run.files.path / COMMAND_FILES).write_text(kept)
    (tmp_path / "edited ü.py").write_text("print(2)\n")
    (tmp_path / "removed.py").unlink()
    code, out = run()
    assert code == 0
    assert out.count("was edited after this run was submitted") == 1
    assert f"{tmp_path}/edited ü.py was edited" in out
    ((edited,),) = (attempt.edited for attempt in load_attempts(run.task()))
    assert edited.replace("??", "?") == f"{tmp_path}/edited ?.py"  # one of each byte where the locale is C


def test_told_to_end_is_cancelled_and_the_program_is_told(make, tmp_path: Path):
    run = make("bash", "-c", "trap 'echo told; exit 3' TERM; touch ready; while :; do sleep 0.05; done")
    process = run.start()
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    code, out = run.end(process)
    result = load_result(run.task())
    assert (code, out.splitlines()[-1]) == (3, "told")
    assert result is not None
    assert (result.state, result.exit_code, result.ended_by) == (JobState.CANCELLED, 3, "signal")
    assert "terminated" in run.events()


def test_told_to_end_at_the_limit_is_a_timeout(make, tmp_path: Path):
    program = "touch ready; while :; do sleep 0.05; done"
    run = make("bash", "-c", program, resources=Resources(walltime=timedelta(seconds=1)))
    process = run.start()
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert run.end(process)[0] == 143
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.signal) == (JobState.TIMEOUT, signal.SIGTERM)


def test_told_to_end_before_the_program_started_is_cancelled(make, tmp_path: Path):
    setup = ("touch ready; while :; do sleep 0.05; done",)
    run = make("touch", "started", environment=Environment(setup=setup))
    process = run.start()
    wait_until((tmp_path / "run-a-0001" / "ready").exists)
    process.send_signal(signal.SIGUSR1)  # nobody to tell yet; it must not end the script
    wait_until(lambda: "grace" in run.events())
    process.terminate()
    assert run.end(process)[0] == 143
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.CANCELLED, "signal")
    assert not (tmp_path / "started").exists()


def test_an_end_that_comes_near_amid_the_set_up_ends_nothing_and_is_told_to_the_program(make, tmp_path: Path):
    setup = ("touch ready; while [ ! -e go ]; do sleep 0.05; done",)
    run = make(sys.executable, "-c", LISTENER, environment=Environment(setup=setup))
    process = run.start()
    wait_until((tmp_path / "run-a-0001" / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "grace" in run.events())
    (tmp_path / "run-a-0001" / "go").touch()
    code, out = run.end(process)
    assert (code, out.splitlines()[-1]) == (0, "told")
    assert [event["told"] for event in read_json_lines(run.task().events) if event["event"] == "grace"] == [False, True]


def test_killed_without_a_word_leaves_no_result_but_its_start(make, tmp_path: Path):
    run = make("bash", "-c", "touch ready; exec sleep 600")
    process = run.start()
    wait_until((tmp_path / "ready").exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # one that ended by itself
            os.kill(int(child), signal.SIGKILL)
    run.end(process)
    (attempt,) = load_attempts(run.task())
    assert load_result(run.task()) is None
    assert attempt.state is None


# --- exactly once ---


def test_a_second_job_in_the_same_folder_ends_without_doing_anything(make, tmp_path: Path):
    run = make("bash", "-c", "echo ran >> ran")
    run(job_id="4711")
    code, out = run(job_id="4712")
    assert code == 0
    assert "belongs to job 4711; this duplicate (job 4712) ends" in out
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert run.events() == ["started", "finished"]


def test_of_two_jobs_at_the_same_moment_one_runs(make, tmp_path: Path):
    run = make("bash", "-c", "echo ran >> ran")
    both = [run.start(job_id=f"47{number}") for number in range(2)]
    outs = [run.end(process) for process in both]
    assert [code for code, _ in outs] == [0, 0]
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_all_tasks_of_an_array_pass_the_claim_at_once(make):
    run = make("bash", "-c", "echo task $DEEPHPC_TASK_ID")
    tasks = [run.start(job_id="4711", task=number) for number in range(6)]
    outs = [run.end(process) for process in tasks]
    assert [out.splitlines()[-1] for _, out in outs] == [f"task {number}" for number in range(6)]
    results = [load_result(run.task(number)) for number in range(6)]
    assert [result.task for result in results if result] == list(range(6))


def test_slurms_own_variables_are_read(make):
    run = make("true")
    slurm = {
        "SLURM_JOB_ID": "4713",
        "SLURM_ARRAY_JOB_ID": "4711",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURMD_NODENAME": "n1",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_ON_NODE": "8",
    }
    assert run(**slurm)[0] == 0
    result = load_result(run.task(3))
    assert result is not None
    assert (result.job_id, result.task, result.attempt) == ("4711", 3, 1)
    assert (result.host, result.nodes, result.cpus) == ("n1", "n[1-2]", 8)


def test_a_requeued_job_keeps_the_result_of_its_earlier_life(make):
    run = make("bash", "-c", "exit $((DEEPHPC_ATTEMPT - 1))", max_requeues=1)
    assert run()[0] == 0
    assert run()[0] == 1
    result = load_result(run.task())
    assert result is not None
    assert (result.attempt, result.state) == (2, JobState.FAILED)
    assert json.loads((run.files.path / "attempts" / "result-1.json").read_text())["state"] == "COMPLETED"
    assert [attempt.number for attempt in load_attempts(run.task())] == [1, 2]


def test_more_restarts_than_allowed_fail_with_the_reason(make, tmp_path: Path):
    run = make("touch", "ran", max_requeues=1)
    run()
    run()
    (tmp_path / "ran").unlink()
    assert run()[0] == 1
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.FAILED, "setup")
    assert result.reason == "started 3 times, only 1 requeues are allowed (--max-requeues)"
    assert not (tmp_path / "ran").exists()


# --- what fails before the program ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"environment": Environment(venv=Path("/no such/venv"))}, "cannot activate /no such/venv"),
        ({"workdir": Path("/no/such/folder")}, "cannot enter /no/such/folder on"),
        ({"environment": Environment(modules=("No/Such",))}, "module load No/Such failed"),
        ({"has_secrets": True}, "cannot read the secret variables of this run"),
    ],
    ids=["venv", "workdir", "module", "secrets"],
)
def test_what_fails_before_the_program_is_told_as_such(make, changes: dict[str, object], reason: str):
    run = make("true", **changes)
    assert run()[0] == 1
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.FAILED, "setup")
    assert result.reason.startswith(reason)


#: What py-rattler 0.28.0 writes to activate the environment below (rattler.shell.activate), its variables left out.
RATTLER = """\
export PATH="{0}/bin:${{PATH}}"
export CONDA_SHLVL=1
export CONDA_PREFIX={0}
. {0}/etc/conda/activate.d/a.sh
. {0}/etc/conda/activate.d/gdal.sh
"""


def test_a_conda_environment_is_activated_as_rattler_does_it(make, tmp_path: Path):
    prefix = tmp_path / "env"
    for name, text in (
        ("conda-meta/history", ""),
        ("bin/activate", "exit 9  # conda's own, in its base environment\n"),
        ("etc/conda/activate.d/gdal.sh", 'export GDAL_DATA="$CONDA_PREFIX/share/gdal" ORDER="${ORDER:-}b"\n'),
        ("etc/conda/activate.d/a.sh", 'export AAA=1 ORDER="${ORDER:-}a"\n'),
        ("etc/conda/activate.d/a.fish", "not for us\n"),
    ):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
    show = 'for name in PATH CONDA_PREFIX CONDA_SHLVL GDAL_DATA AAA ORDER; do echo "$name=${!name}"; done'
    told = subprocess.run(
        ["bash", "-c", RATTLER.format(prefix) + show], capture_output=True, text=True, check=True
    ).stdout
    code, out = make("bash", "-c", show, environment=Environment(venv=prefix))()
    assert code == 0
    assert out.endswith(told)
    assert "ORDER=ab" in told


def test_a_setup_line_that_ends_the_script_is_a_failure(make):
    run = make("true", environment=Environment(setup=("exit 3",)))
    run()
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.ended_by) == (JobState.FAILED, "setup")


def test_a_full_disk_leaves_no_half_result(make):
    run = make("echo", "done")
    (run.files.path / ".result.json.part").symlink_to("/dev/full")
    code, out = run()
    assert code == 0
    assert "done" in out
    assert not run.task().result.exists()
    assert load_attempts(run.task())[0].state is JobState.COMPLETED


@pytest.mark.slow
def test_a_disk_too_full_for_the_claim_does_not_bar_the_next_life(make, tmp_path: Path):
    run = make("touch", "ran")
    run.files.claim.symlink_to("/dev/full")
    code, out = run()
    assert code == 73
    assert "cannot write in" in out
    assert run()[0] == 0
    assert (tmp_path / "ran").exists()


def test_any_text_in_a_reason_or_host_leaves_valid_json(make):
    run = make("true", workdir=Path('/no/"quotes\\ and\nlines\x01 $(x) é'))
    run(SLURMD_NODENAME='n"1\\', SLURM_JOB_ID="1")
    lines = run.task().events.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    result = load_result(run.task())
    assert result is not None
    assert "/no/?quotes? and?lines? $(x) ?" in result.reason


@pytest.mark.slow
def test_usage_is_sampled_while_the_program_runs(make):
    run = make("bash", "-c", 'while [ ! -s "$DEEPHPC_OUTPUT_DIR/../usage.jsonl" ]; do :; done')
    (run.files.path / "sample_usage.py").write_text((shipped("jobscripts") / "sample_usage.py").read_text())
    code, out = run()
    samples = list(read_json_lines(run.task().usage))
    result = load_result(run.task())
    assert code == 0, out
    assert samples[0]["rss_mib"] > 0
    assert samples[0]["cpu_s"] > 0
    assert result is not None
    assert result.cpu_s is not None
    assert result.cpu_s > 0.2


NAMES = ("command", "workdir", "here", "task", "host", "nodes", "attempt", "run_folder", "job_id", "absolute", "PATH")


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_of_the_users_never_reaches_the_script_itself(make, name: str):
    run = make("/bin/sh", "-c", f"echo =${name}=", has_secrets=True)
    run.files.secrets.mkdir(mode=0o700)
    run.files.secret_env.write_text(f"export {name}=/nowhere\n")
    code, out = run()
    result = load_result(run.task())
    assert (code, out.splitlines()[-1]) == (0, "=/nowhere=")
    assert result is not None
    assert (result.state, result.job_id, result.task) == (JobState.COMPLETED, "local-1", None)


@pytest.mark.parametrize("word", ["write_result", "event", "claim", "cd", "eval", "exit"])
def test_a_command_is_a_program_never_a_word_of_the_shell(make, word: str):
    run = make(word, "COMPLETED", "0", "null", "program", "")
    assert run()[0] == 127
    result = load_result(run.task())
    assert result is not None
    assert (result.state, result.exit_code) == (JobState.FAILED, 127)


def test_a_run_folder_that_was_emptied_runs_nothing(make):
    run = make("touch", "ran")
    run.files.plan.unlink()
    code, out = run()
    assert code == 73
    assert "removed or emptied" in out
    assert not (run.files.path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root: run the tests as root")
def test_a_run_folder_of_somebody_else_runs_nothing(make):
    run = make("touch", "ran")
    os.chown(run.files.path, 65534, 65534)
    code, out = run()
    assert code == 73
    assert "somebody else's" in out
    assert not (run.files.path / "ran").exists()
