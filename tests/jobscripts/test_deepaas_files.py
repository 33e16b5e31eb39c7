"""What the driver of modules reads and leaves: inputs, results, names of files, interpreters, processes and signals."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from deepaas_answers import extension_of
from deepaas_arguments import BadArgumentError
from deepaas_loading import NoModuleError, interpreter_of, load_module
from deepaas_output import append_line, read_lines, write_file
from deepaas_prediction import Answers, file_name, load_done, load_inputs
from deepaas_server import died, plain, sent_name, watched_call
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.samples import A_TENTH


@A_TENTH
@given(st.text(min_size=1))
def test_any_key_gives_a_file_name_that_stays_in_its_folder(key):
    name = file_name(key)
    assert Path(name).name == name
    assert not name.startswith((".", "-"))
    assert len(name) <= 100


@A_TENTH
@given(st.sets(st.text(max_size=5), min_size=2, max_size=2))
def test_two_keys_never_share_a_file(keys):
    assert len({file_name(key) for key in keys}) == 2


def test_a_plain_key_is_its_own_file_name():
    assert file_name("cell_01.jpg") == "cell_01.jpg"
    assert file_name("a/b ü.pgm").startswith("a-b-.pgm-")


@pytest.mark.parametrize(
    "content_type, extension",
    [("application/json", ".json"), ("text/csv", ".csv"), ("image/png", ".png"), ("x/y", ".bin"), (None, ".bin")],
)
def test_answers_get_an_extension(content_type, extension):
    assert extension_of(content_type) == extension


@pytest.mark.parametrize(
    "path, name", [("/d/a\nb\r.png", "a_b_.png"), ("/d\n/ü x.png", "ü x.png"), ("/d/\x00\x7f", "__")]
)
def test_a_file_is_sent_under_a_name_without_control_characters(path, name):
    assert sent_name(path) == name


def test_inputs_are_read_and_told_apart_by_their_arguments(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('{"key": 1, "args": {"a": 1, "b": 2}}\n\n{"key": "2", "args": {"b": 2, "a": 1}}\n')
    first, second = load_inputs(str(file))
    assert (first.key, second.key) == ("1", "2")
    assert first.digest == second.digest


@pytest.mark.parametrize("line", ["{", "[]", '{"key": 1}', '{"key": 1, "args": 3}', '{"args": {}}'])
def test_a_bad_line_is_named(tmp_path, line):
    file = tmp_path / "in.jsonl"
    file.write_text(f'{{"key": 1, "args": {{}}}}\n{line}\n')
    with pytest.raises(BadArgumentError, match="line 2"):
        load_inputs(str(file))


def test_the_same_key_twice_is_refused(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('{"key": 1, "args": {}}\n{"key": "1", "args": {"x": 1}}\n')
    with pytest.raises(BadArgumentError, match="same key"):
        load_inputs(str(file))


def test_only_what_is_good_and_still_there_is_done(tmp_path):
    results = tmp_path / "results.jsonl"
    answers = Answers(str(tmp_path), str(results), None, False, [])
    assert load_done(answers) == set()
    (tmp_path / "a.json").write_text("{}")
    for key, ok, file in (("a", True, "a.json"), ("gone", True, "gone.json"), ("again", True, "a.json")):
        append_line(str(results), {"key": key, "ok": ok, "file": file, "digest": "d"})
    append_line(str(results), {"key": "again", "ok": False, "file": None, "digest": "d"})
    with results.open("a") as file:
        file.write('{"key": "cut", "ok": tr')
    assert load_done(answers) == {("a", "d")}


def test_a_line_after_one_that_was_cut_off_is_whole(tmp_path):
    path = str(tmp_path / "lines")
    append_line(path, {"n": 1})
    with Path(path).open("a") as file:
        file.write('{"n": 2')
    append_line(path, {"n": 3, "text": "ψ\n"})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3, "text": "ψ\n"}]
    assert list(read_lines(path + ".none")) == []


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "file"
    write_file(str(path), b"one")
    write_file(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "text, interpreter",
    [
        ("#!/opt/conda/bin/python3.8\nimport x\n", "/opt/conda/bin/python3.8"),
        ("#! /opt/venv/bin/python -E\n", "/opt/venv/bin/python"),
        ('#!/bin/sh\n\'\'\'exec\' "/a/long/way/python" "$0" "$@"\n', "/a/long/way/python"),
        ("#!/usr/bin/env sh\n", "/bin/sh"),
        ("\x7fELF", None),
        ("", None),
    ],
)
def test_the_interpreter_of_a_script_is_found(tmp_path, text, interpreter):
    script = tmp_path / "deepaas-run"
    script.write_text(text)
    found = interpreter_of(str(script))
    assert found == interpreter or (interpreter == "/bin/sh" and found.endswith("/sh"))


def test_that_nothing_is_installed_is_told_from_what_another_machine_may_import():
    with pytest.raises(NoModuleError, match="no module is installed") as caught:
        load_module(None, None)  # our environment has none
    assert caught.value.kind == "no-module"


def test_no_script_has_no_interpreter(tmp_path):
    assert interpreter_of(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    "end, told", [("os.kill(os.getpid(), 9)", "killed by signal 9"), ("os._exit(3)", "exit code 3")]
)
def test_a_dead_process_is_noticed(end, told):
    process = multiprocessing.get_context("fork").Process(target=exec, args=(f"import os; {end}",))
    assert died([process]) == ""
    process.start()
    process.join(20)
    assert told in died([process])
    assert ("memory" in died([process])) == ("signal 9" in told)


class UnsendableError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raise_unsendable(error):
    raise error


@pytest.mark.parametrize("error, kept", [(UnsendableError(1, 2), RuntimeError), (KeyError("x"), KeyError)])
def test_an_exception_that_cannot_be_sent_between_processes_arrives_as_one_that_can(tmp_path, capsys, error, kept):
    file = tmp_path / "error.txt"
    with pytest.raises(kept):
        watched_call(raise_unsendable, str(file), error)
    assert type(error).__name__ in file.read_text()
    assert "Traceback" in capsys.readouterr().err


def test_files_and_bytes_stay_as_they_are_and_numbers_become_plain(tmp_path):
    class Number32:
        def tolist(self):
            return 0.5

    with Path(os.devnull).open("rb") as file:
        assert plain(file) is file
    assert plain(b"x") == b"x"
    assert json.dumps(plain({"loss": Number32()})) == '{"loss": 0.5}'
