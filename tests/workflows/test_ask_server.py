"""What is asked of a server, with a real server that says what it takes."""

import json
from pathlib import Path

import pytest

from deephpc.errors import InputError, ProgramError, SiteError
from deephpc.serve import Client
from deephpc.workflows.ask_server import Answer, AskWords, Question, ask, check_answers, plan_asks
from tests.node.gateway_process import gateway


@pytest.fixture(scope="module")
def client():
    with gateway() as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as opened:
            yield opened


@pytest.fixture
def cells(tmp_path):
    for number, name in enumerate(("a", "größe 'q'", "c"), start=1):
        (tmp_path / f"{name}.png").write_bytes(bytes(number))
    return tmp_path


def plan(client, cells, *inputs, **more):
    return plan_asks(AskWords(tuple(f"image={text}" for text in inputs), **more), client.describe(), cells)


def test_each_input_is_a_question_and_arguments_belong_to_all(client, cells):
    asked = plan(client, cells, "*.png", arguments=("top=2", 'labels=["x", "y"]'))
    assert [Path(one.inputs["image"]).stem for one in asked.questions] == ["a", "c", "größe 'q'"]
    for one in asked.questions:
        assert one.pairs == (("image", one.inputs["image"]), ("top", "2"), ("labels", "x"), ("labels", "y"))
    assert asked.is_many


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (AskWords(("imge=a.png",)), "no argument --input imge"),
        (AskWords(("image=a.png",), ("tpo=1",)), "no argument --arg tpo"),
        (AskWords(("image=a.png",), ("=1",)), "is not NAME=VALUE"),
        (AskWords(("image=a.png",), ("image=c.png",)), "given by --arg and by --input"),
        (AskWords((), ("top=1",)), "needs --input image"),
        (AskWords(("image=",)), "is not NAME=FILES"),
        (AskWords(("image=nowhere/*.png",)), "meets no file"),
        (AskWords(("image=no\nwhere",)), "meets no file"),
        (AskWords(("image=a.png",), accept="image/gif"), "image/gif"),
        (AskWords((), ("image=a.png",), output=Path()), "is a folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(client, cells, words, told):
    with pytest.raises(InputError) as caught:
        plan_asks(words, client.describe(), cells)
    assert told in caught.value.message
    assert caught.value.hint


def test_one_answer_goes_into_a_file_or_under_its_name_into_a_folder(client, cells):
    (answer,) = ask(client, plan(client, cells, "a.png", output=Path("out.json"), accept="text/csv"))
    assert answer.output == cells / "out.json"
    assert answer.output.read_text() == "size\n1\n"
    (cells / "answers").mkdir()
    (answer,) = ask(client, plan(client, cells, "a.png", output=Path("answers")))
    assert answer.output.name.startswith("a-")
    assert json.loads(answer.output.read_text())["predictions"]["size"] == 1


def test_a_folder_that_cannot_be_made_is_told_and_asks_nothing(client, cells):
    with pytest.raises(InputError, match="answers"):
        (cells / "answers").write_text("")
        ask(client, plan(client, cells, "*.png", output=Path("answers")))


def test_an_answer_that_cannot_be_written_stops_no_other(client, cells):
    (cells / "answers").mkdir()
    asked = plan(client, cells, "*.png", output=Path("answers"))
    (cells / "answers" / asked.questions[0].key).mkdir()
    answers = list(ask(client, asked))
    assert [one.error is None for one in answers] == [False, True, True]
    with pytest.raises(InputError, match="1 of 3 inputs have no answer; a-"):
        check_answers([one for one in answers if one.error], 3)


def test_the_one_failure_is_told_as_it_is():
    error = SiteError("the node is gone", "look", transient=True)
    with pytest.raises(SiteError) as caught:
        check_answers([Answer(Question("", {}, ()), 0.1, error=error)], 1)
    assert caught.value is error
    with pytest.raises(ProgramError, match="2 of 2 inputs have no answer"):
        check_answers([Answer(Question("k", {}, ()), 0.1, error=ProgramError("no weights"))] * 2, 2)
