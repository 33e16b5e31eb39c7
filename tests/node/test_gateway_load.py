"""Many, slow and large clients: memory stays bounded and the gateway goes on serving."""

import asyncio
import resource
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from deephpc.serve.connection import pinned_context
from tests.node.gateway_process import gateway

CONNECTIONS = 1000
MIB = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served():
    with gateway(options=["--patience", "3600"]) as running:  # slow clients stay slow for as long as a test takes
        running.wait_for_stage("ready")
        yield running


@pytest.fixture(autouse=True)
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * CONNECTIONS:
        pytest.skip(f"this machine lets a process open only {hard} files; raise `ulimit -Hn` to {3 * CONNECTIONS}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rss_mib(running):
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


def headers(running):
    return {"Authorization": f"Bearer {running.address.token}"}


def context(running) -> ssl.SSLContext:
    return pinned_context(running.address.endpoint.certificate)


def test_a_thousand_connections_are_served_at_once(served):
    async def ask():
        async with served.talking(headers=headers(served), limit=0) as client:

            async def one():
                async with client.get("/echo") as answer:
                    await answer.read()
                    return answer.status

            return await asyncio.gather(*(one() for _ in range(CONNECTIONS)))

    before = rss_mib(served)
    assert set(asyncio.run(ask())) == {200}
    assert rss_mib(served) < before + 300


def test_a_thousand_slow_senders_keep_nobody_else_waiting(served):
    async def dawdle():
        address = served.address.endpoint
        opened = []

        async def one():
            _, writer = await asyncio.open_connection("localhost", address.port, ssl=context(served))
            head = f"POST /count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.address.token}\r\n"
            writer.write(f"{head}Content-Length: 1000000\r\n\r\nx".encode())
            await writer.drain()
            opened.append(writer)

        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(CONNECTIONS // 20)))
        half = len(opened)

        async def half_a_head():
            _, writer = await asyncio.open_connection("localhost", address.port, ssl=context(served))
            writer.write(b"GET /")
            await writer.drain()
            opened.append(writer)

        for _ in range(10):
            await asyncio.gather(*(half_a_head() for _ in range(CONNECTIONS // 20)))
        async with (
            served.talking(headers=headers(served)) as client,
            client.get("/ready", ssl=context(served)) as answer,
        ):
            status = answer.status
        for writer in opened:  # which were slow all the while
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        return half, len(opened), status

    assert asyncio.run(dawdle()) == (CONNECTIONS // 2, CONNECTIONS, 200)
    assert rss_mib(served) < 600


def test_an_upload_of_two_gigabytes_takes_no_memory_and_keeps_nobody_waiting(served):
    size = 2 << 30
    before, most, answers = rss_mib(served), 0.0, 0

    async def chunks():
        nonlocal most
        piece = bytes(MIB)
        for number in range(size // MIB):
            if number % 64 == 0:
                most = max(most, rss_mib(served))
                while answers < number // 64:  # others are answered while it is on its way, however long that takes
                    await asyncio.sleep(0.01)
            yield piece

    async def ask_meanwhile(client):
        nonlocal answers
        while True:
            async with client.get("/v2/models/") as answer:
                assert answer.status == 200
            answers += 1
            await asyncio.sleep(0.01)

    async def send():
        async with served.talking(headers=headers(served)) as client:
            others = asyncio.ensure_future(ask_meanwhile(client))
            async with client.post("/count", data=chunks()) as answer:
                counted = await answer.json()
            assert not others.done()
            others.cancel()
            return counted

    assert asyncio.run(send()) == {"size": size}
    assert most < before + 64
    assert answers >= 31


def test_a_reader_that_stops_reading_takes_no_memory(served):
    async def read_a_little():
        async with (
            served.talking(headers=headers(served), read_bufsize=1 << 16) as client,
            client.get("/stream?size=500000000", ssl=context(served)) as answer,
        ):
            await answer.content.readexactly(100_000)
            most = 0.0
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, rss_mib(served))
            return most

    before = rss_mib(served)
    assert asyncio.run(read_a_little()) < before + 64
