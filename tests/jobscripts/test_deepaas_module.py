"""Real modules in a real DEEPaaS 2.6.0, driven as a job does: the example, and odd ones written here."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deephpc.places import shipped
from deephpc.serve.module_description import parse_description
from tests.deepaas_environment import ENVIRON, EXAMPLE, fetch_deepaas
from tests.fakes.waiting import is_alive

pytestmark = pytest.mark.slow

SCRIPT = shipped("jobscripts") / "deepaas_module.py"
SAMPLES = EXAMPLE / "samples"
ODD = """
import atexit, os, signal, sys, threading
import numpy
from webargs import fields

class OddError(Exception):
    def __init__(self, one, two):
        super().__init__("it was odd")

def get_train_args():
    return {"how": fields.Str(load_default="well"), "steps": fields.Int(load_default=2),
            "many": fields.List(fields.Int(), load_default=[1])}

def train(how, steps, many):
    stop = threading.Event()
    for name in ("SIGUSR1", "SIGTERM"):
        if name in how:
            signal.signal(getattr(signal, name), lambda *_: stop.set())
    print("begun, πρῶτα", flush=True)
    print("on stderr", file=sys.stderr, flush=True)
    if how == "leaves":
        import subprocess
        for script in ("sleep 987 & wait", "trap '' TERM; while :; do sleep 0.2; done"):
            print("left", subprocess.Popen(["sh", "-c", script]).pid, flush=True)
        import multiprocessing
        for daemon in (True, False):  # as the reference module of the catalogue starts its TensorBoard
            worker = multiprocessing.Process(target=subprocess.call, args=(["sleep", "986"],), daemon=daemon)
            worker.start()
            print("left", worker.pid, flush=True)
        helper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        print("left", helper.pid, flush=True)
        def send():  # as libraries do that send what they have at the very end
            print("sent", helper.communicate(b"the rest")[0].decode(), helper.returncode, flush=True)
        atexit.register(send)
        def dies(*_):  # as PyTorch does when a worker of its loaders is ended
            raise RuntimeError("a worker was killed")
        signal.signal(signal.SIGCHLD, dies)
        return {}
    if how == "odd":
        raise OddError(1, 2)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    for step in range(steps):
        if stop.wait(0.1):
            return {"stopped": True}
    return {"loss": numpy.float32(0.5), "array": numpy.arange(3), "many": many}
"""
#: Everything deepaas-cli wants, and a prediction that goes wrong in every way.
WILD = """
import io, os, time
import numpy
from webargs import fields

def get_metadata():
    raise RuntimeError("no metadata today")
def get_train_args():
    return {}
def train():
    return {"loss": numpy.float32(0.25)}
def get_predict_args():
    return {"how": fields.Str(required=True), "settings": fields.Str(load_default="{}"),
            "table": fields.Dict(load_default={})}
def predict(how, settings, table):
    if how == "slow":
        print("begun", flush=True)
        time.sleep(600)
    if how == "die":
        os._exit(9)
    if how == "set":
        return {"a", "b"}
    if how == "object":
        return io.StringIO("x")
    return {"how": how, "settings": settings, "table": table, "number": numpy.int64(3)}
"""


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch_deepaas(tmp_path_factory.getbasetemp())


Drive = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a job gives: own folders, and a temporary folder that must be empty at the end."""
    (tmp_path / "tmp").mkdir()
    return {**ENVIRON, "MODELS_DIR": str(tmp_path / "models"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def drive(programs: Path, environ: dict[str, str], tmp_path: Path) -> Drive:
    def run(*words: str | Path, python: Path | str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [str(python or programs / "python"), str(SCRIPT), *map(str, words)]
        return subprocess.run(
            argv, cwd=tmp_path, env={**environ, **more}, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def add_module(folder: Path, name: str, source: str) -> dict[str, str]:
    """Install a module by hand; returns the variables with which Python finds it."""
    place = folder / "modules"
    info = place / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (place / f"{name}.py").write_text(textwrap.dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[deepaas.v2.model]\n{name} = {name}\n")
    return {"PYTHONPATH": str(place), "DEEPAAS_V2_MODEL": name}


def write_inputs(folder: Path, **inputs: dict[str, Any]) -> Path:
    file = folder / "inputs.jsonl"
    file.write_text("".join(json.dumps({"key": key, "args": values}) + "\n" for key, values in inputs.items()))
    return file


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {one["key"]: one for one in map(json.loads, lines)}


def test_a_module_tells_where_it_keeps_its_models(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    source = f"import types; MODELS_PATH = '{tmp_path}/weights'; DATA_PATH = 'data'"
    done = drive("describe", "--output", "d.json", **add_module(tmp_path, "elsewhere", source))
    assert done.returncode == 0, done.stderr
    folders = parse_description((tmp_path / "d.json").read_bytes()).folders
    assert (folders.data, folders.models) == ((), (f"{tmp_path}/weights",))


def test_the_module_is_described_as_deephpc_reads_it(drive: Drive, tmp_path: Path) -> None:
    done = drive("describe", "--expect", "DEEPaaS-digits", "--output", "d.json")
    assert done.returncode == 0, done.stderr
    found = parse_description((tmp_path / "d.json").read_bytes())
    assert (found.deepaas, found.models, found.served) == ("2.6.0", ("deepaas_digits",), "deepaas_digits")
    assert found.train.exists and found.predict.exists
    train = {each.name: each for each in found.train.arguments}
    assert (train["epochs"].type, train["epochs"].default, train["epochs"].min) == ("int", 15, 1)
    assert train["activation"].choices == ("relu", "tanh")
    assert (train["digits"].type, train["digits"].items) == ("list", "int")
    image = found.predict.arguments[0]
    assert (image.name, image.type, image.required) == ("image", "file", True)


def test_what_a_module_prints_is_no_part_of_the_description(drive: Drive, tmp_path: Path) -> None:
    chatty = add_module(tmp_path, "chatty", "print('hello')\ndef predict(): ...\n")
    done = drive("describe", **chatty)
    assert json.loads(done.stdout)["served"] == "chatty"
    assert "hello" in done.stderr


def test_a_module_that_fails_to_import_is_refused_with_its_traceback(drive: Drive, tmp_path: Path) -> None:
    broken = add_module(tmp_path, "broken", "import nowhere_to_be_found\n")
    done = drive("describe", "--output", "d.json", **broken)
    assert done.returncode == 3
    error = json.loads((tmp_path / "d.json").read_text())["error"]
    assert "nowhere_to_be_found" in error["message"]
    assert "Traceback" in error["traceback"]
    assert error["kind"] == ""
    for verb in (["train"], ["predict", "--inputs", "x"]):
        assert drive(*verb, **broken).returncode == 3


@pytest.mark.parametrize(
    "method, fails, told",
    [
        ("train", 'open("data.yaml")', "FileNotFoundError: [Errno 2] No such file or directory: 'data.yaml'"),
        ("predict", 'raise KeyError("labels")', "KeyError: 'labels'"),
        ("predict", "return [1]", "returns a list, not a dict of arguments"),
        ("train", "from .nowhere import fields", "ImportError: attempted relative import"),
    ],
)
def test_a_module_that_cannot_say_what_it_takes_is_named_as_the_cause(
    drive: Drive, tmp_path: Path, method: str, fails: str, told: str
) -> None:
    methods = "".join(f"def {name}(): ...\n" for name in ("train", "predict"))
    broken = add_module(tmp_path, "broken", f"{methods}def get_{method}_args():\n    {fails}\n")
    driven = [["describe", "--output", "d.json"], ["predict", "--inputs", str(write_inputs(tmp_path, one={}))]]
    for words in [*driven, *([["train"]] if method == "train" else [])]:
        done = drive(*words, **broken)
        assert done.returncode == 3, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("deepaas_module: the module broken "), done.stderr
        assert f"its get_{method}_args" in last and told in last
        assert str(SCRIPT.parent) not in done.stderr
    error = parse_description((tmp_path / "d.json").read_bytes()).error
    assert error is not None
    assert (told in error.message, error.kind) == (True, "")


def test_what_deepaas_overlooks_in_a_module_is_told_and_stops_nothing(drive: Drive, tmp_path: Path) -> None:
    careless = add_module(tmp_path, "careless", "def predict(): return 1\ndef get_train_args(): return None.args\n")
    done = drive("predict", "--inputs", write_inputs(tmp_path, one={}), "--output", "answers", **careless)
    assert done.returncode == 0, done.stderr
    assert "get_train_args of careless fails, so that it takes no arguments: AttributeError: " in done.stderr
    assert load_results(tmp_path / "answers")["one"]["result"]["predictions"] == 1


@pytest.mark.parametrize("given", [{}, {"RCLONE_RETRIES": "7"}, {"RCLONE_CONTIMEOUT": "", "RCLONE_CONFIG": "/r.conf"}])
def test_a_module_that_calls_rclone_does_not_hang_offline_unless_told_otherwise(
    drive: Drive, tmp_path: Path, given: dict[str, str]
) -> None:
    source = """
    import os
    SEEN = {name: value for name, value in os.environ.items() if name.startswith("RCLONE_")}
    def get_metadata(): return SEEN
    def predict(): ...
    """
    done = drive("describe", **add_module(tmp_path, "calls_rclone", source), **given)
    seen = json.loads(done.stdout)["metadata"]
    assert seen == {"RCLONE_CONTIMEOUT": "1s", "RCLONE_RETRIES": "1", **given}


@pytest.mark.parametrize("name", ["deepaas-test", "no_such_module"])
def test_the_stand_in_of_deepaas_is_never_taken(drive: Drive, name: str) -> None:
    done = drive("train", DEEPAAS_V2_MODEL=name)
    assert done.returncode == 3
    assert "no module" in done.stderr


def test_several_modules_are_told_apart_by_the_expected_name(drive: Drive, tmp_path: Path) -> None:
    several = {**add_module(tmp_path, "other_one", "def train(): return 1\n"), "DEEPAAS_V2_MODEL": ""}
    assert "say which with --model: deepaas_digits, other_one" in drive("describe", **several).stderr
    for words in (["--expect", "other-one"], ["--model", "other_one"]):
        assert json.loads(drive("describe", *words, **several).stdout)["served"] == "other_one"


def test_the_python_that_has_deepaas_is_found_from_another(drive: Drive, programs: Path, tmp_path: Path) -> None:
    path = f"{programs}:{os.environ['PATH']}"
    assert json.loads(drive("describe", python=sys.executable, PATH=path).stdout)["served"] == "deepaas_digits"
    without = drive("describe", "--output", "d.json", python=sys.executable, PATH="/usr/bin:/bin")
    assert without.returncode == 3
    assert "has no DEEPaaS" in without.stderr
    failure = parse_description((tmp_path / "d.json").read_bytes()).error
    assert failure is not None
    assert failure.kind == "no-deepaas"


def test_training_leaves_the_result_in_deepaas_form(drive: Drive, tmp_path: Path) -> None:
    done = drive("train", "--output", "out", "--", "--epochs", "4", "--digits", "[1, 7]", "--augment", "--seed=3")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "train.json").read_text())
    assert result["status"] == "done"
    assert (result["args"]["digits"], result["args"]["augment"], result["args"]["seed"]) == ([1, 7], True, 3)
    assert result["result"]["output"]["accuracy"] > 0.9
    assert "ℓ" in done.stdout
    assert re.search(r"^deepaas-digits: \d+ images", done.stderr, re.MULTILINE)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["train.json"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--epoch", "3"], "did you mean --epochs?"),
        (["--epochs", "0"], "Must be greater than or equal to 1"),
        (["--activation", "swish"], "Must be one of"),
    ],
)
def test_arguments_that_do_not_fit_end_with_2_before_anything_runs(drive: Drive, words: list[str], told: str) -> None:
    done = drive("train", "--", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "epoch 1" not in done.stdout


def test_a_failed_training_ends_with_1_and_its_reason_last(drive: Drive, tmp_path: Path) -> None:
    done = drive("train", "--output", "out", "--", "--data", "missing.csv")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "FileNotFoundError" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_numpy_number_does_not_cost_the_result(drive: Drive, tmp_path: Path) -> None:
    done = drive("train", "--output", "out", **add_module(tmp_path, "wild", WILD))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "train.json").read_text())["result"]["output"] == {"loss": 0.25}


def test_what_a_training_leaves_running_ends_with_it(drive: Drive, tmp_path: Path) -> None:
    done = drive("train", "--output", "out", "--", "--how", "leaves", **add_module(tmp_path, "odd", ODD))
    assert done.returncode == 0, done.stderr
    left = re.findall(r"left (\d+)", done.stdout + done.stderr)
    assert len(left) == 5
    assert not subprocess.run(["pgrep", "-f", "^sleep 986"], capture_output=True, check=False).stdout
    assert "sent the rest 0" in done.stdout
    assert not [pid for pid in left if is_alive(int(pid))]
    assert (tmp_path / "out" / "train.json").exists()


def test_a_module_without_a_prediction_is_trained(drive: Drive, tmp_path: Path) -> None:
    done = drive("train", "--output", "out", "--", "--many", "[1, 2]", **add_module(tmp_path, "odd", ODD))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "train.json").read_text())
    assert {"date", "args", "uuid", "status", "result"} <= result.keys()
    assert result["result"]["output"] == {"loss": 0.5, "array": [0, 1, 2], "many": [1, 2]}
    assert "πρῶτα" in done.stdout
    assert "on stderr" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("name, words", [("deepaas_digits", ["--epochs", "1"]), ("odd", [])])
def test_of_several_ranks_the_first_alone_leaves_the_result(
    drive: Drive, tmp_path: Path, name: str, words: list[str]
) -> None:
    more = add_module(tmp_path, "odd", ODD) if name == "odd" else {}
    for rank, left in (("1", []), ("0", ["train.json"])):
        done = drive("train", "--output", "out", "--", *words, **more, DEEPHPC_RANK=rank)
        assert done.returncode == 0, done.stderr
        assert [each.name for each in (tmp_path / "out").iterdir()] == left
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("how, code, told", [("odd", 1, "OddError: it was odd"), ("die", -9, "on stderr")])
def test_a_training_that_fails_says_why(drive: Drive, tmp_path: Path, how: str, code: int, told: str) -> None:
    done = drive("train", "--", "--how", how, **add_module(tmp_path, "odd", ODD))
    assert done.returncode == code
    assert told in done.stderr.splitlines()[-1]


def test_a_module_that_reads_a_command_line_of_its_own_is_not_given_ours(drive: Drive, tmp_path: Path) -> None:
    source = "import argparse\ndef train():\n    return vars(argparse.ArgumentParser().parse_args())\n"
    done = drive("train", "--output", "out", **add_module(tmp_path, "parses", source))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "train.json").read_text())["result"]["output"] == {}


@contextmanager
def driving(
    programs: Path, environ: dict[str, str], folder: Path, begun: bytes, *words: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Have the driver at work; the module's words say when it has begun."""
    out = folder / "stdout"
    argv = [str(programs / "python"), str(SCRIPT), *words]
    with out.open("wb") as stdout, subprocess.Popen(argv, env=environ, cwd=folder, stdout=stdout) as running:
        try:
            deadline = time.monotonic() + 300
            while begun not in out.read_bytes():
                assert time.monotonic() < deadline and running.poll() is None, out.read_text()
                time.sleep(0.05)
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize(
    "module, words, number, code, kept",
    [
        ("example", "--epochs 1000000", signal.SIGUSR1, 0, True),
        ("example", "--epochs 1000000", signal.SIGTERM, 143, False),
        ("odd", "--steps 10000 --how SIGUSR1", signal.SIGUSR1, 0, True),
        ("odd", "--steps 30 --how well", signal.SIGUSR1, 0, True),
        ("odd", "--steps 10000 --how SIGTERM", signal.SIGTERM, 0, True),
        ("odd", "--steps 10000 --how well", signal.SIGTERM, 143, False),
    ],
)
def test_signals_reach_the_training_and_kill_none_that_cannot_take_them(
    programs: Path,
    environ: dict[str, str],
    tmp_path: Path,
    module: str,
    words: str,
    number: signal.Signals,
    code: int,
    kept: bool,
) -> None:
    more = add_module(tmp_path, "odd", ODD) if module == "odd" else {}
    begun = b"begun" if module == "odd" else b"epoch 1:"
    argv = ["train", "--output", str(tmp_path / "out"), "--", *words.split()]
    with driving(programs, {**environ, **more}, tmp_path, begun, *argv) as running:
        running.send_signal(number)
        assert running.wait(300) == code
    assert (tmp_path / "out" / "train.json").exists() is kept
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_private_server_listens_on_no_port_and_lets_no_other_user_in(
    programs: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    wild = add_module(tmp_path, "wild", WILD)
    words = ["predict", "--inputs", str(write_inputs(tmp_path, slow={"how": "slow"}))]
    with driving(programs, {**environ, **wild}, tmp_path, b"begun", *words) as running:
        [folder] = (tmp_path / "tmp").glob("deepaas-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "socket").is_socket()
        mine = {str(each.readlink()) for each in Path(f"/proc/{running.pid}/fd").iterdir() if each.is_symlink()}
        for table in ("tcp", "tcp6"):
            lines = Path(f"/proc/{running.pid}/net/{table}").read_text().splitlines()[1:]
            assert not {f"socket:[{line.split()[9]}]" for line in lines} & mine
        running.send_signal(signal.SIGTERM)
        assert running.wait(300) == 143


def test_a_batch_is_predicted_one_failure_stops_nothing_and_it_resumes(drive: Drive, tmp_path: Path) -> None:
    assert drive("train", "--output", "out").returncode == 0
    (tmp_path / "notes.txt").write_text("not an image")
    names = {name: {"image": str(SAMPLES / f"{name}.pgm"), "top": 2} for name in ("one", "seven")}
    bad = {
        "a/b ü": {"image": str(tmp_path / "notes.txt")},
        "range": {"image": str(SAMPLES / "one.pgm"), "top": 99},
        "unknown": {"image": str(SAMPLES / "one.pgm"), "tpo": 1},
        "nofile": {"image": "/nonexistent.pgm"},
        "nothing": {},
    }
    file = write_inputs(tmp_path, **names, **bad)
    done = drive("predict", "--inputs", file, "--output", "answers")
    assert done.returncode == 1
    results = load_results(tmp_path / "answers")
    assert [results[key]["result"]["predictions"][0]["digit"] for key in names] == [1, 7]
    assert json.loads((tmp_path / "answers" / "one.json").read_text()) == results["one"]["result"]
    told = {key: results[key]["error"] for key in bad}
    assert "neither a PGM image nor a CSV table" in told["a/b ü"]
    assert "refuses the arguments" in told["range"] and "less than or equal to 10" in told["range"]
    assert "did you mean --top" in told["unknown"]
    assert "/nonexistent.pgm" in told["nofile"]
    assert "the module needs image" in told["nothing"]
    assert list((tmp_path / "tmp").iterdir()) == []

    (tmp_path / "answers" / "seven.json").unlink()
    again = drive("predict", "--inputs", write_inputs(tmp_path, **names), "--output", "answers")
    assert again.returncode == 0, again.stderr
    assert "2 inputs, 1 of them done already" in again.stderr
    assert (tmp_path / "answers" / "seven.json").exists()


@pytest.mark.parametrize("accept, extension", [("text/csv", ".csv"), ("image/x-portable-graymap", ".pgm")])
def test_answers_in_another_form_are_kept_as_they_came(
    drive: Drive, tmp_path: Path, accept: str, extension: str
) -> None:
    drive("train", "--output", "out", "--", "--epochs", "1")
    file = write_inputs(tmp_path, one={"image": str(SAMPLES / "one.pgm")})
    done = drive("predict", "--inputs", file, "--output", "answers", "--accept", accept, "--results", "lines")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "answers" / f"one{extension}").read_text()
    assert content.startswith("image,digit,probability\n" if extension == ".csv" else "P2\n8 8\n255\n")
    assert json.loads((tmp_path / "lines").read_text())["result"] is None
    assert drive("predict", "--inputs", file, "--accept", "image/webp").returncode == 2


def test_a_name_with_a_line_break_is_predicted_and_what_nobody_foresaw_stops_nothing(
    drive: Drive, tmp_path: Path
) -> None:
    assert drive("train", "--output", "out", "--", "--epochs", "1").returncode == 0
    image = tmp_path / "line\nbreak\r.pgm"
    image.write_bytes((SAMPLES / "one.pgm").read_bytes())
    odd = {"image": str(image), "accept": "a\nb"}  # aiohttp raises ValueError for such a header
    file = write_inputs(tmp_path, odd=odd, broken={"image": str(image)})
    done = drive("predict", "--inputs", file, "--output", "answers")
    assert done.returncode == 1, done.stderr
    results = load_results(tmp_path / "answers")
    assert results["broken"]["ok"], results
    assert not results["odd"]["ok"]
    assert results["odd"]["error"].startswith("ValueError: ")


def test_a_prediction_that_kills_its_process_or_gives_what_json_cannot_hold_stops_nothing(
    drive: Drive, tmp_path: Path
) -> None:
    inputs = {
        "good": {"how": "well", "settings": {"deep": [1]}, "table": {"x": 1}},
        "dies": {"how": "die"},
        "set": {"how": "set"},
        "object": {"how": "object"},
        "after": {"how": "well"},
    }
    wild = add_module(tmp_path, "wild", WILD)
    done = drive("predict", "--inputs", write_inputs(tmp_path, **inputs), "--output", "answers", **wild)
    assert done.returncode == 1
    results = load_results(tmp_path / "answers")
    assert {key: results[key]["ok"] for key in inputs} == {
        **dict.fromkeys(inputs, True),
        "dies": False,
        "object": False,
    }
    assert results["dies"]["error"].startswith("the module's process died (exit code 9)")
    assert sorted(results["set"]["result"]["predictions"]) == ["a", "b"]
    assert "StringIO" in results["object"]["error"]
    good = results["good"]["result"]["predictions"]
    assert (good["number"], good["table"]) == (3, {"x": 1})


SEVERAL_MODELS = """
from webargs import fields, validate
def get_predict_args():
    names = ["2019-06-12", "2026-11-30"]
    timestamp = fields.Str(load_default=names[0], validate=validate.OneOf(names))
    return {"timestamp": timestamp, "x": fields.Str(required=True)}
def predict(timestamp, x):
    return {"answers": timestamp}
"""


def test_the_model_that_is_meant_answers_unless_another_is_asked_for(drive: Drive, tmp_path: Path) -> None:
    several = add_module(tmp_path, "several_models", SEVERAL_MODELS)
    file = write_inputs(tmp_path, one={"x": "a"}, other={"x": "a", "timestamp": "2019-06-12"})
    for words, first in (((), "2019-06-12"), (("--default", 'timestamp="2026-11-30"'), "2026-11-30")):
        done = drive("predict", "--inputs", file, "--output", f"answers-{first}", *words, **several)
        assert done.returncode == 0, done.stderr
        results = load_results(tmp_path / f"answers-{first}")
        assert results["one"]["result"]["predictions"]["answers"] == first
        assert results["other"]["result"]["predictions"]["answers"] == "2019-06-12"
