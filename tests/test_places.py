"""The files that ship beside the package are found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import deephpc
from deephpc.places import shipped


def test_the_shipped_folders_are_found_in_this_installation():
    assert (shipped("jobscripts") / "job.sh.jinja").is_file()
    assert (shipped("configs") / "sites" / "local.toml").is_file()


def test_a_folder_that_does_not_ship_is_named():
    with pytest.raises(FileNotFoundError, match="'recipes' is missing"):
        shipped("recipes")


def test_a_wheels_own_data_come_first(tmp_path: Path):
    package = tmp_path / "deephpc"
    (package / "_data" / "jobscripts").mkdir(parents=True)
    (tmp_path / "jobscripts").mkdir()
    for name in ("__init__.py", "places.py"):
        shutil.copy(Path(deephpc.__file__).with_name(name), package)
    program = "from deephpc.places import shipped; print(shipped('jobscripts'))"
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(package / "_data" / "jobscripts")
