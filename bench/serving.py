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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from bench.login import await_empty_queue, quietly
from bench.row import Row, dump
from deephpc.serve import Client

SERVERS = 5
FOLLOWING = 30
_IMAGE = "oci:/scratch/images/digits"
_SAMPLE = Path(__file__).resolve().parent / "seven.pgm"
_ENGINE = ("--engine", "apptainer", "--time", "10", "--mem", "2000")
_NODE, _PORT, _MODEL, _HOME = "c1", 5000, "deepaas_digits", "/srv/deepaas-digits"
_DEADLINE_S = 120.0
_BARE = """\
#!/bin/bash
exec apptainer --silent exec --bind {models}:{home}/models --pwd {home} {sif} \\
  deepaas-run --listen-ip 0.0.0.0 --listen-port {port}
"""


@dataclass(frozen=True)
class Started:
    """What one server took: its stages, all from the command to the first prediction, and predictions."""

    stages_ms: dict[str, float]
    whole_ms: float
    first_ms: float
    """The first prediction after ready, by a client that has to connect and to learn of the module."""
    cold_ms: float
    """Median of those after it, each by such a client."""
    first_alone_ms: float
    """Of the first, without what the client does before it asks for a prediction."""
    cold_alone_ms: float
    again_ms: float
    """Median of the predictions of one client that has predicted before."""


def main() -> None:
    """Run everything and print the rows; as `serving.py FOLDER` only ask the server of that run."""
    if len(sys.argv) > 1:
        print(json.dumps(ask(Path(sys.argv[1]))))
        return
    trained = quietly("deephpc", "--quiet", "train", _IMAGE, *_ENGINE, "--wait", "--", "--epochs", "5").strip()
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as folder:
        for number in range(SERVERS + 1):  # the first makes files warm and does not count
            mine, container = start_ours(trained)
            theirs = start_bare(Path(folder), container)
            print(f"{mine} bare {theirs:.0f} load {os.getloadavg()[0]:.1f}", flush=True)
            if number:
                ours.append(mine)
                bare.append(theirs)
    print(dump([*_cold(ours, bare), *_warm(ours)]))


def _cold(ours: Sequence[Started], bare: Sequence[float]) -> list[Row]:
    peer, peer_ms = "sbatch of deepaas-run in apptainer, all of it", statistics.median(bare)
    what = "a server's cold start, from the command to its first answer"
    stages = [(f"of it {name}", [one.stages_ms[name] for one in ours]) for name in ours[0].stages_ms]
    every = [(what, [one.whole_ms for one in ours]), *stages]
    return [Row(name, statistics.median(taken), peer, peer_ms) for name, taken in every]


def _warm(ours: Sequence[Started]) -> list[Row]:
    def median(name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in ours)

    worst = max(ours, key=lambda one: one.first_ms / one.cold_ms)
    what, peer = "first prediction after ready", f"median of the next {FOLLOWING}"
    cold, bar = f"{peer}, each by a new client", "≤ 1.5"
    return [
        Row(f"{what}, by a new client, {len(ours)} servers", median("first_ms"), cold, median("cold_ms"), bar),
        Row(f"{what}, by a new client, the worst of them", worst.first_ms, cold, worst.cold_ms, bar),
        Row(f"{what}, the request alone", median("first_alone_ms"), cold, median("cold_alone_ms"), bar),
        Row(f"{what}, the request alone", median("first_alone_ms"), f"{peer} by one client", median("again_ms")),
    ]


def start_ours(trained: str) -> tuple[Started, dict[str, Any]]:
    """Start a server by deephpc, ask it from a process of its own, stop it; return also what its container was."""
    commanded_at = time.time()
    words = ["serve", "start", trained, *_ENGINE, "--sample", f"image={_SAMPLE}"]
    run_id = quietly("deephpc", "--quiet", *words).strip()
    returned_at = time.time()
    detail = json.loads(quietly("deephpc", "--json", "jobs", "show", run_id))
    folder = Path(detail["job"]["folder"])
    asked = json.loads(quietly(sys.executable, str(Path(__file__).resolve()), str(folder)))
    stages = stages_ms(folder, commanded_at, returned_at)
    quietly("deephpc", "--quiet", "serve", "stop", run_id)
    await_empty_queue()
    whole_ms = (returned_at - commanded_at) * 1000 + asked["first_ms"]
    container: dict[str, Any] = json.loads((folder / "plan.json").read_text())["container"]
    return Started(stages, whole_ms, **asked), container


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


def ask(folder: Path) -> dict[str, float]:
    """Predict once, then by others as cold as the first was, then again and again by one client.

    Each cold client lives in a process forked from one that has never made a client, so all of them have done equally
    little before they are asked.
    """
    cold = [_in_a_fork(folder, 1)[0] for _ in range(FOLLOWING + 1)]
    again = _in_a_fork(folder, FOLLOWING + 1)[1:]
    return {
        "first_ms": sum(cold[0]),
        "cold_ms": statistics.median(sum(one) for one in cold[1:]),
        "first_alone_ms": cold[0][1],
        "cold_alone_ms": statistics.median(one[1] for one in cold[1:]),
        "again_ms": statistics.median(one[1] for one in again),
    }


def _in_a_fork(folder: Path, times: int) -> list[tuple[float, float]]:
    """Predict with one new client; return what it took to connect and to learn of the module, and the prediction."""
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: writer.send(predict_ms(folder, times)))
    child.start()
    writer.close()
    taken: list[tuple[float, float]] = reader.recv()
    child.join()
    return taken


def predict_ms(folder: Path, times: int) -> list[tuple[float, float]]:
    """Return the milliseconds of `describe`, which a client does once, and of the prediction after it."""
    taken = []
    started = time.perf_counter()
    with Client.of_run(folder) as client:
        for _ in range(times):
            client.describe()
            described = time.perf_counter()
            client.predict(image=_SAMPLE)
            done = time.perf_counter()
            taken.append(((described - started) * 1000, (done - described) * 1000))
            started = done
    return taken


def start_bare(folder: Path, container: dict[str, Any]) -> float:
    """Start the same without deephpc; return the milliseconds to its first prediction."""
    script = folder / "bare.sh"
    sif, models = container["prepared"], container["models"]
    script.write_text(_BARE.format(models=models, home=_HOME, sif=sif, port=_PORT))
    words = ["--parsable", "--time=10", "--mem=2000", f"--nodelist={_NODE}", f"--output={folder}/job.log"]
    commanded = time.perf_counter()
    job_id = quietly("sbatch", *words, str(script)).strip()
    await_answer(f"http://{_NODE}:{_PORT}/v2/models/{_MODEL}")
    taken_ms = (time.perf_counter() - commanded) * 1000
    quietly("scancel", job_id)
    await_empty_queue()
    return taken_ms


def await_answer(url: str) -> None:
    """Ask for a prediction twenty times a second until one is given.

    Raises
    ------
    TimeoutError
        None is.
    """
    until = time.monotonic() + _DEADLINE_S
    with httpx.Client(trust_env=False, timeout=30) as session:
        while time.monotonic() < until:
            try:
                session.get(f"{url}/").raise_for_status()
                session.post(f"{url}/predict/", files={"image": _SAMPLE.open("rb")}).raise_for_status()
                return
            except httpx.ConnectError:
                time.sleep(0.05)
    raise TimeoutError(f"{url} gives no prediction within {_DEADLINE_S:.0f} s")


if __name__ == "__main__":
    main()
