"""Starts the real gateway as a job would, and speaks with it as our clients do."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from deephpc.serve.connection import load_address, open_session, pinned_context
from deephpc.serve.service import SERVICE, Service, render_service
from tests.fakes.waiting import DEADLINE_S, wait_until

UPSTREAM = Path(__file__).with_name("upstream.py")


class GatewayProcess:
    """One running gateway and the server behind it."""

    def __init__(self, folder, process):
        self.folder = folder
        self.process = process

    @property
    def address(self):
        return load_address(self.folder)

    def session(self, timeout_s=DEADLINE_S):
        return open_session(self.address, timeout_s)

    @asynccontextmanager
    async def talking(self, *, headers=None, limit=100, **more):
        """Talk by aiohttp, and wait until every socket is closed: its sessions leave those alone that they gave up."""
        sockets = []

        def a_socket(found):
            sockets.append(socket.socket(*found[:3]))
            return sockets[-1]

        context = pinned_context(self.address.endpoint.certificate)
        connector = aiohttp.TCPConnector(limit=limit, ssl=context, socket_factory=a_socket)
        more = {"timeout": aiohttp.ClientTimeout(total=DEADLINE_S), **more}
        try:
            async with aiohttp.ClientSession(self.address.url, connector=connector, headers=headers, **more) as client:
                yield client
        finally:
            while any(one.fileno() >= 0 for one in sockets):
                await asyncio.sleep(0.01)

    def events(self):
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def stages(self):
        return [event["stage"] for event in self.events() if event["event"] == "serve"]

    def wait_for_stage(self, stage):
        wait_until(lambda: stage in self.stages() or self.process.poll() is not None, f"the stage {stage}")
        assert stage in self.stages(), (self.stages(), (self.folder / "gateway.err").read_text())

    def wait_for_end(self):
        return self.process.wait(DEADLINE_S)

    def last_event(self):
        return [event for event in self.events() if event["event"] == "serve"][-1]


@contextmanager
def gateway(mode="ok", *, words=None, port=None, options=(), environ=None, **service):
    """Run a gateway with the server of `upstream.py` behind it, or with what `words(socket)` says."""
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name) / "demo-1a2b"
        folder.mkdir(mode=0o700)
        asked = Service(**{"model": "demo-module", "ready_within_s": DEADLINE_S, **service})
        (folder / SERVICE).write_text(render_service(asked))
        upstream = str(port or folder / "s")
        ordinary = [sys.executable, str(UPSTREAM), upstream, "--mode", mode]
        server = words(folder / "s") if words else ordinary
        module = [sys.executable, "-I", "-m", "deephpc.node.gateway", str(folder)]
        place = ["--port" if port else "--socket", upstream, "--host", "localhost", "--address", "127.0.0.1"]
        rest = ["--log", str(folder / "job.log"), "--job-id", "7", *options, "--", *server]
        with (folder / "gateway.err").open("wb") as errors:
            environment = {**os.environ, **(environ or {})}
            process = subprocess.Popen(
                [*module, *place, *rest], stderr=errors, stdin=subprocess.DEVNULL, env=environment
            )
        try:
            yield GatewayProcess(folder, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE_S)
            finally:
                process.kill()


def processes_in(folder):
    """Return the command lines of living processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line:
                found.append(line)
    return found
