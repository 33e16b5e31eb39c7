"""A place that results are to go to, tried before a run is queued for it."""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from deephpc.data.deadline import within
from deephpc.data.opening import opened
from deephpc.data.storage import Interrupted, Upload
from deephpc.errors import DataError, InputError
from deephpc.retries import Patience
from deephpc.workflows.data_places import DataPlaces

_SECONDS = 5.0
_ONCE = Patience(attempts=1, connect_s=_SECONDS, stall_s=_SECONDS)
_CONTENT = b"deephpc\n"


def try_target(place: str, places: DataPlaces) -> str | None:
    """Write a small file there and remove it; return why that could not be tried, if so. For the main thread alone.

    Raises
    ------
    InputError
        The place takes no files.
    DataError
        It refuses them; silence is no refusal.
    """
    target = places.locate(place).child(f"deephpc-trial-{secrets.token_hex(8)}")
    limits = replace(places.limits, patience=_ONCE)
    why = f"--collect {place} did not answer within {_SECONDS:.0f} s"
    try:
        with within(_SECONDS, why), opened(target, places.around, limits) as storage:
            if not storage.can_write:
                raise InputError(
                    f"--collect {place} takes no files: a plain web server", "write webdav(s)://… when it speaks WebDAV"
                )
            storage.write(target.path, _small_file())
            with suppress(DataError):
                storage.remove(target.path)
    except Interrupted as error:
        return error.message
    except DataError as error:
        raise DataError(f"--collect {place} takes no results: {error.message}", error.hint) from error
    return None


def _small_file() -> Upload:
    def do_all(pieces: Sequence[Callable[[], None]]) -> None:
        for piece in pieces:
            piece()

    return Upload(
        size_bytes=len(_CONTENT),
        modified_s=time.time(),
        key=secrets.token_hex(12),
        read=lambda at, count: _CONTENT[at : at + count],
        advance=lambda _: None,
        keep=lambda _: None,
        check=lambda: None,
        share=do_all,
    )
