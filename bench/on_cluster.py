"""The measurements that need Slurm; run on a login node of the test cluster with the venv deephpc is installed in.

Prints its rows as JSON on the last line.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import submitit

from bench.row import Row, cpu_ms, dump, pairs_ms
from deephpc.cli.context import Context, Globals
from deephpc.jobs.record import Record
from deephpc.jobs.spec import Array, Resources
from deephpc.workflows.launch import Asked, launch
from deephpc.workflows.request import JobOptions, load_run_request
from deephpc.workflows.watch import refresh

ROUNDS = 15
TASKS = 1000
MANY_SINGLES = 200
MANY_TASKS = 2800
_NUMBERS = itertools.count()


def main() -> None:
    """Run everything and print the rows."""
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=Path.home()))
    rows = []
    for measure in (submission, array, status):  # each with a record and a queue of its own
        places = {"DEEPHPC_STATE_DIR": str(home / measure.__name__), "DEEPHPC_WORK_DIR": str(home / "runs")}
        environ = {**os.environ, **places}
        here = Context(Globals(quiet=True), environ=environ)
        with here.open_record() as record:
            rows += measure(here, record, home)
        subprocess.run(["scancel", "--quiet", "-u", os.environ["USER"]], check=False)
    print(dump([*rows, *start_up(home)]))


def submit_once(here: Context, record: Record, array: Array | None = None) -> None:
    """Submit a held job as `deephpc run` would, inside this process."""
    options = JobOptions(
        resources=Resources(walltime="5"), array=array, raw_options=("--hold",), name=f"b{next(_NUMBERS)}"
    )
    asked = Asked(load_run_request(["true"], Path("/tmp"), options), {}, here.environ)
    launch(asked, here.settings, record, here.scheduler(), here.clock)


def submission(here: Context, record: Record, home: Path) -> list[Row]:
    """Submit one job: against sbatch itself, and against submitit."""
    script = home / "bare.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    argv = ["sbatch", "--parsable", "--hold", "--time=5", str(script)]
    submit_once(here, record)
    ours, bare = pairs_ms(
        lambda: submit_once(here, record),
        lambda: subprocess.run(argv, check=True, capture_output=True, cwd=home),
        ROUNDS,
    )
    executor = submitit.SlurmExecutor(folder=home / "submitit")
    executor.update_parameters(time=5, additional_parameters={"hold": True})
    again, peer = pairs_ms(lambda: submit_once(here, record), lambda: executor.submit(os.getpid), ROUNDS)
    return [
        Row("submit one job inside a running process", ours, "sbatch itself", bare, "sbatch + 15 ms"),
        Row("submit one job inside a running process", again, "submitit", peer, "faster"),
    ]


def array(here: Context, record: Record, home: Path) -> list[Row]:
    """Submit an array: it is one sbatch."""
    argv = ["sbatch", "--parsable", "--hold", "--time=5", f"--array=0-{TASKS - 1}", str(home / "bare.sh")]
    tasks = Array(tasks=tuple(range(TASKS)))
    ours, bare = pairs_ms(
        lambda: submit_once(here, record, tasks),
        lambda: subprocess.run(argv, check=True, capture_output=True, cwd=home),
        5,
    )
    return [Row(f"submit an array of {TASKS} tasks", ours, "one sbatch", bare, "one sbatch")]


def status(here: Context, record: Record, _home: Path) -> list[Row]:
    """Bring 3000 jobs up to date, against the squeue and sacct that must be called for it."""
    submit_once(here, record, Array(tasks=tuple(range(MANY_TASKS))))
    for _ in range(MANY_SINGLES):
        submit_once(here, record)
    squeue = [
        "squeue",
        "--array",  # a line for each task, as ours tells the state of each
        "--noheader",
        "--user",
        os.environ["USER"],
        "--states=all",
        "--format=%i %T %j %r %V %S %e %N %C",
    ]
    sacct = [
        "sacct",
        "-X",
        "-P",
        "-n",
        "--user",
        os.environ["USER"],
        "-o",
        "JobID,JobName,State,ExitCode,Submit,Start,End,NodeList,AllocCPUS",
    ]

    def peers() -> None:
        subprocess.run(squeue, check=True, capture_output=True)
        subprocess.run(sacct, check=True, capture_output=True)

    def ours() -> None:
        refresh(record, here.schedulers, datetime.now(timezone.utc))

    ours()
    mine, theirs = pairs_ms(ours, peers, 5)
    return [Row("status of 3000 jobs (an array and singles)", mine, "squeue + sacct", theirs, "≤ 1.5")]


def start_up(home: Path) -> list[Row]:
    """CPU time of whole processes: --help and jobs, against a bare Typer program and an import of submitit."""
    hello = home / "hello.py"
    hello.write_text(
        "import typer\napp = typer.Typer()\n@app.command()\ndef hello(name: str = 'x'): print(name)\napp()\n"
    )
    typer_ms = cpu_ms([sys.executable, str(hello), "--help"], 9)
    submitit_ms = cpu_ms([sys.executable, "-c", "import submitit"], 9)
    program = str(Path(sys.executable).with_name("deephpc"))
    os.environ["DEEPHPC_STATE_DIR"] = str(home / "fresh")
    help_ms, jobs_ms = cpu_ms([program, "--help"], 9), cpu_ms([program, "jobs"], 9)
    return [
        Row("CPU time of `deephpc --help`", help_ms, "a Typer hello --help", typer_ms, "< 1"),
        Row("CPU time of `deephpc jobs`, no jobs", jobs_ms, "a Typer hello --help", typer_ms),
        Row("CPU time of `deephpc --help`", help_ms, "import submitit", submitit_ms),
        Row("CPU time of `deephpc jobs`, no jobs", jobs_ms, "import submitit", submitit_ms),
    ]


if __name__ == "__main__":
    main()
