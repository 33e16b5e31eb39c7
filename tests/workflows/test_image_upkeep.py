"""Images that are shared with colleagues, or only read: what goes, what stays, and what is said."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.containers.engine import ENGINES
from deephpc.containers.reference import parse_target
from deephpc.containers.upkeep import Keep
from deephpc.errors import SiteError
from deephpc.workflows.image import ImagePlaces, PullRequest, PullResult, carry_out_pull, plan_pull
from deephpc.workflows.image_upkeep import collect_garbage, open_store, remove_image
from tests.containers.colleagues import closed, ordinary_user
from tests.containers.images import build_image
from tests.workflows.test_image import AMD64, NOW


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an image in `tool` and an empty cache."""
    build_image(tmp_path / "tool", [{"a": b"x" * 1000}])
    return tmp_path


def pulled(place: Path) -> PullResult:
    (layout,) = (path.parent for path in (place / "tool").rglob("oci-layout"))
    plan = plan_pull(PullRequest(target=parse_target(f"oci:{layout}"), platform=AMD64))
    return carry_out_pull(plan, ImagePlaces(open_store(place / "cache"), {}, place), NOW)


def sif_of(place: Path, digest: str) -> Path:
    sif = ENGINES["apptainer"].prepared_path(place / "cache", digest)
    sif.parent.mkdir()
    sif.write_bytes(b"sif")
    return sif


def test_an_image_goes_whole_where_its_sif_may_not(place: Path) -> None:
    with ordinary_user(place) as here:
        digest = pulled(here).digest
        store = open_store(here / "cache")
        sif = sif_of(here, digest)
        with closed(sif.parent, 0o555), pytest.raises(SiteError, match=r"but not cache/sif/.*: no permission"):
            remove_image(store, digest, frozenset(), force=False, dry_run=False)
        assert store.images() == ()
        assert list(store.blobs.iterdir()) == []
        assert sif.exists()


def test_an_image_in_a_store_that_is_only_read_stays_whole(place: Path) -> None:
    with ordinary_user(place) as here:
        digest = pulled(here).digest
        store = open_store(here / "cache")
        sif = sif_of(here, digest)
        with closed(store.root / "locks", 0o555), pytest.raises(SiteError, match="cannot lock"):
            remove_image(store, digest, frozenset(), force=False, dry_run=False)
        assert [image.digest for image in store.images()] == [digest]
        assert sif.exists()


def test_an_image_in_a_store_that_is_only_read_is_pulled_as_it_is(place: Path) -> None:
    with ordinary_user(place) as here:
        first = pulled(here)
        folders = [here / "cache" / "images" / name for name in ("", "locks", "partial", "images", "blobs/sha256")]
        for folder in folders:
            folder.chmod(0o555)
        again = pulled(here)
        for folder in folders:
            folder.chmod(0o755)
    assert again == first.model_copy(update={"fetched_bytes": 0})


def test_gc_counts_what_killed_conversions_left(place: Path) -> None:
    pulled(place)
    store = open_store(place / "cache")
    left = place / "cache" / ".deephpc-k1ll3d_x"
    left.mkdir()
    (left / "file").write_bytes(b"x" * 500)
    os.utime(left, (0, 0))
    keep = Keep(timedelta(days=36500))
    assert collect_garbage(store, keep, NOW, dry_run=True).freed_bytes == 0
    assert left.exists()
    assert collect_garbage(store, keep, NOW, dry_run=False).freed_bytes == 500
    assert not left.exists()
    assert len(store.images()) == 1
