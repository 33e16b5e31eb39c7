"""Files that are there whole, or as they were before."""

import os
import stat
from pathlib import Path

import pytest

from deephpc.whole_file import replacing
from tests.containers.colleagues import umask


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ü x"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["ü x"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("mode", "found"), [(0o600, 0o600), (0o664, 0o664), (0o755, 0o755), (None, 0o640)])
def test_its_permissions_are_exact_or_the_umasks(tmp_path: Path, mode: "int | None", found: int) -> None:
    with umask(0o026), replacing(tmp_path / "x", mode) as file:
        assert not stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~found
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == found


def test_a_place_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "x"):
        pass
