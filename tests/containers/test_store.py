"""The store on its own: sharing, upkeep, room, groups."""

import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.layout import open_local
from deephpc.containers.manifest import Descriptor, ImageConfig, Manifest, RootFs
from deephpc.containers.pull import Pulled, pull
from deephpc.containers.reference import LocalImage
from deephpc.containers.space import check_room, parse_quota
from deephpc.containers.store import Store
from deephpc.containers.stored_image import StoredImage
from deephpc.containers.transfer import Transfer
from deephpc.containers.upkeep import (
    Keep,
    drop_faulty,
    find_image,
    held_by_others,
    hold_for_run,
    plan_gc,
    release_finished,
    remove,
    sweep,
    total_bytes,
    verify,
)
from deephpc.errors import EngineError, SiteError

from .conftest import AMD64
from .images import BuiltImage, build_image, some_layers

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def bring(store: Store, built: BuiltImage, now: datetime = NOW) -> Pulled:
    store.prepare()
    with open_local(LocalImage(kind="oci", path=built.layout), store.root / "partial") as source:
        return pull(Transfer(store, source), source.resolve(), AMD64, now)


def blobs(store: Store) -> set[str]:
    return {f"sha256:{path.name}" for path in store.blobs.iterdir()}


def test_a_shared_layer_lies_once_and_goes_with_its_last_image(store: Store, tmp_path: Path) -> None:
    first, second, third = some_layers(3)
    one = build_image(tmp_path / "one", [first, second])
    two = build_image(tmp_path / "two", [first, third])
    a, b = bring(store, one).image, bring(store, two).image
    shared = one.layer_digests[0]
    assert total_bytes([a, b]) < a.size_bytes + b.size_bytes
    remove(store, [a.digest])
    assert shared in blobs(store)
    assert one.layer_digests[1] not in blobs(store)
    assert [image.digest for image in store.images()] == [b.digest]
    remove(store, [b.digest])
    assert blobs(store) == set()
    assert list((store.root / "images").iterdir()) == []


def test_a_flipped_byte_is_found_and_brought_anew(store: Store, tmp_path: Path) -> None:
    built = build_image(tmp_path / "one", some_layers(2), compression=("gzip", "zstd"))
    image = bring(store, built).image
    path = image.layers[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    faults = verify(store, image)
    assert [fault.digest for fault in faults] == [built.layer_digests[1]]
    drop_faulty(store, faults)
    assert store.images() == ()
    assert verify(store, bring(store, built).image) == ()


def test_layers_that_are_not_what_the_configuration_says_are_found(store: Store, tmp_path: Path) -> None:
    image = bring(store, build_image(tmp_path / "one", some_layers(1))).image
    other = ImageConfig(rootfs=RootFs(diff_ids=("sha256:" + "0" * 64,)))
    assert "uncompressed" in verify(store, replace(image, config=other))[0].reason


def test_blobs_are_read_only_and_everyone_may_read(store: Store, tmp_path: Path) -> None:
    image = bring(store, build_image(tmp_path / "one", some_layers(1))).image
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.blobs.iterdir()} == {0o444}
    assert image.layout_dir.joinpath("blobs").readlink() == Path("../../blobs")


def test_a_group_s_folder_makes_a_group_s_store(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    folder.mkdir()
    folder.chmod(0o2775)
    old = os.umask(0o077)
    try:
        store = Store(folder / "cache" / "images")
        assert store.for_group
        store.prepare()
        assert store.for_group
        bring(store, build_image(tmp_path / "one", some_layers(1)))
        folders = [path for path in store.root.rglob("*") if path.is_dir() and not path.is_symlink()]
        assert all(path.stat().st_mode & 0o2070 == 0o2070 for path in folders)
        assert (store.root / "index.json").stat().st_mode & 0o060 == 0o060
    finally:
        os.umask(old)
    open_to_all = tmp_path / "tmp"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    assert not Store(open_to_all / "images").for_group


def test_an_image_is_found_by_its_name_the_end_of_it_and_its_digest(store: Store, tmp_path: Path) -> None:
    built = build_image(tmp_path / "one", some_layers(1), tag="docker://reg.org/group/tool:latest")
    image = bring(store, built).image
    for text in (
        "docker://reg.org/group/tool:latest",
        "reg.org/group/tool",
        "group/tool:latest",
        "tool",
        "tool:latest",
    ):
        assert find_image(store, text).digest == image.digest
    assert find_image(store, image.digest[7:15]).digest == image.digest
    for text in ("ool", "sha256:", "tool:other"):
        with pytest.raises(EngineError, match="no image"):
            find_image(store, text)


def test_a_name_that_moves_leaves_the_old_image_unnamed_never_twice(store: Store, tmp_path: Path) -> None:
    old = build_image(tmp_path / "one", [{"a": b"1"}], tag="docker://r.org/t:latest")
    new = build_image(tmp_path / "two", [{"a": b"2"}], tag="docker://r.org/t:latest")
    bring(store, old)
    bring(store, new)
    bring(store, new)
    assert find_image(store, "r.org/t:latest").digest == new.digest
    assert store.image(old.digest).names == ()
    assert len(store.images()) == 2
    bring(store, old)
    assert store.image(old.digest).names == ("docker://r.org/t:latest",)
    assert store.image(new.digest).names == ()


def test_a_blob_that_vanishes_before_the_image_is_listed_is_brought_again(store: Store, tmp_path: Path) -> None:
    built = build_image(tmp_path / "one", some_layers(2))
    image = bring(store, built).image
    entry = store.entry(image.digest)
    remove(store, [image.digest])
    assert store.add(entry, "name", image.digest, NOW) is None
    assert store.images() == ()


def test_an_index_of_other_hands_is_lived_with(store: Store, tmp_path: Path) -> None:
    image = bring(store, build_image(tmp_path / "one", some_layers(1))).image
    (store.root / "index.json").write_text("{")
    with pytest.raises(EngineError, match=r"index\.json is not JSON"):
        store.images()
    assert image.layers[0].exists()


def test_sweeping_takes_what_is_old_and_loose_and_no_more(store: Store, tmp_path: Path) -> None:
    image = bring(store, build_image(tmp_path / "one", some_layers(1))).image
    loose, fresh = store.blobs / ("a" * 64), store.blobs / ("b" * 64)
    half = store.root / "partial" / ("c" * 64 + ".token")
    for path in (loose, fresh, half):
        path.write_bytes(b"12345")
    long_ago = time.time() - 2 * 86400
    for path in (loose, half, *image.layers):
        os.utime(path, (long_ago, long_ago))
    assert sweep(store) == 10
    assert fresh.exists()
    assert verify(store, image) == ()


def test_others_runs_hold_an_image_until_they_end(store: Store) -> None:
    store.prepare()
    digest = "sha256:" + "d" * 64
    hold_for_run(store, digest, "train-1", "bob")
    hold_for_run(store, digest, "train-2", "alice")
    now = datetime.now(timezone.utc)
    assert held_by_others(store, "alice", now) == {digest}
    release_finished(store, "bob", {"train-3"})
    assert held_by_others(store, "alice", now) == frozenset()
    assert held_by_others(store, "bob", now + timedelta(days=31)) == frozenset()


def made_up(number: int, size: int, days: int) -> StoredImage:
    """An image that is only a value."""
    digest = f"sha256:{number:064x}"
    parts = [Descriptor(media_type="x", digest=f"sha256:{number:063x}{kind}", size=size // 2) for kind in ("a", "b")]
    manifest = Manifest(schema_version=2, config=parts[0], layers=(parts[1],))
    used = NOW - timedelta(days=days)
    return StoredImage(digest, (), digest, manifest, ImageConfig(), used, used, Path("/v"), Path("/b"))


images = st.lists(st.tuples(st.integers(2, 1000), st.integers(0, 100)), max_size=8).map(
    lambda rows: [made_up(number, size, days) for number, (size, days) in enumerate(rows, 1)]
)


@given(images, st.integers(0, 60), st.none() | st.integers(0, 3000), st.sets(st.integers(1, 8)))
def test_gc_never_takes_what_is_needed_or_young(
    images: list[StoredImage], days: int, bound: int | None, needed: set[int]
) -> None:
    in_use = frozenset(f"sha256:{number:064x}" for number in needed)
    plan = plan_gc(images, Keep(timedelta(days=days), bound, in_use), NOW)
    assert not in_use & {image.digest for image in plan.remove}
    assert all(NOW - image.used >= timedelta(days=days) for image in plan.remove)
    left = [image for image in images if image not in plan.remove]
    loose = [image for image in left if NOW - image.used >= timedelta(days=days) and image.digest not in in_use]
    assert not loose or (bound is not None and total_bytes(left) <= bound)
    assert all(gone.used <= kept.used for gone in plan.remove for kept in loose)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs: run the tests with sudo")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs to mount a tmpfs: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_what_does_not_fit_is_not_begun(small_disk: Path, tmp_path: Path) -> None:
    built = build_image(tmp_path / "one", some_layers(1, 2_000_000), compression=("",))
    store = Store(small_disk / "images")
    with pytest.raises(SiteError, match=r"free, .* are needed"):
        bring(store, built)
    assert blobs(store) == set()
    with pytest.raises(SiteError, match="inodes"):
        check_room(small_disk, -(16 << 20), 10**9)


@pytest.mark.slow
def test_a_disk_that_fills_on_the_way_gives_an_error_and_breaks_nothing(small_disk: Path, tmp_path: Path) -> None:
    store = Store(small_disk / "images")
    store.prepare()
    kept = build_image(tmp_path / "one", some_layers(1, 1000))
    big = build_image(tmp_path / "two", some_layers(1, 2_000_000), compression=("",))
    for built in (kept, big):
        store.put_document(built.manifest["config"]["digest"], _content(built, built.manifest["config"]))
    with open_local(LocalImage(kind="oci", path=big.layout), tmp_path) as source:
        layer = Descriptor.model_validate(big.manifest["layers"][0])
        with pytest.raises(SiteError, match="the disk is full") as caught:
            Transfer(store, source).bring(layer)
    assert "image gc" in caught.value.hint
    assert list((store.root / "partial").iterdir()) == []
    assert list((store.root / "locks").iterdir()) == []
    with open_local(LocalImage(kind="oci", path=kept.layout), tmp_path) as source:
        assert Transfer(store, source).bring(Descriptor.model_validate(kept.manifest["layers"][0]))


def _content(built: BuiltImage, part: dict[str, str]) -> bytes:
    return (built.layout / "blobs/sha256" / part["digest"].removeprefix("sha256:")).read_bytes()


def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SiteError, match="a file lies where a folder should be"):
        Store(tmp_path / "file" / "images").prepare()


def test_threads_of_one_process_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    built = build_image(tmp_path / "one", some_layers(4))
    store.prepare()
    threads = [threading.Thread(target=bring, args=(store, built)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.images()) == 1


def test_quotas_are_read_as_quota_and_lfs_print_them() -> None:
    quota = "/home  900  1000  1100  0  10  0  0  0\n/scratch 5000* 4000 5000 0 3 10 20 0\n"
    assert parse_quota(quota, Path("/home/alice/x")) == (200 * 1024, None)
    assert parse_quota(quota, Path("/scratch")) == (0, 17)
    assert parse_quota(quota, Path("/other")) is None
    assert parse_quota("/lus 12 0 100 - 5 0 50 -\n", Path("/lus/a")) == (88 * 1024, 45)
    assert parse_quota("Disk quotas for user alice (uid 1): none\n", Path("/")) is None
