"""deephpc as people get it: from a wheel, as an editable install, out of a checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import deephpc

ROOT = Path(__file__).parents[1]
WHERE = "from deephpc.places import shipped; print(shipped('jobscripts')); print(shipped('configs'))"
TEMPLATE = "deephpc/_data/configs/module-template/"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command in an environment that knows nothing of this checkout, and return its stdout."""
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DEEPHPC_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def make_venv(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def assert_complete(jobscripts: str, configs: str) -> None:
    assert (Path(jobscripts) / "job.sh.jinja").is_file()
    assert (Path(configs) / "sites" / "local.toml").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_shipped_file_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("jobscripts", "configs"):
        ours = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert ours
        assert {f"deephpc/_data/{path.relative_to(ROOT)}" for path in ours} <= names
    assert f"deephpc-{deephpc.__version__}.dist-info/licenses/LICENSE" in names
    ours = [name for name in names if not name.startswith(TEMPLATE)]  # a new module has tests of its own
    assert not [name for name in ours if "tests" in name]
    assert not [name for name in names if "__pycache__" in name]


def test_a_wheel_in_an_empty_venv_works(wheel, tmp_path):
    python = make_venv(tmp_path / "venv")
    run(python, "-m", "pip", "install", "-qq", wheel, cwd=tmp_path)
    command = python.with_name("deephpc")
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""}
    assert deephpc.__version__ in run(command, "--version", cwd=tmp_path, **home)
    assert "train" in run(command, "--help", cwd=tmp_path, **home)
    assert "local" in run(command, "site", "list", cwd=tmp_path, **home)
    assert "plankton" in run(command, "catalogue", "search", "plankton", cwd=tmp_path, **home)
    assert "ai4-metadata.yml" in run(command, "module", "init", "leaf-counter", "--dry-run", cwd=tmp_path, **home)
    assert "IMAGE" in run(command, "image", "list", cwd=tmp_path, **home)
    jobscripts, configs = run(python, "-c", WHERE, cwd=tmp_path).splitlines()
    assert jobscripts.startswith(str(tmp_path / "venv"))
    assert_complete(jobscripts, configs)


def test_an_editable_install_finds_the_files_beside_the_package(tmp_path):
    python = make_venv(tmp_path / "venv")
    run(python, "-m", "pip", "install", "-qq", "--no-deps", "--editable", ROOT, cwd=tmp_path)
    jobscripts, configs = run(python, "-c", WHERE, cwd=tmp_path).splitlines()
    assert Path(jobscripts) == ROOT / "jobscripts"
    assert_complete(jobscripts, configs)


def test_a_checkout_finds_the_files_beside_the_package(tmp_path):
    jobscripts, configs = run(sys._base_executable, "-c", WHERE, cwd=tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    assert Path(jobscripts) == ROOT / "jobscripts"
    assert_complete(jobscripts, configs)
