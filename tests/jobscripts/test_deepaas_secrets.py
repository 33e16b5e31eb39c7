"""What deephpc keeps apart of a module's arguments reaches the module, and nothing that the run leaves."""

import json
import subprocess
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.deepaas_environment import ENVIRON, fetch_deepaas

pytestmark = pytest.mark.slow
SCRIPT = shipped("jobscripts") / "deepaas_module.py"
SOURCE = """
from webargs import fields

def get_predict_args():
    return {
        "name": fields.Str(required=True),
        "token": fields.Str(load_default="none", metadata={"format": "password"}),
    }

def predict(name, token):
    return {"name": name, "length": len(token)}

def get_train_args():
    password = {"format": "password"}
    return {
        "name": fields.Str(load_default="none"),
        "token": fields.Str(required=True, metadata=password),
        "api_key": fields.Str(data_key="api-key", load_default="none", metadata=password),
        "pin": fields.Int(load_default=0, validate=lambda pin: pin < 100000, metadata=password),
    }

def train(name, token, api_key, pin):
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read()
    return {"lengths": [len(token), len(api_key)], "pin": pin + 1, "seen": token.encode() in words, "name": name}
"""
SECRETS = ["hush-hush", "ψ \"'\n$(id)", "--pin 12 -x", '{"not": "JSON"']


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run folder with one input."""
    info = tmp_path / "modules" / "locked-1.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "modules" / "locked.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: locked\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[deepaas.v2.model]\nlocked = locked\n")
    folder = tmp_path / "run"
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / "0.jsonl").write_text(json.dumps({"key": "a", "args": {"name": "ü"}}) + "\n")
    return folder


@pytest.fixture
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch_deepaas(tmp_path_factory.getbasetemp()) / "python"


def drive(python: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    places = {
        "PYTHONPATH": str(folder.parent / "modules"),
        "DEEPHPC_DATA_DIR": str(folder / "data"),
        "DEEPHPC_OUTPUT_DIR": str(folder / "output"),
        "DEEPHPC_TASK_ID": "0",
        "DEEPAAS_V2_MODEL": "locked",
    }
    argv = [str(python), str(SCRIPT), *words]
    return subprocess.run(
        argv, cwd=folder, env={**ENVIRON, **places}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("secret", ["hush-hush", "ψ \"'\n$(id)", None])
def test_a_password_reaches_the_module_and_nothing_else(python: Path, run: Path, secret: str | None) -> None:
    if secret is not None:
        (run / "secrets").mkdir()
        (run / "secrets" / "arguments.json").write_text(json.dumps({"token": secret}))
    done = drive(python, run, "predict")
    assert done.returncode == 0, done.stderr
    [line] = (run / "output" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["result"]["predictions"]["length"] == len(secret or "none")
    left = "".join(path.read_text() for path in (run / "output").rglob("*") if path.is_file())
    assert secret is None or json.dumps(secret)[1:-1] not in left + done.stdout + done.stderr


def test_a_password_is_told_as_one(python: Path, run: Path) -> None:
    told = json.loads(drive(python, run, "describe").stdout)["predict"]["arguments"]
    assert {one["name"]: one["is_secret"] for one in told} == {"name": False, "token": True}


def keep(folder: Path, **secrets: object) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets" / "arguments.json").write_text(json.dumps(secrets))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_password_reaches_a_training_and_nothing_else(python: Path, run: Path, secret: str) -> None:
    keep(run, **{"token": secret, "api-key": secret * 2, "pin": "4711"})
    done = drive(python, run, "train", "--", "--name=***", "--token=***", "--api-key=***", "--pin=***")
    assert done.returncode == 0, done.stderr
    text = (run / "output" / "train.json").read_text()
    told = json.loads(text)
    output = {"lengths": [len(secret), 2 * len(secret)], "pin": 4712, "seen": False, "name": "***"}
    assert told["result"]["output"] == output
    assert told["args"] == {"name": "***", "token": "***", "api_key": "***", "pin": "***"}
    assert json.dumps(secret)[1:-1] not in text + done.stdout + done.stderr


def test_a_default_that_the_module_declares_a_password_is_not_told_either(python: Path, run: Path) -> None:
    done = drive(python, run, "train", "--", "--token=of-a-run-that-asked-nobody")
    assert done.returncode == 0, done.stderr
    told = json.loads((run / "output" / "train.json").read_text())["args"]
    assert told == {"name": "none", "token": "***", "api_key": "***", "pin": "***"}


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        ({}, "--token: its value was in secrets/arguments.json of the run, and is not any more"),
        ({"token": "t", "pin": "998877"}, "--pin ***: "),
        ({"token": "t", "pin": "five 998877"}, "--pin: '***' is not of type int"),
    ],
)
def test_a_password_that_cannot_be_used_is_refused_without_it(
    python: Path, run: Path, secrets: dict[str, str], told: str
) -> None:
    keep(run, **secrets)
    done = drive(python, run, "train", "--", *(f"--{name}=***" for name in secrets or ("token",)))
    assert done.returncode == 2, done.stderr
    assert told in done.stderr.splitlines()[-1]
    assert "998877" not in done.stderr
