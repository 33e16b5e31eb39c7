"""Opens layers and archives whatever they are compressed with: gzip, zstd, or not at all."""

import contextlib
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from deephpc.containers.manifest import OCI_LAYER
from deephpc.errors import EngineError

_CHUNK_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + low, 0x2A, 0x4D, 0x18]) for low in range(16))


def compression_of(head: bytes) -> str:
    """Tell by its first bytes how a file is compressed: `gzip`, `zstd`, or nothing (RFC 1952, RFC 8878)."""
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)) else ""


def layer_media_type(head: bytes) -> str:
    """Return the media type of a layer by its first bytes."""
    compression = compression_of(head)
    return f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER


@contextmanager
def open_layer(path: Path) -> Iterator[IO[bytes]]:
    """Open a layer as the tar it holds, whatever its media type says: registries mislabel them.

    Raises
    ------
    EngineError
        The file is broken: raised by reading too.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            compression = compression_of(file.read(4))
            file.seek(0)
            if compression == "gzip":
                yield cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
            elif compression == "zstd":
                reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                yield stack.enter_context(reader)
            else:
                yield file
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise EngineError(f"{path} is a broken layer: {error}", "pull the image again") from error


def diff_id(path: Path) -> str:
    """Return the digest of a layer before compression."""
    digest = hashlib.sha256()
    with open_layer(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def file_digest(path: Path) -> str:
    """Return the digest of a file as it lies."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
