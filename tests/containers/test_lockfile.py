"""`deephpc.lock`."""

from pathlib import Path

import pytest

from deephpc.containers.lockfile import LockedImage, Lockfile, load_lockfile, render_lockfile
from deephpc.errors import EngineError, InputError

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
IMAGE = LockedImage(reference="docker://docker.io/org/plankton:gpu", digest=ONE)


def test_what_is_pinned_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deephpc.lock"
    lockfile = Lockfile().pin("plankton", IMAGE).pin("a:b", IMAGE.model_copy(update={"sif_sha256": TWO}))
    path.write_text(render_lockfile(lockfile))
    assert load_lockfile(path) == lockfile
    assert render_lockfile(load_lockfile(path)) == path.read_text()
    assert load_lockfile(tmp_path / "absent") == Lockfile()


def test_a_moved_name_is_refused_with_both_digests(tmp_path: Path) -> None:
    lockfile = Lockfile().pin("plankton", IMAGE)
    lockfile.check("plankton", ONE, tmp_path / "deephpc.lock")
    with pytest.raises(EngineError) as caught:
        lockfile.check("plankton", TWO, tmp_path / "deephpc.lock")
    assert ONE in caught.value.message
    assert TWO in caught.value.message
    with pytest.raises(EngineError, match="is not in"):
        lockfile.check("other", ONE, tmp_path / "deephpc.lock")


def test_the_sif_s_hash_stays_with_its_image_alone() -> None:
    with_sif = Lockfile().pin("plankton", IMAGE.model_copy(update={"sif_sha256": TWO}))
    assert with_sif.pin("plankton", IMAGE).images["plankton"].sif_sha256 == TWO
    moved = IMAGE.model_copy(update={"digest": TWO})
    assert with_sif.pin("plankton", moved).images["plankton"].sif_sha256 is None


@pytest.mark.parametrize(
    "text", ["version = 2", "x", "[images.a]\nreference = 1", 'version = 1\n[images.a]\nreference = "r"\ndigest = "d"']
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deephpc.lock"
    path.write_text(text)
    with pytest.raises(InputError, match=r"deephpc\.lock"):
        load_lockfile(path)
