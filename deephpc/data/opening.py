"""Opens the storage of a location; a kind of storage is loaded when it is first needed."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from deephpc.data.location import Location
from deephpc.data.storage import Limits, Storage
from deephpc.data.surroundings import Surroundings

#: Kind → where it is defined; loading them all would cost half a second.
KINDS = {
    "file": "deephpc.data.local:LocalStorage",
    "http": "deephpc.data.http:HttpStorage",
    "webdav": "deephpc.data.webdav:WebdavStorage",
    "s3": "deephpc.data.s3:S3Storage",
    "sftp": "deephpc.data.sftp:SftpStorage",
    "fsspec": "deephpc.data.fsspec_storage:FsspecStorage",
}


@contextmanager
def opened(location: Location, around: Surroundings, limits: Limits) -> Iterator[Storage]:
    """Open a location's storage for the block; nothing is asked of a server before the storage is used."""
    module, _, name = KINDS[location.kind].partition(":")
    kind = cast("Callable[..., Storage]", getattr(importlib.import_module(module), name))
    storage = kind(location.prefix, location.settings, limits, around)
    try:
        yield storage
    finally:
        storage.close()
