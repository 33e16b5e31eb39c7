"""What every kind of storage can do: one Protocol, its values, and what goes wrong on the way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from deephpc.errors import DataError
from deephpc.retries import BrokenOff, Patience

Piece = bytes | memoryview
#: Where a file ends of which nobody knows where it does.
ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder as a storage lists it."""

    path: str
    """Below what was listed, with `/`; empty for the thing itself."""
    size_bytes: int | None = None
    """None for a folder, and where the server does not say."""
    version: str = ""
    """Changes when the content does: an ETag, a time; empty where the server tells nothing of the kind."""
    modified_s: float | None = None
    """When it was changed, in seconds since 1970."""
    is_folder: bool = False
    md5: str = ""
    """Where the storage knows it without reading the file."""
    left_out: str = ""
    """Why it is listed, and cannot be brought."""


@dataclass(frozen=True, slots=True)
class ByteStream:
    """The bytes of a file from `start` on; a server that cannot begin in the middle begins at 0."""

    start: int
    chunks: Iterator[Piece]
    """Each good until the next is asked for: servers' come in one buffer."""
    whole: bool = False
    """Whether the server paid no heed to the range, so that the bytes go on to the file's end."""
    told: Entry | None = None
    """What the answer tells of the whole file; None where that is no more than the storage knew before."""
    ends_surely: bool = True
    """Whether the bytes tell themselves where they end; else a broken connection looks like their end."""


@dataclass(frozen=True)
class Upload:
    """A local file on its way out, as a storage reads it."""

    size_bytes: int
    modified_s: float
    key: str
    """Names this content at this place: what a broken try left under that name may be continued."""
    read: Callable[[int, int], bytes]
    """Returns the bytes from an offset on, at most so many; notes when the file changed meanwhile."""
    advance: Callable[[int], None]
    """Is told how many bytes the storage took."""
    keep: Callable[[int], None]
    """Is told how many bytes the storage had from an earlier try."""
    check: Callable[[], None]
    """Raises when the upload is to stop."""
    share: Callable[[Sequence[Callable[[], None]]], None]
    """Does pieces of work, several at once, and raises what one of them raised."""


class Storage(Protocol):
    """A server, a bucket or a file system; safe to use from several threads."""

    parallel: int
    """How many transfers at once it takes."""
    can_write: bool
    is_certain: bool
    """Whether what it tells of a file is so, and reading may begin in the middle, as in a file system.

    What others list is a hint: the first answer with bytes decides, and the others must be of the same file.
    """

    def show(self, path: str) -> str:
        """Return a path's full name for people, without credentials."""
        ...

    def look(self, path: str) -> Entry | None:
        """Return what is there; None for nothing."""
        ...

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what is directly in a folder, in any order."""
        ...

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below a folder, in any order."""
        ...

    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> AbstractContextManager[ByteStream]:
        """Open a file's bytes from start to before stop; raises `Changed` when it is no longer what was listed."""
        ...

    def write(self, path: str, upload: Upload) -> Entry:
        """Put a whole file in place, in one step for those who look; returns what the storage knows of it."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def close(self) -> None:
        """End the connections."""
        ...


def look_if_allowed(storage: Storage, path: str) -> Entry | None:
    """Return what is there, None also where we may not know: a place that is not shown may be written all the same."""
    try:
        return storage.look(path)
    except Forbidden:
        return None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may go on at once, and how patiently."""

    parallel: int = 8
    """Files and ranges on their way together."""
    patience: Patience = field(default_factory=Patience)


class Interrupted(BrokenOff, DataError):  # noqa: N818 - says what happened; callers try again
    """A transfer broke off, or a server is busy; the same request may work in a moment."""

    usual_hint = "say the same command again: it goes on where it stopped"


class Refused(DataError):  # noqa: N818 - says what happened
    """The storage does not let us."""


class Forbidden(Refused):
    """The storage does not let us do this; what else it lets us do is not known by that."""


class Unfit(DataError):  # noqa: N818 - says what happened
    """The storage takes other files, and not this one: its name, its kind."""


class Missing(DataError):  # noqa: N818 - says what happened
    """There is no such file or folder."""


class Changed(DataError):  # noqa: N818 - says what happened
    """A file is not the one that was listed any more."""


class Unwritable(DataError):  # noqa: N818 - says what happened
    """A place cannot be written: full, over quota, forbidden, read-only."""


def is_of_one_file(error: DataError) -> bool:
    """Whether an error need not concern the next file: not so of credentials, a full disk, a server that is away."""
    if isinstance(error, Refused):
        return isinstance(error, Forbidden)
    return not isinstance(error, Interrupted | Unwritable)


def unlisted(below: str, error: DataError) -> Entry:
    """Return a folder that cannot be listed, as one that is left out.

    Raises
    ------
    DataError
        The error itself, where it is the place that was asked for, or more than that folder is concerned.
    """
    if not below or not is_of_one_file(error):
        raise error
    return Entry(below, is_folder=True, left_out=f"cannot be listed: {error.message}")


def changed(name: str) -> Changed:
    """Return the error for a file that was replaced while we read it."""
    return Changed(
        f"{name} changed while it was transferred", "say the same command again when nobody writes there any more"
    )


def missing(name: str) -> Missing:
    """Return the error for a place with nothing there."""
    return Missing(f"{name} does not exist", "list its folder: `deephpc data ls FOLDER`")
