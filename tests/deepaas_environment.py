"""An environment with DEEPaaS, whose old pins keep it out of ours, and the example module installed in it.

DEEPaaS is 2.6.0, or what DEEPHPC_TEST_DEEPAAS names: modules of the catalogue have 2.1 to 2.6.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.host import locked

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "deepaas-digits"
RELEASE = os.environ.get("DEEPHPC_TEST_DEEPAAS", "2.6.0")
#: Where pip finds what releases before 2.5 were never made for.
_OF_THEIR_TIME = {"2.1.0": ("marshmallow<4",), "2.3.2": ("marshmallow<4",)}
#: What DEEPaaS runs on, with wheels of all it needs.
PYTHON = "python3.11"
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("DEEPHPC_", "DEEPAAS_"))},
    "PYTHONPATH": "",
    "VIRTUAL_ENV": "",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def fetch_deepaas(session_folder: Path) -> Path:
    """Return the programs of the environment, made once in a session (some 20 s); the module is in `../../module`."""
    of_all_workers = session_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else session_folder
    folder = of_all_workers / "deepaas"
    with locked(of_all_workers / "deepaas.lock", timeout=900):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            (folder / "ready").touch()
    return folder / "venv" / "bin"


def _install(folder: Path) -> None:
    python = shutil.which(PYTHON)
    if python is None:
        pytest.skip(f"{PYTHON} is missing: install Python 3.11, which DEEPaaS runs on")
    left_behind = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "data", "models")
    shutil.copytree(EXAMPLE, folder / "module", ignore=left_behind)
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True, timeout=300)
    needed = [f"deepaas=={RELEASE}", *_OF_THEIR_TIME.get(RELEASE, ()), "numpy>=1.26", "pytest>=8"]
    needed += [] if _copy_digits(folder / "module" / "data") else ["scikit-learn>=1.3"]
    for words in (needed, ["--no-deps", "-e", str(folder / "module")]):
        done = subprocess.run(
            [folder / "venv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *words],
            env=ENVIRON, capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip
        if "No matching distribution" in done.stderr:
            pytest.skip("PyPI is not reachable: the module needs deepaas, numpy, scikit-learn and pytest from it")
        assert done.returncode == 0, done.stderr


def _copy_digits(data: Path) -> bool:
    """Copy the digits out of our own scikit-learn, when it is installed: the environment then needs none."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        return False
    data.mkdir()
    shutil.copy(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", data)
    return True
