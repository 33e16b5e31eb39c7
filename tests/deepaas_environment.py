"""An environment with DEEPaaS 2.6.0, whose old pins keep it out of ours, and the example module installed in it."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "deepaas-digits"
#: What DEEPaaS 2.6.0 runs on, with wheels of all it needs.
PYTHON = "python3.11"
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("DEEPHPC_", "DEEPAAS_"))},
    "PYTHONPATH": "",
    "VIRTUAL_ENV": "",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def fetch_deepaas(session_folder: Path) -> Path:
    """Return the programs of the environment, made once in a session (some 20 s); the module is in `../../module`."""
    folder = session_folder / "deepaas"
    programs = folder / "venv" / "bin"
    if (folder / "ready").exists():
        return programs
    python = shutil.which(PYTHON)
    if python is None:
        pytest.skip(f"{PYTHON} is missing: install Python 3.11, which DEEPaaS 2.6.0 runs on")
    shutil.rmtree(folder, ignore_errors=True)
    left_behind = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "data", "models")
    shutil.copytree(EXAMPLE, folder / "module", ignore=left_behind)
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True, timeout=120)
    install = [programs / "pip", "install", "--quiet", "--disable-pip-version-check", "deepaas==2.6.0", "pytest>=8"]
    extra = "" if _copy_digits(folder / "module" / "data") else "[data]"
    done = subprocess.run(
        [*install, "-e", f"{folder / 'module'}{extra}"],
        env=ENVIRON, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    if "No matching distribution" in done.stderr:
        pytest.skip("PyPI is not reachable: the module needs deepaas, numpy, scikit-learn and pytest from it")
    assert done.returncode == 0, done.stderr
    (folder / "ready").touch()
    return programs


def _copy_digits(data: Path) -> bool:
    """Copy the digits out of our own scikit-learn, when it is installed: the environment then needs none."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        return False
    data.mkdir()
    shutil.copy(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", data)
    return True
