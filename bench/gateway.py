"""The gateway in front of a model server, against the same server called directly over its socket."""

import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.row import Row
from tests.node.gateway_process import gateway

REQUESTS = 600
UPLOADS = 5
UPLOAD_BYTES = 64 << 20
PREDICTIONS = 200
AT_ONCE = 4
PREDICTION_S = 0.02
"""How long the stand-in for a small model takes."""


def measure() -> list[Row]:
    """Time small requests one by one, large uploads, and predictions several at a time."""
    with gateway() as running:
        running.wait_for_stage("ready")
        socket = httpx.HTTPTransport(uds=str(running.folder / "s"))
        with running.session() as ours, httpx.Client(transport=socket, base_url="http://server") as direct:
            return [*_small(ours, direct), _large(ours, direct), _several(ours, direct)]


def _small(ours: httpx.Client, direct: httpx.Client) -> list[Row]:
    mine, theirs = _in_turn(lambda: ours.get("/v2/models/"), lambda: direct.get("/v2/models/"), REQUESTS)
    what, peer = "a small request through the gateway", "the server called directly"
    p99 = (statistics.quantiles(mine, n=100)[98], statistics.quantiles(theirs, n=100)[98])
    return [
        Row(f"{what}, median", statistics.median(mine), peer, statistics.median(theirs), "+ 1 ms"),
        Row(f"{what}, 99th percentile", p99[0], peer, p99[1]),
    ]


def _large(ours: httpx.Client, direct: httpx.Client) -> Row:
    content = io.BytesIO(bytes(UPLOAD_BYTES))

    def predict(client: httpx.Client) -> None:
        content.seek(0)
        client.post("/v2/models/demo_module/predict/", files={"image": ("x.bin", content)}).raise_for_status()

    mine, theirs = _in_turn(lambda: predict(ours), lambda: predict(direct), UPLOADS)
    what = f"a prediction on a file of {UPLOAD_BYTES >> 20} MiB through the gateway (TLS)"
    return Row(what, statistics.median(mine), "the server called directly", statistics.median(theirs), "≤ 1.11")


def _several(ours: httpx.Client, direct: httpx.Client) -> Row:
    def predict_all(client: httpx.Client) -> None:
        def one(_: int) -> None:
            path = f"/v2/models/demo_module/predict/?slow_s={PREDICTION_S}"
            client.post(path, files={"image": ("x.png", bytes(100_000))}).raise_for_status()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, range(PREDICTIONS)))

    mine, theirs = _in_turn(lambda: predict_all(ours), lambda: predict_all(direct), 3)
    what = f"{PREDICTIONS} predictions of {PREDICTION_S * 1000:.0f} ms, {AT_ONCE} at once, through the gateway"
    return Row(what, statistics.median(mine), "the server called directly", statistics.median(theirs), "≤ 1.11")


def _in_turn(ours: Callable[[], object], peer: Callable[[], object], times: int) -> tuple[list[float], list[float]]:
    """Return the wall times of both in milliseconds, run in turn, after one run that does not count."""
    ours()
    peer()
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(times):
        for action, taken in ((ours, mine), (peer, theirs)):
            started = time.perf_counter()
            action()
            taken.append((time.perf_counter() - started) * 1000)
    return mine, theirs
