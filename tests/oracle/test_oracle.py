"""Whatever a plain DEEPaaS server answers, deephpc answers: by a server and its client, in a batch, in a training."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deephpc.errors import DeephpcError, InputError, ProgramError
from deephpc.places import shipped
from deephpc.serve import Client
from deephpc.serve.answers import body_error
from tests.deepaas_environment import ENVIRON, fetch_deepaas
from tests.fakes.waiting import DEADLINE_S
from tests.node.gateway_process import gateway
from tests.oracle import cases
from tests.oracle.plain import Answer, Case, ask_plainly, install_modules, plain_server, train_plainly

pytestmark = pytest.mark.slow

DRIVER, SERVE = shipped("jobscripts") / "deepaas_module.py", shipped("jobscripts") / "deepaas_serve.py"
SAMPLES = {"cell.png": b"\x89PNG\r\n\x1a\n", "cells.zip": b"PK\x03\x04", "ü (1).png": b"picture"}


class Desk:
    """The modules, installed, and for each of them a plain server and ours, started when they are asked for."""

    def __init__(self, programs: Path, folder: Path, stack: ExitStack) -> None:
        self.programs, self.folder, self._stack = programs, folder, stack
        self.samples = folder / "samples"
        self.samples.mkdir()
        for name, content in SAMPLES.items():
            (self.samples / name).write_bytes(content)
        self.environ = install_modules(folder / "modules")
        self._plain: dict[str, httpx.Client] = {}
        self._ours: dict[str, Client] = {}

    def plain(self, case: Case) -> Answer:
        return ask_plainly(self.plain_client(case), case, self.samples)

    def plain_client(self, case: Case) -> httpx.Client:
        if case.module not in self._plain:
            server = plain_server(self.programs, self.environ, case.module, self.folder)
            self._plain[case.module] = self._stack.enter_context(server)
        return self._plain[case.module]

    def ours(self, case: Case) -> Answer:
        """Ask our server by our client; raises what that raises."""
        found = self.client(case.module).predict_texts(self.pairs(case), case.accept)
        return Answer(200, found.content_type, found.content)

    def client(self, module: str) -> Client:
        if module not in self._ours:
            words = [str(self.programs / "python"), str(SERVE), "--model", module]
            running = self._stack.enter_context(
                gateway(
                    words=lambda socket: [*words, "--socket", str(socket)],
                    environ={**self.environ, "TMPDIR": str(self.folder)},
                    model=module,
                    ready_within_s=DEADLINE_S,
                )
            )
            running.wait_for_stage("ready")
            self._ours[module] = self._stack.enter_context(Client.of_run(running.folder))
        return self._ours[module]

    def batch(self, several: list[Case]) -> list[dict[str, Any]]:
        """Predict in a batch of one module; return its lines of results, with the answers' contents."""
        module, accept = several[0].module, several[0].accept
        folder = self.folder / f"batch-{len(list(self.folder.glob('batch-*')))}"
        folder.mkdir()
        lines = [{"key": str(number), "args": self.values(case)} for number, case in enumerate(several)]
        (folder / "inputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        words = ["predict", "--inputs", folder / "inputs.jsonl", "--output", folder / "out", "--model", module]
        self.drive(*words, *(["--accept", accept] if accept else []))
        found = map(json.loads, (folder / "out" / "results.jsonl").read_text().splitlines())
        return [
            {**line, "content": (folder / "out" / line["file"]).read_bytes() if line["ok"] else b""} for line in found
        ]

    def drive(self, *words: object) -> subprocess.CompletedProcess[str]:
        argv = [str(self.programs / "python"), str(DRIVER), *map(str, words)]
        environ = {**ENVIRON, **self.environ, "TMPDIR": str(self.folder)}
        return subprocess.run(
            argv, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def pairs(self, case: Case) -> list[tuple[str, str]]:
        return [*case.arguments, *((name, str(self.samples / file)) for name, file in case.files)]

    def values(self, case: Case) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, text in self.pairs(case):
            before = values.get(name)
            values[name] = text if before is None else [*(before if isinstance(before, list) else [before]), text]
        return values


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    programs = fetch_deepaas(tmp_path_factory.getbasetemp())
    with ExitStack() as stack:
        yield Desk(programs, tmp_path_factory.mktemp("oracle"), stack)


def by_form(several: list[Case]) -> list[list[Case]]:
    """Return cases of one module and one form together: a batch has one of each."""
    groups: dict[tuple[str, str | None], list[Case]] = {}
    for case in several:
        groups.setdefault((case.module, case.accept), []).append(case)
    return list(groups.values())


def said_by(call: Callable[[Case], Answer], case: Case) -> DeephpcError:
    with pytest.raises(DeephpcError) as caught:
        call(case)
    return caught.value


@pytest.mark.parametrize("case", cases.GOOD, ids=str)
def test_a_server_answers_as_a_plain_one(desk: Desk, case: Case) -> None:
    plain = desk.plain(case)
    assert plain.status == 200
    assert desk.ours(case) == plain


@pytest.mark.parametrize("group", by_form(cases.GOOD), ids=lambda group: f"{group[0].module}-{group[0].accept}")
def test_a_batch_answers_as_a_plain_server(desk: Desk, group: list[Case]) -> None:
    for case, line in zip(group, desk.batch(group), strict=True):
        assert line["error"] is None, case
        assert line["content"] == desk.plain(case).content, case


@pytest.mark.parametrize("case, holds", cases.LONG.values(), ids=cases.LONG)
def test_arguments_of_any_length_arrive(desk: Desk, case: Case, holds: str) -> None:
    assert holds in desk.ours(case).content.decode()


@pytest.mark.parametrize(
    "group", by_form([case for case, _ in cases.LONG.values()]), ids=lambda group: f"{group[0].module}"
)
def test_arguments_of_any_length_arrive_in_a_batch(desk: Desk, group: list[Case]) -> None:
    wanted = [holds for case, holds in cases.LONG.values() if case in group]
    for line, holds in zip(desk.batch(group), wanted, strict=True):
        assert line["error"] is None
        assert holds in line["content"].decode()


def test_a_form_of_answer_that_nobody_names_is_json(desk: Desk) -> None:
    for case, line in zip(cases.NOT_TOLD, desk.batch(cases.NOT_TOLD), strict=True):
        plain = desk.plain(replace(case, accept="application/json"))
        assert plain.status == 200
        assert desk.ours(case) == plain
        assert line["content"] == plain.content


@pytest.mark.parametrize("case", cases.ALWAYS_JSON, ids=str)
def test_an_answer_in_another_form_than_was_asked_for_is_none(desk: Desk, case: Case, tmp_path: Path) -> None:
    assert desk.plain(case).content_type == "application/json"
    told = f"{case.accept} was asked for, and the module answered application/json"
    with pytest.raises(ProgramError, match=re.escape(told)):
        desk.client(case.module).predict_to(tmp_path / "out.zip", desk.pairs(case), case.accept)
    assert list(tmp_path.iterdir()) == []
    [line] = desk.batch([case])
    assert (line["ok"], line["file"]) == (False, None)
    assert line["error"] == f"asked for {case.accept}, the module answered application/json"


@pytest.mark.parametrize("case", cases.IN_THE_BODY, ids=str)
def test_an_error_in_the_body_is_a_failure(desk: Desk, case: Case) -> None:
    plain = desk.plain(case)
    assert plain.status == 200
    told = body_error(plain.value)
    assert told
    error = said_by(desk.ours, case)
    assert isinstance(error, ProgramError)
    assert told in error.message
    [line] = desk.batch([case])
    assert not line["ok"]
    assert told in line["error"]


@pytest.mark.parametrize("case", cases.REFUSED, ids=str)
def test_what_a_plain_server_refuses_is_refused(desk: Desk, case: Case) -> None:
    assert desk.plain(case).status == 422
    assert isinstance(said_by(desk.ours, case), InputError)
    [line] = desk.batch([case])
    assert not line["ok"]


@pytest.mark.parametrize("case, told", cases.FAILED, ids=str)
def test_what_fails_in_a_plain_server_fails_with_its_first_cause(desk: Desk, case: Case, told: str) -> None:
    assert desk.plain(case).status == 500
    assert told in said_by(desk.ours, case).message
    [line] = desk.batch([case])
    assert told in line["error"]


@pytest.mark.parametrize("case, told", cases.HANGS, ids=str)
def test_where_a_plain_server_never_answers_ours_says_what_the_module_said(desk: Desk, case: Case, told: str) -> None:
    assert told in said_by(desk.ours, case).message
    [line] = desk.batch([case])
    assert told in line["error"]


@pytest.mark.parametrize("case", cases.TRAININGS, ids=str)
def test_a_training_receives_what_a_plain_server_gives_it(desk: Desk, case: Case) -> None:
    plain = train_plainly(desk.plain_client(case), case)
    output = desk.folder / f"train-{case}"[:100]
    words = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in desk.values(case).items()
    ]
    done = desk.drive("train", "--model", case.module, "--output", output, "--", *words)
    assert done.returncode == 0, done.stderr
    status = json.loads((output / "train.json").read_text())
    assert status.keys() == plain.keys()
    assert (status["status"], status["result"]["output"]) == (plain["status"], plain["result"]["output"])
    assert status["args"] == plain["args"]


@pytest.mark.parametrize("case, output", cases.TRAININGS_WITH_FILES, ids=str)
def test_a_training_is_given_a_file_by_the_name_that_requests_have(
    desk: Desk, case: Case, output: dict[str, Any]
) -> None:
    folder = desk.folder / f"train-{case}"[:100]
    words = [f"--{name}={value}" for name, value in desk.values(case).items()]
    done = desk.drive("train", "--model", case.module, "--output", folder, "--", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "train.json").read_text())["result"]["output"] == output


@pytest.mark.parametrize("case, told", [*cases.FAILED[1:4], *cases.HANGS], ids=str)
def test_a_failed_training_is_told_with_its_first_cause(desk: Desk, case: Case, told: str) -> None:
    words = [f"--{name}={value}" for name, value in case.arguments]
    done = desk.drive("train", "--model", case.module, "--output", desk.folder / "train-fails", "--", *words)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("deepaas_module: the training of errors_from_errors failed: ")
    assert told in last


def test_a_training_that_answers_with_a_file_leaves_it(desk: Desk) -> None:
    output = desk.folder / "train-pdf"
    words = ("--text=ψ", "--accept=application/pdf")
    done = desk.drive("train", "--model", "every_form", "--output", output, "--", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "train.json").read_text())["result"]["output"] == "answer.pdf"
    assert (output / "answer.pdf").read_text() == "%PDF-1.7\nψ"
