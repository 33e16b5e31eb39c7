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

SERVE = Path(__file__).resolve().parents[2] / "jobscripts" / "deepaas_serve.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return fetch_deepaas(tmp_path_factory.getbasetemp()) / "python"


@contextmanager
def serving(python, folder, text=None, environ=None, **service):
    module = folder / "module"
    module.mkdir()
    found = write_module(module, text) if text is not None else write_module(module)

    def words(socket):
        return [str(python), str(SERVE), "--socket", str(socket), "--expect", "demo-module"]

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


def test_a_module_that_fails_at_its_first_prediction_is_not_ready(python, tmp_path):
    with serving(python, tmp_path, environ={"DEMO_PREDICT": "fail"}) as running:
        assert running.wait_for_end() == 1
        assert "ValueError: no weights in the module" in running.last_event()["reason"]


def test_a_module_that_dies_while_it_warms_up_is_found_out(python, tmp_path):
    with serving(python, tmp_path, environ={"DEMO_WARM": "die"}) as running:
        wait_until(lambda: running.stages()[-1:] in (["ready"], ["failed"]), "an end of the warming")
        assert "died (killed by signal 9)" in (running.folder / "job.log").read_text()
