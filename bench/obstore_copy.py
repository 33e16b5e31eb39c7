"""A program that sends or brings a folder with obstore, as its documentation shows it: put and get of each object."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import obstore
from obstore.store import S3Store

_BUCKET = "bucket"
_AT_ONCE = 16


def main() -> None:
    """Read `put|get ENDPOINT FOLDER PREFIX` and do it."""
    way, endpoint, folder, prefix = sys.argv[1:]
    store = S3Store(
        _BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(minutes=5)},
    )
    here = Path(folder)
    if way == "put":
        names = [path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()]
        work = partial(_put, store, here, prefix)
    else:
        found = (meta["path"] for page in obstore.list(store, prefix=prefix) for meta in page)
        names = [path.removeprefix(f"{prefix}/") for path in found]
        work = partial(_get, store, here, prefix)
    with ThreadPoolExecutor(_AT_ONCE) as crew:
        list(crew.map(work, names))


def _put(store: S3Store, here: Path, prefix: str, name: str) -> None:
    obstore.put(store, f"{prefix}/{name}", here / name)


def _get(store: S3Store, here: Path, prefix: str, name: str) -> None:
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in obstore.get(store, f"{prefix}/{name}").stream():
            file.write(chunk)


if __name__ == "__main__":
    main()
