"""The real `deephpc predict SERVER`, on a real gateway whose job stands in the queue of a fake Slurm."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.programs import CommandLine
from tests.fakes.serving import RUN, serving


@pytest.fixture(scope="module")
def deephpc(tmp_path_factory) -> CommandLine:
    command = CommandLine.make(tmp_path_factory.mktemp("home"))
    (command.home / "cells").mkdir()
    for number, name in enumerate(("a", "größe 'q'", "c"), start=1):
        (command.home / "cells" / f"{name}.png").write_bytes(bytes(number))
    return command


@pytest.fixture(scope="module")
def served(deephpc: CommandLine):
    with serving(deephpc) as one:
        one.running.wait_for_stage("ready")
        yield one


def test_one_answer_goes_to_stdout_as_it_came(deephpc, served):
    done = deephpc("predict", "serve-demo", "--input", "image=cells/c.png", "--arg", "top=3", "--arg", "labels=x")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["predictions"]
    assert (found["size"], found["top"], found["labels"], found["filename"]) == (3, "3", ["x"], "c.png")


def test_on_a_terminal_json_is_indented(deephpc, served):
    ours, theirs = pty.openpty()
    words = [Path(sys.executable).with_name("deephpc"), "predict", RUN, "--input", "image=cells/c.png"]
    with os.fdopen(ours, "rb", buffering=0) as shown:
        subprocess.run(words, cwd=deephpc.home, env=deephpc.environ(), stdout=theirs, check=True, timeout=120)
        os.close(theirs)
        assert b'  "predictions": {\r\n    "size": 3,\r\n' in shown.read(100_000)


def test_its_form_and_its_file_are_the_users(deephpc, served):
    words = ("predict", RUN, "--input", "image=cells/c.png", "--accept", "text/csv")
    done = deephpc(*words, "--output", "out.csv")
    assert (done.returncode, done.stdout) == (0, f"{deephpc.home}/out.csv\n")
    assert (deephpc.home / "out.csv").read_text() == "size\n3\n"
    assert deephpc(*words).stdout == "size\n3\n"


def test_as_json_it_is_one_object(deephpc, served):
    told = json.loads(deephpc("--json", "predict", RUN, "--input", "image=cells/a.png").stdout)
    assert (told["schema"], told["model"]) == ("deephpc.answers/1", "demo_module")
    (answer,) = told["answers"]
    assert (answer["ok"], answer["value"]["size"], answer["error"]) == (True, 1, None)


def test_many_inputs_give_a_line_each_in_their_order(deephpc, served):
    done = deephpc("predict", RUN, "--input", "image=cells/*.png", "--at-once", "2")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["input"]["image"]).stem for line in lines] == ["a", "c", "größe 'q'"]
    assert [line["value"]["size"] for line in lines] == [1, 3, 2]
    assert "3 of 3 inputs have an answer" in done.stderr


def test_many_answers_go_into_a_folder_under_the_names_of_their_inputs(deephpc, served):
    done = deephpc("predict", RUN, "--input", "image=cells", "--output", "answers")
    files = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(files) == sorted((deephpc.home / "answers").iterdir())
    assert [file.name.partition("-")[0] for file in files] == ["a", "c", "groe"]
    assert [json.loads(file.read_text())["predictions"]["size"] for file in files] == [1, 3, 2]
    assert {file.suffix for file in files} == {".json"}


def test_what_only_a_batch_takes_is_refused(deephpc, served):
    done = deephpc("predict", RUN, "--input", "image=cells/a.png", "--time", "30")
    assert done.returncode == 2
    assert "--time is for batches of jobs" in done.stderr


def test_a_dry_run_asks_nothing(deephpc, served):
    done = deephpc("predict", RUN, "--input", "image=cells/a.png", "--arg", "top=2", "--dry-run")
    assert done.stdout == f"image={deephpc.home}/cells/a.png top=2\n"


def test_what_looks_like_a_server_and_is_none_is_told(deephpc, served):
    done = deephpc("predict", "serve-other-77", "--input", "image=cells/a.png")
    assert done.returncode == 2
    assert "no run named 'serve-other-77'" in done.stderr


def test_a_module_that_fails_is_told_input_by_input(tmp_path):
    deephpc = CommandLine.make(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_text("x")
    with serving(deephpc, "fail", predicts_first=False) as failing:
        failing.running.wait_for_stage("ready")
        done = deephpc("predict", RUN, "--input", "image=*.png")
        one = deephpc("predict", RUN, "--input", "image=a.png")
    assert (done.returncode, one.returncode) == (6, 6)
    assert "ValueError: no weights" in one.stderr
    assert "2 of 2 inputs have no answer; a-" in done.stderr
    assert [json.loads(line)["ok"] for line in done.stdout.splitlines()] == [False, False]


def test_another_certificate_is_refused_by_name(tmp_path):
    deephpc = CommandLine.make(tmp_path)
    (tmp_path / "a.png").write_text("x")
    with serving(deephpc) as one, serving_elsewhere() as other:
        one.running.wait_for_stage("ready")
        other.wait_for_stage("ready")
        path = one.running.folder / "endpoint.json"
        changed = json.loads(path.read_text())
        changed["port"] = other.address.endpoint.port
        path.write_text(json.dumps(changed))
        done = deephpc("predict", RUN, "--input", "image=a.png")
    assert done.returncode == 3
    assert "has another certificate than the server of" in done.stderr


def serving_elsewhere():
    """Another gateway, such as one that took the port of a server that ended."""
    from tests.node.gateway_process import gateway

    return gateway()
