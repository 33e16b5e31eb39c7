"""Forms of images go with the image, as far as they are ours; and what killed conversions left."""

import os
import time
from pathlib import Path

import pytest

from deephpc.containers.engine import ENGINES
from deephpc.containers.prepared import prepared_forms, remove_prepared, sweep_halves
from tests.containers.colleagues import NOBODY, closed, ordinary_user

DIGEST = "sha256:" + "ab12" * 16
TWO_DAYS_AGO = time.time() - 2 * 24 * 3600


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A SIF and a tree."""
    sif, tree = (ENGINES[name].prepared_path(tmp_path, DIGEST) for name in ("apptainer", "udocker-r"))
    for path in (sif.parent, tree / "containers"):
        path.mkdir(parents=True)
    sif.write_bytes(b"12345")
    (tmp_path / "sif" / f"{sif.name}.lock").touch()
    (tree / "containers" / "x").write_text("x")
    (tree / "containers").chmod(0o555)
    return tmp_path


def half(path: Path, *, seconds: float = TWO_DAYS_AGO) -> Path:
    """A read-only tree of a kilobyte."""
    (path / "ROOT").mkdir(parents=True)
    (path / "ROOT" / "file").write_bytes(b"x" * 1024)
    (path / "ROOT").chmod(0o555)
    os.utime(path, (seconds, seconds))
    return path


def test_every_form_goes_with_its_lock(cache_dir: Path) -> None:
    assert len(prepared_forms(cache_dir, DIGEST)) == 2
    assert remove_prepared(cache_dir, DIGEST) == (5, ())
    assert [path for path in cache_dir.rglob("*") if "ab12" in path.name] == []


def test_a_form_that_may_not_go_stays_and_the_others_go(cache_dir: Path) -> None:
    with ordinary_user(cache_dir) as here, closed(here / "sif", 0o555):
        freed_bytes, left = remove_prepared(here, DIGEST)
    assert (freed_bytes, [path.parent.name for path in left]) == (0, ["sif"])
    assert list((cache_dir / "udocker").iterdir()) == []


def test_where_one_may_not_look_there_is_nothing(cache_dir: Path) -> None:
    with ordinary_user(cache_dir) as here, closed(here / "sif"):
        assert [path.parent.name for path in prepared_forms(here, DIGEST)] == ["udocker"]
        assert remove_prepared(here, DIGEST) == (0, ())


def test_what_killed_conversions_left_goes_after_a_day(cache_dir: Path) -> None:
    old = [half(cache_dir / ".deephpc-k1ll3d_x"), half(cache_dir / "udocker" / f".{DIGEST.replace(':', '-')}.77")]
    part = cache_dir / "sif" / "sha256-00.sif.12.part"
    part.write_bytes(b"1234")
    os.utime(part, (TWO_DAYS_AGO, TWO_DAYS_AGO))
    kept = [half(cache_dir / ".deephpc-runn1ng_", seconds=time.time()), half(cache_dir / ".deephpc-mine")]
    assert sweep_halves(cache_dir) == 2 * 1024 + 4
    assert [path for path in (*old, part) if path.exists()] == []
    assert all(path.exists() for path in (*kept, *prepared_forms(cache_dir, DIGEST)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")
def test_what_a_colleague_left_is_theirs(cache_dir: Path) -> None:
    path = half(cache_dir / ".deephpc-k1ll3d_x")
    os.chown(path, NOBODY, NOBODY)
    assert sweep_halves(cache_dir) == 0
    assert path.exists()


def test_a_cache_that_does_not_exist_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep_halves(tmp_path / "none") == 0
