"""A plain `deepaas-run`, as its own documentation starts it, and requests to it as curl would make them."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.deepaas_environment import ENVIRON
from tests.fakes.waiting import DEADLINE_S, wait_until

MODULES = Path(__file__).with_name("modules")


@dataclass(frozen=True)
class Case:
    """One request to a module, and what differs from a plain server with its reason."""

    module: str
    arguments: Sequence[tuple[str, str]] = ()
    files: Sequence[tuple[str, str]] = ()
    """Names of arguments, and of files in the folder of samples."""
    accept: str | None = None

    def __str__(self) -> str:
        said = [f"{name}={text[:20]}" for name, text in (*self.arguments, *self.files)]
        return "-".join([self.module, *said, *([self.accept] if self.accept else [])]).replace("/", "|")


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    content_type: str
    content: bytes = field(repr=False)

    @property
    def value(self) -> Any:
        return json.loads(self.content)


def install_modules(folder: Path) -> dict[str, str]:
    """Install every module of the oracle by hand; return the variables with which Python finds them."""
    folder.mkdir()
    for source in MODULES.glob("*.py"):
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        about = folder / f"{source.stem}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {source.stem}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[deepaas.v2.model]\n{source.stem} = {source.stem}\n")
    return {"PYTHONPATH": str(folder)}


@contextmanager
def plain_server(programs: Path, environ: dict[str, str], module: str, folder: Path) -> Iterator[httpx.Client]:
    """Run `deepaas-run` for one module on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(programs / "deepaas-run"), "--listen-ip", "127.0.0.1", "--listen-port", str(port)]
    environ = {**ENVIRON, **environ, "DEEPAAS_V2_MODEL": module, "TMPDIR": str(folder)}
    with (folder / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(argv, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/v2/models/{module}", timeout=DEADLINE_S) as client:
            wait_until(lambda: process.poll() is not None or _listens(port), f"a plain server of {module}")
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # DEEPaaS leaves its workers behind when it is told to end
        process.wait()


def ask_plainly(client: httpx.Client, case: Case, samples: Path) -> Answer:
    """Ask for a prediction; what is no file goes into the address, the form of the answer too, and in a header."""
    words = [*case.arguments, *([("accept", case.accept)] if case.accept else [])]
    headers = {"accept": case.accept or "application/json"}
    files = [(name, (file, (samples / file).read_bytes())) for name, file in case.files]
    answer = client.post("/predict/", params=words, headers=headers, files=files or None)
    return _answer(answer)


def train_plainly(client: httpx.Client, case: Case) -> dict[str, Any]:
    """Have a training done; return what the server says of it at its end."""
    form = [("accept", case.accept)] if case.accept else []
    client.post("/train/", params=[*case.arguments, *form]).raise_for_status()
    wait_until(lambda: client.get("/train/").json()[-1]["status"] != "running", f"the training {case}")
    status: dict[str, Any] = client.get("/train/").json()[-1]
    return status


def _answer(answer: httpx.Response) -> Answer:
    return Answer(answer.status_code, answer.headers.get("content-type", "").partition(";")[0], answer.content)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
