import pytest

from deephpc.errors import InputError
from deephpc.serve import Client
from deephpc.serve.many import predict_each
from tests.node.gateway_process import gateway


@pytest.fixture(scope="module")
def client():
    with gateway() as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as opened:
            yield opened


def test_the_answers_come_in_the_order_of_the_inputs_and_a_failure_stops_none(client, tmp_path):
    inputs = []
    for number in range(20):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes(number))
        slow = "0.1" if number % 3 == 0 else "0"
        inputs.append([("image", str(path)), ("slow_s", slow)])
    inputs[7] = [("image", "/nowhere/at-all")]
    answers = list(predict_each(client, inputs, at_once=4))
    assert isinstance(answers.pop(7), InputError)
    assert [answer.value["size"] for answer in answers] == [number for number in range(20) if number != 7]


def test_inputs_are_only_taken_as_answers_are(client, tmp_path):
    taken = []

    def inputs():
        for number in range(1000):
            taken.append(number)
            yield [("image", str(tmp_path))]

    answers = predict_each(client, inputs(), at_once=2)
    assert isinstance(next(answers), InputError), "a folder is no file"
    answers.close()
    assert len(taken) == 4
