"""A server of the example module in apptainer: how long each stage of its start takes, and how warm it is when ready.

Run on a login node of the test cluster with the venv deephpc is installed in. The peer is a batch script that runs
`deepaas-run` in the same image with the same weights, open to everybody, asked until it answers. Prints its rows as
JSON on the last line.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from bench.login import await_empty_queue, quietly
from bench.row import Row, dump, first_try
from deephpc.serve import Client

SERVERS = 5
FOLLOWING = 20
PAUSES, PAUSE_S = 5, 1.0
_IMAGE = "oci:/scratch/images/digits"
_SAMPLE = Path(__file__).resolve().parent / "seven.pgm"
_ENGINE = ("--engine", "apptainer", "--time", "10", "--mem", "2000")
_NODE, _PORT, _MODEL, _HOME = "c1", 5000, "deepaas_digits", "/srv/deepaas-digits"
_DEADLINE_S = 120.0
_BY_CLIENT, _BY_COMMAND = "one client", "a `deephpc predict`"
_BARE = """\
#!/bin/bash
exec apptainer --silent exec --bind {models}:{home}/models --pwd {home} {sif} \\
  deepaas-run --listen-ip 0.0.0.0 --listen-port {port}
"""


@dataclass(frozen=True)
class Asked:
    """Predictions after ready, in milliseconds, the first of them the very first."""

    predicted_ms: list[float]
    opened_ms: float = 0.0
    """What the first one's client took to connect and to learn of the module; a command's predictions include it."""
    opened_later_ms: float = 0.0
    """Median of other clients, later."""
    rested_ms: float = 0.0
    """Median of later predictions by the same client, each after a pause: processors and caches rest, too."""

    @property
    def first_ms(self) -> float:
        """The first prediction after ready."""
        return self.predicted_ms[0]

    @property
    def following_ms(self) -> float:
        """Median of those after it."""
        return statistics.median(self.predicted_ms[1:])


@dataclass(frozen=True)
class Started:
    """What one server took: its stages, all from the command to the first prediction, and predictions."""

    stages_ms: dict[str, float]
    whole_ms: float
    asked: Asked


def main() -> None:
    """Run everything and print the rows; as `serving.py FOLDER` only ask the server of that run with one client."""
    if len(sys.argv) > 1:
        print(json.dumps(asdict(ask_by_client(Path(sys.argv[1])))))
        return
    trained = quietly("deephpc", "--quiet", "train", _IMAGE, *_ENGINE, "--wait", "--", "--epochs", "5").strip()
    ours, by_command, bare, stumbled = [], [], [], ""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as folder:
        for number in range(SERVERS + 1):  # the first makes files warm and does not count
            mine, container = start_ours(trained, _ask_in_a_process)
            other, _ = start_ours(trained, ask_by_commands)
            if not number:
                stumbled = first_bare(Path(folder), container)
                continue
            ours.append(mine)
            by_command.append(other.asked)
            bare.append(0.0 if stumbled else start_bare(Path(folder), container))
            print(f"{mine}\n{other}\nbare {bare[-1]:.0f} load {os.getloadavg()[0]:.1f}", flush=True)
    clients = [one.asked for one in ours]
    warm = [*_warm(_BY_CLIENT, clients), *_of_client(clients), *_warm(_BY_COMMAND, by_command)]
    print(dump([*_cold(ours, bare, stumbled), *warm]))


def _cold(ours: Sequence[Started], bare: Sequence[float], stumbled: str) -> list[Row]:
    peer, peer_ms = "sbatch of deepaas-run in apptainer, all of it", statistics.median(bare)
    what = "a server's cold start, from the command to its first answer"
    whole = Row(what, statistics.median(one.whole_ms for one in ours), peer, peer_ms, "≤ 1.2", stumbled=stumbled)
    stages = [
        Row(f"of it {name}", statistics.median(one.stages_ms[name] for one in ours), peer, peer_ms, stumbled=stumbled)
        for name in ours[0].stages_ms
    ]
    return [whole, *stages]


def _warm(by: str, servers: Sequence[Asked]) -> list[Row]:
    what, peer, bar = (
        f"first prediction after ready, by {by}",
        f"median of the next {FOLLOWING}, in the same way",
        "≤ 1.2",
    )
    first, following = ([getattr(one, name) for one in servers] for name in ("first_ms", "following_ms"))
    worst = max(servers, key=lambda one: one.first_ms / one.following_ms)
    return [
        Row(f"{what}, {len(servers)} servers", statistics.median(first), peer, statistics.median(following), bar),
        Row(f"{what}, the worst of them", worst.first_ms, peer, worst.following_ms, bar),
    ]


def _of_client(servers: Sequence[Asked]) -> list[Row]:
    def median(name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in servers)

    first, opening = (
        f"first prediction after ready, by {_BY_CLIENT}",
        f"opening {_BY_CLIENT}, before its first prediction",
    )
    rested = f"a later one of its own, after a pause of {PAUSE_S:g} s"
    return [
        Row(first, median("first_ms"), rested, median("rested_ms")),
        Row(opening, median("opened_ms"), "opening another one, later", median("opened_later_ms")),
    ]


def start_ours(trained: str, ask: Callable[[str, Path], Asked]) -> tuple[Started, dict[str, Any]]:
    """Start a server by deephpc, ask it, stop it; return also what its container was."""
    commanded_at = time.time()
    words = ["serve", "start", trained, *_ENGINE, "--sample", f"image={_SAMPLE}"]
    run_id = quietly("deephpc", "--quiet", *words).strip()
    returned_at = time.time()
    detail = json.loads(quietly("deephpc", "--json", "jobs", "show", run_id))
    folder = Path(detail["job"]["folder"])
    asked = ask(run_id, folder)
    stages = stages_ms(folder, commanded_at, returned_at)
    quietly("deephpc", "--quiet", "serve", "stop", run_id)
    await_empty_queue()
    whole_ms = (returned_at - commanded_at) * 1000 + asked.opened_ms + asked.first_ms
    container: dict[str, Any] = json.loads((folder / "plan.json").read_text())["container"]
    return Started(stages, whole_ms, asked), container


def stages_ms(folder: Path, commanded_at: float, returned_at: float) -> dict[str, float]:
    """Return how long each stage took, in order: by events.jsonl, and before that by the files of the run."""
    submitted = datetime.fromisoformat(json.loads((folder / "submitted.json").read_text())["submitted_at"]).timestamp()
    began, listened = (folder / "claim").stat().st_mtime, (folder / "endpoint.json").stat().st_mtime
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    after_s = {event["stage"]: event["after_s"] for event in events if event["event"] == "serve"}
    loading, warming = after_s["warming"], after_s["ready"]
    taken = {
        "until the job is submitted": submitted - commanded_at,
        "queued": began - submitted,
        "job script and gateway, until it listens": listened - began,
        "loading": loading,
        "warming, with a prediction on the user's sample": warming,
        "ready, until the command has noticed": returned_at - listened - loading - warming,
    }
    return {name: seconds * 1000 for name, seconds in taken.items()}


def ask_by_commands(run_id: str, _folder: Path) -> Asked:
    """Predict by one command after the other, as in a shell; each starts, connects and learns of the module."""

    def predict_ms() -> float:
        started = time.perf_counter()
        quietly("deephpc", "--quiet", "predict", run_id, "--input", f"image={_SAMPLE}")
        return (time.perf_counter() - started) * 1000

    return Asked([predict_ms() for _ in range(FOLLOWING + 1)])


def _ask_in_a_process(_run_id: str, folder: Path) -> Asked:
    """Ask from a new process, whose client is its first."""
    return Asked(**json.loads(quietly(sys.executable, str(Path(__file__).resolve()), str(folder))))


def ask_by_client(folder: Path) -> Asked:
    """Predict again and again by one client; then open others, each in a process forked from one that made none."""
    opened_ms, *predicted_ms = _in_a_fork(folder, FOLLOWING + 1, PAUSES)
    predicted_ms, rested_ms = predicted_ms[:-PAUSES], predicted_ms[-PAUSES:]
    later = [_in_a_fork(folder, 0, 0)[0] for _ in range(FOLLOWING)]
    return Asked(predicted_ms, opened_ms, statistics.median(later), statistics.median(rested_ms))


def _in_a_fork(folder: Path, times: int, pauses: int) -> list[float]:
    """Open a client in a process of its own and predict with it; return what the one and each of the others took."""
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: writer.send(_open_and_predict_ms(folder, times, pauses)))
    child.start()
    writer.close()
    taken: list[float] = reader.recv()
    child.join()
    return taken


def _open_and_predict_ms(folder: Path, times: int, pauses: int) -> list[float]:
    started = time.perf_counter()
    with Client.of_run(folder) as client:
        taken = [time.perf_counter() - started]
        for pause_s in [0.0] * times + [PAUSE_S] * pauses:
            if pause_s:
                time.sleep(pause_s)
            started = time.perf_counter()
            client.predict(image=_SAMPLE)
            taken.append(time.perf_counter() - started)
    return [seconds * 1000 for seconds in taken]


def first_bare(folder: Path, container: dict[str, Any]) -> str:
    """Start the same without deephpc, once, and return how it stumbled: by its answer or its log."""
    try:
        start_bare(folder, container)
    except (TimeoutError, ValueError, httpx.HTTPError) as error:
        return str(error)
    return first_try(["sed", "/ CANCELLED AT /d", str(folder / "job.log")])  # we end it ourselves


def start_bare(folder: Path, container: dict[str, Any]) -> float:
    """Start the same without deephpc; return the milliseconds to its first prediction."""
    script = folder / "bare.sh"
    sif, models = container["prepared"], container["models"]
    script.write_text(_BARE.format(models=models, home=_HOME, sif=sif, port=_PORT))
    words = ["--parsable", "--time=10", "--mem=2000", f"--nodelist={_NODE}", f"--output={folder}/job.log"]
    commanded = time.perf_counter()
    job_id = quietly("sbatch", *words, str(script)).strip()
    try:
        await_answer(f"http://{_NODE}:{_PORT}/v2/models/{_MODEL}")
        return (time.perf_counter() - commanded) * 1000
    finally:
        quietly("scancel", job_id)
        await_empty_queue()


def await_answer(url: str) -> None:
    """Ask for a prediction twenty times a second until one is given.

    Raises
    ------
    TimeoutError
        None is.
    ValueError
        What is given is no prediction.
    """
    until = time.monotonic() + _DEADLINE_S
    with httpx.Client(trust_env=False, timeout=30) as session:
        while time.monotonic() < until:
            try:
                session.get(f"{url}/").raise_for_status()
                answer = session.post(f"{url}/predict/", files={"image": _SAMPLE.open("rb")}).raise_for_status()
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                if answer.json().get("status") != "OK":
                    raise ValueError(f"{url} answered {answer.text}")
                return
    raise TimeoutError(f"{url} gives no prediction within {_DEADLINE_S:.0f} s")


if __name__ == "__main__":
    main()
