import ast
import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deephpc.catalogue.reading import MetadataFile, judge_file
from deephpc.errors import InputError
from deephpc.workflows.module_init import plan_module, write_module

TODAY = datetime.date(2026, 3, 1)
#: What DEEPaaS 2.6.0 runs on; its own pins keep it out of our environment.
PYTHON = "python3.11"
ENVIRON = {**os.environ, "PYTHONPATH": "", "VIRTUAL_ENV": ""}


def test_every_file_of_a_new_module_is_whole(tmp_path: Path) -> None:
    plan = plan_module("leaf-counter", tmp_path / "leaf-counter", TODAY, title='Counts "leaves": all')
    assert {"pyproject.toml", "Dockerfile", "README.md", ".gitignore", "ai4-metadata.yml", "data/example.csv",
            "leaf_counter/api.py", "tests/test_api.py"} <= plan.files.keys()  # fmt: skip
    for path, text in plan.files.items():
        assert "{{" not in text, path
        if path.endswith(".py"):
            ast.parse(text)
    verdict = judge_file(MetadataFile(name="ai4-metadata.yml", text=plan.files["ai4-metadata.yml"]))
    assert verdict.findings == ()


def test_the_plan_writes_nothing_and_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "leaf-counter"
    plan = plan_module("leaf-counter", folder, TODAY)
    assert not folder.exists()
    write_module(plan)
    with pytest.raises(InputError, match="exists and is not empty"):
        write_module(plan)


@pytest.mark.parametrize("name", ["Leaf", "leaf counter", "../x", "1x", "class", "deepaas", "x" * 61, "", "a--b", "-a"])
def test_a_name_that_is_no_package_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        plan_module(name, tmp_path / "x", TODAY)


def test_a_bad_image_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"links\.docker_image"):
        plan_module("leaf-counter", tmp_path / "x", TODAY, image="Not An Image")


@pytest.fixture
def deepaas(tmp_path: Path) -> Path:
    """A new module, installed in an environment of its own; returns the environment's programs."""
    python = shutil.which(PYTHON)
    if python is None:
        pytest.skip(f"{PYTHON} is missing: install Python 3.11, which DEEPaaS 2.6.0 runs on")
    folder = tmp_path / "leaf-counter"
    write_module(plan_module("leaf-counter", folder, TODAY, title="Counts leaves"))
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True, timeout=300)
    programs = tmp_path / "venv" / "bin"
    installed = subprocess.run(
        [programs / "pip", "install", "--quiet", "deepaas==2.6.0", "-e", f"{folder}[test]"],
        env=ENVIRON, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    if "No matching distribution" in installed.stderr:
        pytest.skip("PyPI is not reachable: the module needs deepaas, numpy and pytest from it")
    assert installed.returncode == 0, installed.stderr
    return programs


@pytest.mark.slow
def test_a_new_module_passes_its_own_tests_trains_and_serves(tmp_path: Path, deepaas: Path) -> None:
    folder = tmp_path / "leaf-counter"
    tests = subprocess.run(
        [deepaas / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env=ENVIRON, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    output = tmp_path / "trained.json"
    subprocess.run(
        [deepaas / "deepaas-cli", "--deepaas_method_output", output, "train", "--epochs", "300"],
        cwd=folder, env=ENVIRON, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert json.loads(output.read_text())["result"]["output"]["accuracy"] > 0.9
    with serving(deepaas, folder, tmp_path / "serve.log") as url:
        answer = predict(f"{url}/v2/models/leaf_counter/predict/", (folder / "data" / "example.csv").read_bytes())
    assert len(answer["predictions"]["predictions"]) == 60


@contextlib.contextmanager
def serving(programs: Path, folder: Path, log: Path) -> Iterator[str]:
    """Serve the module on the loopback; yields the address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [programs / "deepaas-run", "--listen-ip", "127.0.0.1", "--listen-port", str(port)]
    with log.open("wb") as out, subprocess.Popen(words, cwd=folder, env=ENVIRON, stdout=out, stderr=out) as server:
        try:
            end = time.monotonic() + 300
            while not answers(f"http://127.0.0.1:{port}/v2/models/"):
                assert server.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def predict(url: str, table: bytes) -> dict:
    head = b'--x\r\nContent-Disposition: form-data; name="data"; filename="example.csv"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/json"}
    request = urllib.request.Request(url, head + table + b"\r\n--x--\r\n", headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
