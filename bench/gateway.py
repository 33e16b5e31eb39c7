"""The gateway in front of a model server, against the same server called directly on its port, plainly and by TLS."""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx

from bench.row import Row
from deephpc.node.gateway_certificate import make_certificate
from deephpc.node.gateway_port import bind_port
from deephpc.serve.connection import pinned_context
from tests.fakes.waiting import wait_until
from tests.node.gateway_process import UPSTREAM, gateway

REQUESTS = 600
PREDICTIONS = 200
AT_ONCE = 4
PREDICTION_S = 0.02
"""How long the stand-in for a small model takes."""
_PLAIN, _TLS = "the server called directly", "the server called directly, were it to speak TLS itself"
_THROUGHPUT, _AS_TLS = "≤ 1.11", "≤ 1.05"
_Action = Callable[[], object]


def measure() -> list[Row]:
    """Time small requests one by one, predictions one by one and several at a time, and large bodies both ways."""
    port = _free_port()
    with (
        gateway(port=port) as running,
        _speaking_tls() as tls,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as plain,
    ):
        running.wait_for_stage("ready")
        with running.session() as ours:
            expected = _answers_of(ours)
            stumbled = {name: _first_try(client, expected) for name, client in ((_PLAIN, plain), (_TLS, tls))}
            return [replace(row, stumbled=stumbled[row.peer]) for row in _compare((ours, plain, tls))]


def _answers_of(client: httpx.Client) -> tuple[str, str, int]:
    """Return what a server answers to one request of each kind."""
    models = client.get("/v2/models/").raise_for_status().text
    return models, _predict(client, 1), _take(client, 1)


def _first_try(client: httpx.Client, expected: tuple[str, str, int]) -> str:
    """Ask a server once of each kind, and return how it stumbles; "" when it does not."""
    try:
        found = _answers_of(client)
    except httpx.HTTPError as error:
        return str(error)
    return "" if found == expected else "its answers are not those that come through the gateway"


def _compare(clients: Sequence[httpx.Client]) -> list[Row]:
    return [
        *_small(clients),
        *_rows(f"{PREDICTIONS} predictions of 20 ms on 100 kB, {AT_ONCE} at once", clients, _predict_all, 3),
        *_rows("a prediction of 20 ms on a file of 1 MiB", clients, lambda client: _predict(client, 1, 0.02), 30),
        *_rows("a file of 64 MiB sent", clients, lambda client: _predict(client, 64), 7, _AS_TLS),
        *_rows("an answer of 64 MiB", clients, lambda client: _take(client, 64), 7, _AS_TLS),
    ]


def _small(clients: Sequence[httpx.Client]) -> list[Row]:
    ours, plain, tls = _in_turn([partial(client.get, "/v2/models/") for client in clients], REQUESTS)
    what = "a small request through the gateway"
    return [
        Row(f"{what}, median", statistics.median(ours), _PLAIN, statistics.median(plain), "+ 1 ms"),
        Row(f"{what}, 99th percentile", _p99(ours), _PLAIN, _p99(plain)),
        Row(f"{what}, median", statistics.median(ours), _TLS, statistics.median(tls)),
    ]


def _rows(
    what: str, clients: Sequence[httpx.Client], ask: Callable[[httpx.Client], object], times: int, bar: str = ""
) -> list[Row]:
    taken = _in_turn([partial(ask, client) for client in clients], times)
    ours, plain, tls = (statistics.median(each) for each in taken)
    name = f"{what}, through the gateway"
    return [Row(name, ours, _PLAIN, plain, _THROUGHPUT), Row(name, ours, _TLS, tls, bar)]


def _predict(client: httpx.Client, size_mib: int, slow_s: float = 0.0) -> str:
    path = f"/v2/models/demo_module/predict/?slow_s={slow_s}"
    files = {"image": ("x.bin", io.BytesIO(bytes(size_mib << 20)))}
    return client.post(path, files=files).raise_for_status().text


def _take(client: httpx.Client, size_mib: int) -> int:
    with client.stream("GET", f"/stream?size={size_mib << 20}") as answer:
        return sum(len(chunk) for chunk in answer.iter_raw())


def _predict_all(client: httpx.Client) -> None:
    def one(_: int) -> None:
        path = f"/v2/models/demo_module/predict/?slow_s={PREDICTION_S}"
        client.post(path, files={"image": ("x.png", bytes(100_000))}).raise_for_status()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(PREDICTIONS)))


def _in_turn(actions: Sequence[_Action], times: int) -> list[list[float]]:
    """Return the wall times of each in milliseconds, run in turn, after one run that does not count."""
    taken: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(times):
        for action, times_ms in zip(actions, taken, strict=True):
            started = time.perf_counter()
            action()
            times_ms.append((time.perf_counter() - started) * 1000)
    return taken


@contextmanager
def _speaking_tls() -> Iterator[httpx.Client]:
    """Run a second one of the server, with TLS of its own, and lend a client for it."""
    made, port = make_certificate("bench", "localhost"), _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        pem = Path(folder) / "certificate.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(made.key_pem + made.pem.encode())
        words = [sys.executable, str(UPSTREAM), str(port), "--tls", str(pem)]
        process = subprocess.Popen(words, env=os.environ.copy(), stdin=subprocess.DEVNULL)
        try:
            context = pinned_context(made.pem)
            with httpx.Client(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as client:
                wait_until(lambda: _answers(client))
                yield client
        finally:
            process.kill()
            process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/models/").is_success
    except httpx.ConnectError:
        return False


def _free_port() -> int:
    with bind_port("127.0.0.1") as free:
        return int(free.getsockname()[1])


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]
