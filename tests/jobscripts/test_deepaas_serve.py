"""A module served by a real DEEPaaS, with our gateway in front of it and our client before that."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from deephpc.errors import ProgramError
from deephpc.serve import Client
from tests.deepaas_environment import fetch_deepaas
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.jobscripts.served_module import write_module
from tests.node.gateway_process import gateway, processes_in
from tests.oracle.plain import MODULES

SERVE = Path(__file__).resolve().parents[2] / "jobscripts" / "deepaas_serve.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return fetch_deepaas(tmp_path_factory.getbasetemp()) / "python"


@contextmanager
def serving(python, folder, text=None, environ=None, *, more=(), **service):
    module = folder / "module"
    module.mkdir()
    found = write_module(module, text) if text is not None else write_module(module)

    def words(socket):
        return [str(python), str(SERVE), "--socket", str(socket), "--expect", "demo-module", *more]

    with gateway(words=words, environ={**found, **(environ or {})}, ready_within_s=DEADLINE_S, **service) as running:
        yield running
    assert not processes_in(running.folder)
    assert not [path for path in module.iterdir() if path.name.startswith("deepaas-")], "nothing is left in TMPDIR"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cell.png"
    path.write_bytes(bytes(12345))
    return path


def test_the_first_prediction_after_ready_loads_no_more_than_the_next_ones(python, tmp_path, image):
    with serving(python, tmp_path) as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as client:
            client.describe()
            for _ in range(2):
                found = client.predict(image=image).value
                assert (found["size"], found["warm"], found["first"]) == (12345, True, False)
            assert found["copies"] == 1, "copies of earlier uploads are gone"


def test_what_fails_in_the_module_is_told_and_stops_nothing(python, tmp_path, image):
    with serving(python, tmp_path) as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as client:
            with pytest.raises(ProgramError, match="ValueError: no weights in the module"):
                client.predict(image=image, what="fail")
            with pytest.raises(ProgramError):
                client.predict(image=image, what="die")
            assert client.predict(image=image).value["size"] == 12345
        assert "died (killed by signal 9)" in (running.folder / "job.log").read_text()


def test_a_module_that_fails_to_import_is_never_replaced_by_the_test_model(python, tmp_path):
    with serving(python, tmp_path, "import weights_that_are_not_there\n") as running:
        assert running.wait_for_end() == 1
        last = running.last_event()
        assert last["reason"] == f"the server ended with exit code 3: {last['last_lines'][-1]}"
        assert "No module named 'weights_that_are_not_there'" in last["last_lines"][-1]


def test_a_module_that_fails_at_its_first_prediction_is_not_ready_and_its_first_cause_is_told(python, tmp_path):
    text = (MODULES / "errors_from_errors.py").read_text()
    with serving(python, tmp_path, text, sample=(("how", "from"),)) as running:
        assert running.wait_for_end() == 1
        reason = running.last_event()["reason"]
    assert "RuntimeError: the prediction did not work (first cause: ValueError: the weights have 3 classes" in reason


def test_a_module_that_dies_while_it_warms_up_is_found_out(python, tmp_path):
    with serving(python, tmp_path, environ={"DEMO_WARM": "die"}) as running:
        wait_until(lambda: running.stages()[-1:] in (["ready"], ["failed"]), "an end of the warming")
        assert "died (killed by signal 9)" in (running.folder / "job.log").read_text()


#: Without get_metadata, for which DEEPaaS makes one up, whose id is 0.
SEVERAL = """
from webargs import fields, validate

def get_predict_args():
    one = validate.OneOf(["2019", "2026"])
    return {"timestamp": fields.Str(load_default="2019", validate=one), "x": fields.Str(required=True),
            "weights": fields.Str(required=True, validate=one), "renamed": fields.Int(data_key="fold", load_default=1)}

def predict(**arguments):
    return arguments
"""


def test_the_models_that_are_meant_answer_unless_others_are_asked_for(python, tmp_path):
    meant = ('timestamp="2026"', 'weights="2026"', "fold=5")
    with serving(python, tmp_path, SEVERAL, more=[word for each in meant for word in ("--default", each)]) as running:
        running.wait_for_stage("ready")
        with Client.of_run(running.folder) as client:
            known = {one.argument.name: one.argument for one in client.describe().parameters}
            assert {name: known[name].default for name in ("timestamp", "weights", "fold")} == {
                "timestamp": "2026",
                "weights": "2026",
                "fold": 5,
            }
            assert client.predict(x="a").value == {"timestamp": "2026", "weights": "2026", "renamed": 5, "x": "a"}
            other = client.predict(x="a", timestamp="2019", weights="2019", fold=2).value
            assert other == {"timestamp": "2019", "weights": "2019", "renamed": 2, "x": "a"}


@pytest.mark.parametrize(
    ("method", "fails", "told"),
    [
        ("predict", 'raise KeyError("labels")', "fails in its get_predict_args: KeyError: 'labels'"),
        ("train", 'open("/srv/none/data.yaml")', "fails in its get_train_args: FileNotFoundError: [Errno 2]"),
        ("predict", "return [1]", "is wrong: its get_predict_args returns a list, not a dict of arguments"),
    ],
)
def test_a_module_that_cannot_say_what_it_takes_is_named_as_the_cause(python, tmp_path, method, fails, told):
    text = f"def predict(): ...\n\n\ndef get_{method}_args():\n    {fails}\n"
    with serving(python, tmp_path, text) as running:
        assert running.wait_for_end() == 1
        last = running.last_event()
    assert last["reason"].startswith("the server ended with exit code 3: deepaas_module: the module demo_module ")
    assert told in last["reason"]
