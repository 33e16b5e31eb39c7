"""The oracle in images: one request to a plain `deepaas-run` in a module's image, and to deephpc's server and batch.

Over the modules of `tests/oracle`; over any folder of OCI layouts with `make test-modules MODULES=DIR`. There
DIR/NAME.cases.json may have what is asked, a list of {"arguments": {…}, "files": {"image": "file"}, "accept": "…"};
without it the inputs are those that a server's first prediction makes up, in every form of the answer.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from deephpc.node.readiness_samples import made_up_samples
from deephpc.serve.answers import body_error
from deephpc.serve.argument_values import render_value
from deephpc.serve.swagger import Parameter, accepted_types, choose_model, parse_models, parse_parameters
from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import fetch_module_images, put_layout
from tests.fakes.waiting import DEADLINE_S
from tests.oracle.cases import GOOD
from tests.oracle.test_oracle import SAMPLES

pytestmark = pytest.mark.cluster
GIVEN = os.environ.get("DEEPHPC_MODULES")
ENGINES = ("apptainer", "udocker-r", "udocker-p2")
RESOURCES = ("--time", "15", "--mem", os.environ.get("DEEPHPC_MODULES_MEM", "2000"))
PORT = 5123
MOST_CASES = 7


@dataclass(frozen=True)
class Case:
    arguments: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Argument → path on the cluster."""
    accept: str | None = None


@dataclass
class Plain:
    """What a plain server was asked, and what it answered."""

    cases: list[Case]
    answers: list[tuple[int, str, bytes]]


def modules() -> list[tuple[str, str | None]]:
    """Return images, and the module that is meant where one has several."""
    if GIVEN is None:
        return [("oracle", name) for name in sorted({case.module for case in GOOD})]
    return [(path.name, None) for path in sorted(Path(GIVEN).iterdir()) if (path / "index.json").is_file()]


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Session:
    session = Session(cluster, "modules")
    for name, content in SAMPLES.items():
        file = cluster.on_host(f"{session.folder}/{name}")
        file.write_bytes(content)
        file.chmod(0o644)
    return session


@pytest.fixture(scope="module", params=modules(), ids=lambda module: module[1] or module[0])
def module(
    request: pytest.FixtureRequest, cluster: Cluster, alice: Session
) -> Iterator[tuple[str, tuple[str, ...], Plain]]:
    """A module's image on the cluster, with what a plain server in it answers; that is asked once for all engines."""
    name, model = request.param
    layout = fetch_module_images()[name] if GIVEN is None else Path(GIVEN) / name
    place = f"/scratch/images/oracle-{name}"
    if not cluster.on_host(place).exists():
        put_layout(cluster, layout, place)
    build = f"[ -d plain-{name} ] || apptainer --quiet build --sandbox plain-{name} oci:{place}"
    alice.box.run(build, user="alice", cwd=alice.folder, timeout=900)
    plain = ask_plain(alice, name, workdir_of(layout), model)
    yield f"oci:{place}", (("--model", model) if model else ()), plain


def ask_plain(alice: Session, name: str, workdir: str, model: str | None) -> Plain:
    """Start `deepaas-run` as Docker would, everything inside writable, ask it every case, and end it."""
    chosen = f"--env DEEPAAS_V2_MODEL={model}" if model else ""
    engine = f"apptainer --silent exec --writable --no-home {chosen} --pwd {workdir} {alice.folder}/plain-{name}"
    words = f"exec {engine} deepaas-run --listen-ip 127.0.0.1 --listen-port {PORT} >{alice.folder}/plain.log 2>&1"
    with alice.box.popen(["sh", "-c", words], user="alice") as server:
        wait_until(
            lambda: curl(alice, "/v2/models/")[0] == 200,
            DEADLINE_S,
            lambda: alice.box.run(f"cat {alice.folder}/plain.log", user="alice").stdout,
        )
        served = choose_model(parse_models(json.loads(curl(alice, "/v2/models/")[2])), model)
        parameters = parse_parameters(json.loads(curl(alice, "/swagger.json")[2]), served)
        cases = load_cases(alice, name, model, parameters)
        answers = [curl(alice, f"/v2/models/{served}/predict/", case, parameters) for case in cases]
        server.kill()
    alice.box.run("pkill -KILL -u alice -f '[d]eepaas-run'; true", user="alice")  # its workers are left behind
    return Plain(cases, answers)


def workdir_of(layout: Path) -> str:
    """Return where an image's program starts."""

    def blob(digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((layout / "blobs" / "sha256" / digest[7:]).read_bytes())
        return found

    manifest = blob(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    return blob(manifest["config"]["digest"]).get("config", {}).get("WorkingDir") or "/"


def load_cases(alice: Session, name: str, model: str | None, parameters: tuple[Parameter, ...]) -> list[Case]:
    if model is not None:
        single = [case for case in GOOD if case.module == model and len(dict(case.arguments)) == len(case.arguments)]
        return [
            Case(dict(one.arguments), {key: f"{alice.folder}/{file}" for key, file in one.files}, one.accept)
            for one in single[:MOST_CASES]
        ]
    file = Path(GIVEN or "/nowhere") / f"{name}.cases.json"
    there = alice.box.on_host(alice.folder)
    if file.exists():
        asked = json.loads(file.read_text(encoding="utf-8"))
        for each in {value for one in asked for value in one.get("files", {}).values()}:
            shutil.copyfile(file.parent / each, there / Path(each).name)
            (there / Path(each).name).chmod(0o644)
        return [
            Case(
                {key: render_value(value) for key, value in one.get("arguments", {}).items()},
                {key: f"{alice.folder}/{Path(value).name}" for key, value in one.get("files", {}).items()},
                one.get("accept"),
            )
            for one in asked
        ]
    cases = []
    for number, sample in enumerate(made_up_samples([one.argument for one in parameters])):
        files = {}
        for key, (called, content) in sample.files.items():
            (there / f"{number}-{called}").write_bytes(content)
            (there / f"{number}-{called}").chmod(0o644)
            files[key] = f"{alice.folder}/{number}-{called}"
        arguments = {key: render_value(value) for key, value in sample.values.items()}
        cases += [Case(arguments, files, form) for form in accepted_types(parameters) or (None,)]
    return cases


def curl(
    alice: Session, path: str, case: Case | None = None, parameters: tuple[Parameter, ...] = ()
) -> tuple[int, str, bytes]:
    """Ask as curl does: values in the address, files in the body, the form in a header, and where the module looks."""
    words = ["curl", "-s", "-o", f"{alice.folder}/answer", "-w", "%{http_code} %{content_type}"]
    address = f"http://127.0.0.1:{PORT}{path}"
    if case is not None:
        words += ["-X", "POST", "-H", f"accept: {case.accept or 'application/json'}"]
        for name, file in case.files.items():
            words += ["-F", f"{name}=@{file}"]
        pairs = dict(case.arguments)
        if any(one.argument.name == "accept" and one.place == "query" for one in parameters):
            pairs["accept"] = case.accept or "application/json"
        address += "?" + "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs.items())
    done = alice.box.run([*words, address], user="alice", check=False, timeout=900)
    status, _, kind = done.stdout.partition(" ")
    answer = alice.box.on_host(f"{alice.folder}/answer")
    return int(status or 0), kind.partition(";")[0], answer.read_bytes() if answer.exists() else b""


def is_good(answer: tuple[int, str, bytes]) -> bool:
    status, kind, content = answer
    return status == 200 and not (kind == "application/json" and body_error(json.loads(content)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_answers_as_a_plain_server_in_its_image(
    alice: Session, module: tuple[str, tuple[str, ...], Plain], engine: str
) -> None:
    image, which, plain = module
    good = [number for number, answer in enumerate(plain.answers) if is_good(answer)]
    assert good, f"a plain server answers none of {plain.cases}: {plain.answers}"
    differences: list[Any] = []
    sample = [word for key, value in sample_of(plain.cases[good[0]]) for word in ("--sample", f"{key}={value}")]
    server = alice.submit("serve", "start", image, *which, "--engine", engine, *RESOURCES, *sample)
    try:
        for number, case in enumerate(plain.cases):
            done = alice.deephpc("predict", server, *words_of(case), "--output", "ours")
            ours = alice.box.on_host(f"{alice.folder}/ours")
            if (done.returncode == 0) is not (number in good):
                differences.append((case, plain.answers[number][:2], done.returncode, done.stderr))
            elif number in good and ours.read_bytes() != plain.answers[number][2]:
                differences.append((case, plain.answers[number][2][:300], ours.read_bytes()[:300]))
            ours.unlink(missing_ok=True)
    finally:
        alice.deephpc("serve", "stop", server)
    case = plain.cases[good[0]]
    if case.files:
        run_id = alice.submit("predict", image, *which, "--engine", engine, *RESOURCES, *words_of(case), "--wait")
        folder = alice.job(run_id)["job"]["folder"]
        row = json.loads(alice.box.run(f"cat {shlex.quote(folder)}/results.jsonl", user="alice").stdout.splitlines()[0])
        content = alice.box.on_host(row["output"]).read_bytes()
        if content != plain.answers[good[0]][2]:
            differences.append((case, plain.answers[good[0]][2][:300], content[:300]))
    assert differences == []


def sample_of(case: Case) -> list[tuple[str, str]]:
    return [*case.files.items(), *case.arguments.items()]


def words_of(case: Case) -> list[str]:
    """Return how `predict` is asked a case."""
    words = [word for key, file in case.files.items() for word in ("--input", f"{key}={file}")]
    words += [word for key, text in case.arguments.items() for word in ("--arg", f"{key}={text}")]
    return words + (["--accept", case.accept] if case.accept else [])
