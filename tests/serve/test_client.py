"""The client against a real gateway with a real server behind it."""

import hashlib
import io
import mimetypes
import threading
from array import array
from pathlib import Path

import pytest

from deephpc.errors import InputError, ProgramError, SiteError
from deephpc.node.gateway_certificate import make_certificate
from deephpc.serve import Client
from deephpc.serve.connection import Address
from tests.fakes.waiting import DEADLINE_S
from tests.node.gateway_process import gateway


@pytest.fixture(scope="module")
def served():
    with gateway() as running:
        running.wait_for_stage("ready")
        yield running


@pytest.fixture
def client(served):
    with Client.of_run(served.folder, patience_s=DEADLINE_S) as opened:
        yield opened


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cell é.png"
    path.write_bytes(b"\x89PNG" + bytes(100_000))
    return path


def test_the_modules_and_their_arguments_are_told(client):
    assert client.models() == ("demo_module",)
    about = client.describe()
    assert about.metadata["description"] == "for tests"
    assert {one.argument.name for one in about.parameters} == {"image", "top", "labels", "slow_s", "accept"}


def test_a_prediction_sends_files_and_values_and_returns_the_answer(client, image):
    found = client.predict(image=image, top=3, labels=["a", "b"]).value
    assert found == {
        "size": 100_004,
        "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "filename": image.name,
        "top": "3",
        "labels": ["a", "b"],
    }


def test_what_a_client_has_to_learn_it_has_learnt_when_it_is_open(served, image):
    def asked():
        with served.session() as session:
            return [path for path, *_ in session.get("/seen").json()["requests"]]

    with Client.of_run(served.folder, patience_s=DEADLINE_S) as client:
        before = asked()
        client.predict(image=image)
        assert asked()[len(before) :] == ["/v2/models/demo_module/predict/", "/seen"]
    assert mimetypes.inited


def test_the_form_of_the_answer_is_the_callers(client, image, tmp_path):
    answer = client.predict(accept="text/csv", image=image)
    assert (answer.content_type, answer.value) == ("text/csv", "size\n100004\n")


def test_an_answer_can_go_straight_into_a_file_or_leaves_none(client, image, tmp_path):
    output = tmp_path / "out" / "answer.csv"
    with pytest.raises(InputError, match="cannot write"):
        client.predict_to(output, [("image", str(image))])
    output.parent.mkdir()
    with pytest.raises(InputError, match="needs image"):
        client.predict_to(output, [])
    assert not list(output.parent.iterdir())
    assert client.predict_to(output, [("image", str(image))], "text/csv") == "text/csv"
    assert output.read_text() == "size\n100004\n"


@pytest.mark.parametrize(
    ("arguments", "told", "hint"),
    [
        ({"imagee": "x"}, "no argument imagee", "did you mean image"),
        ({"top": 3}, "needs image", "image"),
        ({"image": "/nowhere/x.png"}, "cannot read /nowhere/x.png", "right file"),
        ({"image": "x", "accept": "image/gif"}, "does not answer in image/gif", "text/csv"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_sent(client, arguments, told, hint):
    with pytest.raises(InputError) as caught:
        client.predict(**arguments)
    assert told in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("top", "told", "hint"), [("many", "not a whole number", "int"), (9, "9 is too large", "5 or less")]
)
def test_a_value_that_the_module_refuses_is_told_in_our_words(client, image, top, told, hint):
    with pytest.raises(InputError) as caught:
        client.predict(image=image, top=top)
    assert told in caught.value.message
    assert hint in caught.value.hint


def test_a_file_argument_takes_what_python_has(client, image):
    content = image.read_bytes()
    with image.open("rb") as opened:
        several = [image, str(image), content, bytearray(content), io.BytesIO(content), ("a.png", content), opened]
        found = [client.predict(image=value).value for value in several]
        assert {one["size"] for one in found} == {100_004}
    names = [image.name, image.name, "input", "input", "input", "a.png", image.name]
    assert [one["filename"] for one in found] == names


def test_a_value_that_is_no_file_is_named_without_its_content(client):
    for value in (5, io.StringIO("text"), ("a.png", 5)):
        with pytest.raises(InputError, match="image is a file"):
            client.predict(image=value)


@pytest.mark.parametrize("labels", [["1", "2"], ("1", "2"), (each for each in "12"), array("i", [1, 2]), range(1, 3)])
def test_any_sequence_is_sent_item_by_item(client, image, labels):
    assert client.predict(image=image, labels=labels).value["labels"] == ["1", "2"]


def test_a_client_waits_while_the_server_starts(image):
    with gateway() as running:
        running.wait_for_stage("listening")
        with Client.of_run(running.folder, patience_s=DEADLINE_S) as client:
            assert client.predict(image=image).value["size"] == 100_004
        assert running.stages()[-1] == "ready"


def test_a_client_without_patience_says_that_the_server_is_not_ready():
    with gateway("hang") as running:
        running.wait_for_stage("warming")
        with pytest.raises(SiteError, match="not ready yet") as it:
            Client.of_run(running.folder, patience_s=0)
    assert it.value.transient


def test_a_module_that_fails_is_told_with_its_own_words(image):
    with gateway("fail", predicts_first=False) as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as client, pytest.raises(ProgramError, match="ValueError: no weights"):
            client.predict(image=image)


def test_a_server_with_another_certificate_is_refused_at_once(served):
    other = make_certificate("demo-1a2b", "localhost")
    pinned = served.address.endpoint.model_copy(update={"certificate": other.pem})
    with pytest.raises(SiteError, match="another certificate") as caught:
        Client(Address(pinned, served.address.token), patience_s=DEADLINE_S).open()
    assert not caught.value.transient


def test_a_wrong_token_is_refused(served):
    with pytest.raises(SiteError, match="refuses the token"):
        Client(Address(served.address.endpoint, "0" * 64)).open()


def test_a_run_without_a_server_is_told(tmp_path):
    with pytest.raises(InputError, match="has no server"):
        Client.of_run(tmp_path)


def test_nobody_listening_is_told(served):
    with pytest.raises(SiteError, match="cannot be reached"):
        Client(served.address.through(1), patience_s=0).open()


def test_the_token_is_not_in_the_text_of_an_address(served):
    assert served.address.token not in repr(served.address)


def test_one_client_serves_many_threads(client, image):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(client.predict(image=image, slow_s=0.05).value["size"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert found == [100_004] * 8


def test_a_relative_path_counts_from_here(client, image, monkeypatch):
    monkeypatch.chdir(image.parent)
    assert client.predict(image=Path(image.name)).value["size"] == 100_004
