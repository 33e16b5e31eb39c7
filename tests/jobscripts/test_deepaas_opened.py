"""Which of a run's models are opened is noted, whoever opens them and however."""

import mmap
import os
import subprocess
from pathlib import Path

import deepaas_opened
import pytest
from deepaas_opened import OpenedFiles, watch_models


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "2026" / "deep").mkdir(parents=True)
    for name in ("base.pt", "2026/best.pt", "2026/deep/é.h5", "2026/never.bin"):
        (folder / name).write_text("weights")
    (tmp_path / "elsewhere.pt").write_text("weights")
    (folder / "latest.pt").symlink_to("../elsewhere.pt")
    return folder


def read(path: Path) -> None:
    path.read_text()


def read_elsewhere(path: Path) -> None:
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)


def map_it(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        pass


def read_by_another_name(path: Path) -> None:
    other = path.with_name("other name")
    os.link(path, other)
    other.read_text()
    other.unlink()


@pytest.mark.parametrize("name", ["base.pt", "2026/best.pt", "2026/deep/é.h5", "latest.pt"])
@pytest.mark.parametrize("use", [read, read_elsewhere, map_it, read_by_another_name])
def test_what_is_opened_is_noted_and_nothing_else(tmp_path: Path, models: Path, use, name: str) -> None:
    read(models / "base.pt")  # before anybody watches
    opened = OpenedFiles([str(models)], str(tmp_path / "opened.txt"))
    assert (tmp_path / "opened.txt").read_text() == ""
    [entry.name for entry in os.scandir(models)]  # a look is no use
    use(models / name if name != "latest.pt" or use is not read_by_another_name else tmp_path / "elsewhere.pt")
    opened.write()
    assert (tmp_path / "opened.txt").read_text() == f"{name}\n"


def test_names_that_are_no_lines_of_text_keep_to_one_line(tmp_path: Path, models: Path) -> None:
    names = [b"two\nlines.pt", b"caf\xe9.pt"]
    for name in names:
        Path(os.fsdecode(bytes(models) + b"/" + name)).write_text("weights")
    opened = OpenedFiles([str(models)], str(tmp_path / "opened.txt"))
    for name in names:
        read(Path(os.fsdecode(bytes(models) + b"/" + name)))
    opened.write()
    assert (tmp_path / "opened.txt").read_bytes() == b"caf\xe9.pt\ntwo?lines.pt\n"


@pytest.mark.parametrize("number", [0, 2001])
def test_none_and_too_many_are_not_known_rather_than_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for each in range(number):
        (folder / str(each)).touch()
    (tmp_path / "folders.list").write_text(f"data {tmp_path}\nmodels {folder}\n")
    monkeypatch.setenv("DEEPHPC_OUTPUT_DIR", str(tmp_path / "output"))
    assert watch_models(str(tmp_path / "folders.list")) is None
    assert "which models are opened is not noted" in capsys.readouterr().err
    assert not (tmp_path / "opened-models.txt").exists()


def test_folders_are_those_that_were_found_inside(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch_models() is None, deepaas_opened.FOLDERS
    (tmp_path / "folders.list").write_text(f"data {tmp_path}\nmodels {tmp_path}/none\nmodels {models}\n")
    monkeypatch.setenv("DEEPHPC_OUTPUT_DIR", str(tmp_path / "output"))
    opened = watch_models(str(tmp_path / "folders.list"))
    assert opened is not None
    read(models / "2026" / "best.pt")
    opened.write()
    assert (tmp_path / "opened-models.txt").read_text() == "2026/best.pt\n"


def test_a_folder_that_takes_no_file_ends_nothing(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = OpenedFiles([str(models)], "/proc/opened.txt")
    read(models / "base.pt")
    opened.write()
    assert "cannot be noted" in capsys.readouterr().err
