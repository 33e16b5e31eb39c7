"""The measurements that need Slurm; run on a login node of the test cluster with the venv deephpc is installed in.

Prints its rows as JSON on the last line.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import submitit

from bench.row import Row, cost_of, dump, first_try, paired_costs, pairs_ms, wall_ms
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


def against(what: str, ours: Callable[[], object], peer: str, words: Sequence[str], bar: str, rounds: int) -> Row:
    """Compare what we do inside this process with a command, unless the command stumbles at its first try."""
    stumbled = first_try(words)
    if stumbled:
        return Row(what, wall_ms(ours, rounds), peer, 0.0, bar, stumbled=stumbled)
    our_ms, peer_ms = pairs_ms(ours, lambda: subprocess.run(words, check=True, capture_output=True), rounds)
    return Row(what, our_ms, peer, peer_ms, bar)


def submission(here: Context, record: Record, home: Path) -> list[Row]:
    """Submit one job: against sbatch itself, and against submitit."""
    submit_once(here, record)
    what = "submit one job inside a running process"
    executor = submitit.SlurmExecutor(folder=home / "submitit")
    executor.update_parameters(time=5, additional_parameters={"hold": True})
    ours = partial(submit_once, here, record)
    bare = against(what, ours, "sbatch itself", held(home), "sbatch + 8 ms", ROUNDS)
    stumbled = first_submit(executor)
    again, peer = pairs_ms(ours, (lambda: None) if stumbled else (lambda: executor.submit(os.getpid)), ROUNDS)
    return [bare, Row(what, again, "submitit", peer, "faster", stumbled=stumbled)]


def first_submit(executor: submitit.SlurmExecutor) -> str:
    """Submit by submitit once, and return how it stumbled."""
    try:
        job_id = str(executor.submit(os.getpid).job_id)
    except (OSError, RuntimeError) as error:
        return str(error)
    return "" if job_id.isdecimal() else f"its job's id is {job_id!r}"


def held(home: Path, *options: str) -> list[str]:
    """Write a script that does nothing, and return the words that submit it to wait."""
    script = home / "bare.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    return ["sbatch", "--parsable", "--hold", "--time=5", f"--chdir={home}", *options, str(script)]


def array(here: Context, record: Record, home: Path) -> list[Row]:
    """Submit an array: it is one sbatch."""
    tasks = Array(tasks=tuple(range(TASKS)))
    words = held(home, f"--array=0-{TASKS - 1}")
    what = f"submit an array of {TASKS} tasks"
    return [against(what, lambda: submit_once(here, record, tasks), "one sbatch", words, "one sbatch + 8 ms", 5)]


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
    stumbled = first_try(squeue) or first_try(sacct)
    mine, theirs = (wall_ms(ours, 5), 0.0) if stumbled else pairs_ms(ours, peers, 5)
    what = "status of 3000 jobs (an array and singles)"
    return [Row(what, mine, "squeue + sacct", theirs, "≤ 1.1", stumbled=stumbled)]


def start_up(home: Path) -> list[Row]:
    """CPU time of whole processes: --help and jobs, against a bare Typer program and an import of submitit."""
    hello = home / "hello.py"
    hello.write_text(
        "import typer\napp = typer.Typer()\n@app.command()\ndef hello(name: str = 'x'): print(name)\napp()\n"
    )
    program = str(Path(sys.executable).with_name("deephpc"))
    os.environ["DEEPHPC_STATE_DIR"] = str(home / "fresh")
    typer, bare = [sys.executable, str(hello), "--help"], [sys.executable, "-c", "import submitit"]
    typer_fell, bare_fell = first_try(typer), first_try(bare)
    helped = paired_costs(partial(cost_of, [program, "--help"]), partial(cost_of, ["true"] if typer_fell else typer), 9)
    listed = paired_costs(partial(cost_of, [program, "jobs"]), partial(cost_of, ["true"] if bare_fell else bare), 9)
    rows = []
    for peer, cost, bars, stumbled in (
        ("a Typer hello --help", helped[1], ("≤ 0.4", "≤ 1.0"), typer_fell),
        ("import submitit", listed[1], ("", ""), bare_fell),
    ):
        names = ("CPU time of `deephpc --help`", "CPU time of `deephpc jobs`, no jobs")
        for what, ours, bar in zip(names, (helped[0], listed[0]), bars, strict=True):
            rows.append(Row(what, ours.cpu_ms, peer, cost.cpu_ms, bar, ours.peak_mib, cost.peak_mib, stumbled))
    return rows


if __name__ == "__main__":
    main()
