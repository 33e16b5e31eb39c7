"""A registry, or what stands before one, that packs its answers although it was asked not to."""

import gzip
import http.client
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from deephpc.errors import EngineError

from .conftest import Puller
from .images import BuiltImage, build_image, some_layers
from .servers import FrontHandler, RealRegistry, front_of


@pytest.fixture
def image(tmp_path: Path, registry: RealRegistry) -> BuiltImage:
    """An image of gzip, zstd and plain layers, as `demo/packed:latest`."""
    built = build_image(tmp_path / "layout", some_layers(3), compression=("gzip", "zstd", ""))
    registry.push(built.layout, "demo/packed:latest")
    return built


def packing(pack: Callable[[bytes], bytes], coding: str, what: str):
    """Return a trick that packs the registry's answers about manifests, or blobs, or both."""

    def trick(handler: FrontHandler) -> bool:
        if what not in handler.path:
            return False
        upstream = http.client.HTTPConnection("127.0.0.1", handler.front.upstream)
        upstream.request("GET", handler.path, headers={"Accept": handler.headers.get("Accept", "*/*")})
        found = upstream.getresponse()
        said = {"Content_Type": found.getheader("Content-Type", ""), "Content_Encoding": coding}
        handler.answer(found.status, pack(found.read()), **said)
        upstream.close()
        return True

    return trick


@pytest.mark.parametrize("what", ["/manifests/", "/blobs/", "/v2/demo/"])
@pytest.mark.parametrize(
    ("pack", "coding"),
    [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (lambda body: body, "gzip")],
    ids=["gzip", "deflate", "labelled in vain"],
)
def test_what_a_registry_packs_is_unpacked(
    registry: RealRegistry,
    image: BuiltImage,
    pull_image: Puller,
    pack: Callable[[bytes], bytes],
    coding: str,
    what: str,
) -> None:
    with front_of(registry.port) as front:
        front.tricks.append(packing(pack, coding, what))
        assert pull_image(f"{front.host}/demo/packed").image.digest == image.digest


def test_what_cannot_be_unpacked_is_refused_and_named(
    registry: RealRegistry, image: BuiltImage, pull_image: Puller
) -> None:
    del image
    with front_of(registry.port) as front:
        front.tricks.append(packing(lambda body: b"\x0b" + body, "br", "/manifests/"))
        with pytest.raises(EngineError, match="packed with br, though it was asked for as it is"):
            pull_image(f"{front.host}/demo/packed")
