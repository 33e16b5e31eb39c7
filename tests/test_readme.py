"""The README's install and its first run work as printed, one line after the other, for a user with nothing else."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console_page import commands_under

README = Path(__file__).parents[1] / "README.md"
PYTHON = Path(sys._base_executable)
NEEDS_SLURM = "deephpc site init"

pytestmark = pytest.mark.slow


def install_commands() -> list[str]:
    """Return the lines of the README's install, or those it names for a Python that has PyTorch."""
    commands = commands_under("Install", README)
    if subprocess.run([PYTHON, "-c", "import sklearn, torch"], capture_output=True, check=False).returncode:
        return commands
    assert "`python3 -m venv --system-site-packages`, and `pip install .` is enough" in README.read_text()
    other = {"python3 -m venv ": "python3 -m venv --system-site-packages ", "pip install '.[train]'": "pip install ."}
    return [re.sub("|".join(map(re.escape, other)), lambda found: other[found[0]], each) for each in commands]


def first_run_commands() -> list[str]:
    """Return the lines of the README's first run without Slurm, with the id that `train` printed in place of RUN."""
    commands = commands_under("One run on Slurm", README)
    assert commands[0] == NEEDS_SLURM
    return [
        f"run=$({command}); echo $run" if command.startswith("deephpc train ") else re.sub(r"\bRUN\b", "$run", command)
        for command in commands[1:]
    ]


def test_the_first_run_works_after_the_install(tmp_path: Path) -> None:
    script = ["set -ex", *install_commands(), *first_run_commands()]
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    environment = {
        "PIP_CACHE_DIR": str(Path.home() / ".cache" / "pip"),
        "PIP_NO_COMPILE": "0",  # pip reads this as "compile: no", a third of the time; Python compiles what it imports
        **kept,
        "HOME": str(tmp_path),
        "USER": "tester",
        "LANG": "C.UTF-8",
        "PATH": f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=README.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )
    finally:
        shutil.rmtree(tmp_path / "deephpc-env", ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = (tmp_path / "deephpc" / "runs").iterdir()
    assert re.search(r"^test accuracy 0\.9", done.stdout, re.MULTILINE)
    assert f"{run.name} ended COMPLETED" in done.stdout
    assert (run / "output" / "model.pt").is_file()
