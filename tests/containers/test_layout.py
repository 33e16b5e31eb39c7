"""Layouts and archives in, archives out; other tools read ours, we read theirs."""

import gzip
import io
import json
import tarfile
from datetime import datetime, timezone
from pathlib import Path

import pytest
import zstandard

from deephpc.containers.archive import export
from deephpc.containers.layout import open_local
from deephpc.containers.pull import Pulled, pull
from deephpc.containers.reference import LocalImage, parse_target
from deephpc.containers.source import Corrupt
from deephpc.containers.store import Store
from deephpc.containers.transfer import Silent, Transfer
from deephpc.containers.upkeep import verify
from deephpc.errors import EngineError, InputError

from .conftest import AMD64
from .images import BuiltImage, build_image, some_layers, write_index
from .servers import need, run_tool


def bring(store: Store, target: str) -> Pulled:
    image = parse_target(target)
    assert isinstance(image, LocalImage)
    store.prepare()
    with open_local(image, store.root / "partial") as source:
        return pull(Transfer(store, source), source.resolve(), AMD64, datetime.now(timezone.utc))


@pytest.fixture
def built(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "layout", some_layers(3), compression=("gzip", "zstd", ""))


def test_an_export_comes_back_with_its_digest_and_name(store: Store, built: BuiltImage, tmp_path: Path) -> None:
    image = bring(store, f"oci:{built.layout}").image
    file = tmp_path / "image.tar"
    assert export(store, image, file, Silent()) == file.stat().st_size
    elsewhere = Store(tmp_path / "elsewhere")
    again = bring(elsewhere, f"oci-archive:{file}").image
    assert again.digest == image.digest == built.digest
    assert verify(elsewhere, again) == ()
    with pytest.raises(InputError, match="exists"):
        export(store, image, file, Silent())
    before = file.read_bytes()
    export(store, image, file, Silent(), force=True)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_skopeo_reads_our_archive_and_we_read_skopeo_s(store: Store, built: BuiltImage, tmp_path: Path) -> None:
    need("skopeo")
    ours = tmp_path / "ours.tar"
    export(store, bring(store, f"oci:{built.layout}").image, ours, Silent())
    theirs, saved = tmp_path / "theirs.tar", tmp_path / "saved.tar"
    copy = ("skopeo", "copy", "-q", "--insecure-policy")
    run_tool(*copy, "--preserve-digests", f"oci-archive:{ours}", f"oci-archive:{theirs}:a/b:c")
    assert bring(Store(tmp_path / "x"), f"oci-archive:{theirs}:a/b:c").image.digest == built.digest
    for_docker = build_image(tmp_path / "gzip", some_layers(3))  # docker's format has no zstd
    run_tool(*copy, f"oci:{for_docker.layout}", f"docker-archive:{saved}:demo/x:1")
    loaded = bring(Store(tmp_path / "y"), f"docker-archive:{saved}").image
    assert loaded.config.rootfs == bring(store, f"oci:{for_docker.layout}").image.config.rootfs
    assert verify(Store(tmp_path / "y"), loaded) == ()


@pytest.mark.slow
def test_what_umoci_builds_is_read(store: Store, tmp_path: Path) -> None:
    need("umoci")
    layout = tmp_path / "umoci"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_text("hello")
    run_tool("umoci", "init", "--layout", str(layout))
    run_tool("umoci", "new", "--image", f"{layout}:one")
    run_tool("umoci", "insert", "--rootless", "--image", f"{layout}:one", str(tmp_path / "tree"), "/srv")
    run_tool("umoci", "config", "--image", f"{layout}:one", "--config.cmd", "run", "--config.workingdir", "/srv")
    image = bring(store, f"oci:{layout}:one").image
    assert image.config.process.cmd == ("run",)
    assert image.config.process.working_dir == "/srv"
    assert verify(store, image) == ()


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: zstandard.ZstdCompressor().compress(content)])
def test_a_compressed_archive_is_read_and_no_copy_stays(
    store: Store, built: BuiltImage, tmp_path: Path, pack: object
) -> None:
    plain, packed = tmp_path / "plain.tar", tmp_path / "packed.tar"
    export(store, bring(store, f"oci:{built.layout}").image, plain, Silent())
    packed.write_bytes(pack(plain.read_bytes()))  # type: ignore[operator]
    elsewhere = Store(tmp_path / "elsewhere")
    assert bring(elsewhere, f"oci-archive:{packed}").image.digest == built.digest
    assert list((elsewhere.root / "partial").iterdir()) == []


def test_of_several_images_one_is_named(store: Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    entries = []
    for name in ("one", "two"):
        build_image(layout, [{name: b""}], tag=name)
        entries += json.loads((layout / "index.json").read_text())["manifests"]
    write_index(layout, entries)
    with pytest.raises(EngineError, match="has 2 images: one, two"):
        bring(store, f"oci:{layout}")
    assert bring(store, f"oci:{layout}:two").image.digest == entries[1]["digest"]
    with pytest.raises(EngineError, match="no image of that name"):
        bring(store, f"oci:{layout}:three")


def test_a_flipped_byte_in_an_archive_is_refused(store: Store, built: BuiltImage, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    image = bring(store, f"oci:{built.layout}").image
    export(store, image, file, Silent())
    content = bytearray(file.read_bytes())
    layer = image.layers[0].read_bytes()
    content[bytes(content).index(layer) + len(layer) // 2] ^= 1
    file.write_bytes(content)
    elsewhere = Store(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match=built.layer_digests[0]):
        bring(elsewhere, f"oci-archive:{file}")
    assert elsewhere.images() == ()


def make_tar(path: Path, members: dict[str, bytes], links: dict[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, to in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, to
            archive.addfile(member)


def test_links_out_of_an_archive_lead_nowhere(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file = tmp_path / "evil.tar"
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": ["a/layer.tar"]}]).encode()
    config = json.dumps({"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}).encode()
    for target in (str(secret), "../../secret", "layer.tar", "../config.json/x"):
        make_tar(file, {"manifest.json": manifest, "config.json": config}, {"a/layer.tar": target})
        with pytest.raises(EngineError, match="lacks a/layer"):
            bring(store, f"docker-archive:{file}")
    make_tar(file, {"manifest.json": manifest.replace(b"a/layer.tar", b"/etc/passwd"), "config.json": config}, {})
    with pytest.raises(EngineError, match="lacks /etc/passwd"):
        bring(store, f"docker-archive:{file}")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, gzip.compress(b"x" * 1000, mtime=0)[:-9]])
def test_a_file_that_is_no_archive_is_refused(store: Store, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(content)
    for kind in ("oci-archive", "docker-archive"):
        with pytest.raises(EngineError):
            bring(store, f"{kind}:{file}")
    with pytest.raises(InputError, match="does not exist"):
        bring(store, f"oci:{tmp_path / 'absent'}")
