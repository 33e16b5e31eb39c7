"""WebDAV as storage, Nextcloud's and ownCloud's too.

Source: RFC 4918.
"""

import posixpath
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

from deephpc.data.http_login import HttpLogin
from deephpc.data.location import join
from deephpc.data.nextcloud import CHUNK_BYTES, ChunkedUpload, chunks_url, is_own_cloud, time_told
from deephpc.data.storage import (
    ENDLESS,
    ByteStream,
    Entry,
    Forbidden,
    Interrupted,
    Limits,
    Missing,
    Refused,
    Unfit,
    Upload,
    look_if_allowed,
    unlisted,
)
from deephpc.data.surroundings import Surroundings
from deephpc.data.web import Request, Web, clean_base, entry_of, quote_path
from deephpc.data.webdav_listing import FIELDS, parse_listing
from deephpc.errors import DataError
from deephpc.retries import Patience, persist

_MAX_DEPTH = 64
_SEND_BYTES = 1 << 18
#: Answers to MKCOL after which writing tells whether the folder is there.
_EXISTS = frozenset({403, 405, 409})
#: How servers refuse a file for its name: a bad request, forbidden, an unsupported type, unprocessable.
_FORBIDS = frozenset({400, 403, 415, 422})


class WebdavStorage:
    """Files of a WebDAV server."""

    parallel = 64
    can_write = True
    is_certain = False

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        self._prefix = prefix
        self._base = clean_base(settings["url"])
        self._patience = limits.patience
        self._is_own_cloud = is_own_cloud(self._base, settings.get("vendor", ""))
        self._takes_drafts: bool | None = None  # not known yet
        self._in_part: set[str] = set()
        self._web = Web(self._base, HttpLogin(settings, around.home), limits)
        self._folders: set[str] = set()
        self._making = threading.Lock()

    def show(self, path: str) -> str:
        """Return a path's full name without credentials."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Ask for one resource."""
        return self._look(path, self._patience)

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what is directly in a folder."""
        yield from (each for each in self._propfind(path, "1", self._patience) if each.path)

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below, folder by folder: servers refuse to list without end (RFC 4918, 9.1)."""
        waiting = [("", 0)]
        while waiting:
            below, depth = waiting.pop()
            if depth > _MAX_DEPTH:
                raise DataError(f"{self.show(path)}: folders in folders without end", "name a folder further down")
            try:
                listed = list(self.list_folder(join(path, below)))
            except DataError as error:
                yield unlisted(below, error)
                continue
            for each in listed:
                relative = join(below, each.path)
                if each.is_folder and not each.left_out:
                    waiting.append((relative, depth + 1))
                else:
                    yield replace(each, path=relative)

    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> AbstractContextManager[ByteStream]:
        """Open a file's bytes."""
        return self._web.open_range(self._request("GET", path), entry, start, stop)

    def write(self, path: str, upload: Upload) -> Entry:
        """Put a file in its place, in one step for those who look where the server lets us.

        Nextcloud and ownCloud write to a part file of their own; others get a draft beside its place, which is moved.
        """
        self._make_folders(posixpath.dirname(path))
        if not self._write_chunks(path, upload):
            (self._put if self._is_own_cloud else self._write_draft)(path, upload)
        try:
            seen = self.look(path)
        except Forbidden:  # a folder to drop files into: it took this one
            return Entry("", upload.size_bytes)
        if seen is None or (seen.size_bytes != upload.size_bytes and self._count(path) != upload.size_bytes):
            raise Interrupted(f"{self.show(path)} has not the size that was sent")
        return seen

    def _count(self, path: str) -> int:
        """Return how many bytes a file has, where what is listed of it is in doubt: by reading it."""
        with self.open_range(path, Entry(""), 0, ENDLESS) as stream:
            return sum(map(len, stream.chunks))

    def remove(self, path: str) -> None:
        """Remove a file."""
        persist(self._patience, lambda: self._web.ask(self._request("DELETE", path)))

    def close(self) -> None:
        """End the connections."""
        self._web.close()

    def _write_chunks(self, path: str, upload: Upload) -> bool:
        url = self._url(path)
        folder = chunks_url(url, upload.key)
        if folder is None or upload.size_bytes <= CHUNK_BYTES:
            return False
        with _telling_unfit():
            return ChunkedUpload(self._web, self._patience, folder, url, self.show(path)).send(upload)

    def _put(self, path: str, upload: Upload, shown: str = "") -> None:
        headers = {"Content-Length": str(upload.size_bytes), **(time_told(upload) if self._is_own_cloud else {})}
        with _telling_unfit():
            self._web.ask(Request("PUT", self._url(path), shown or self.show(path), headers, _chunks(upload)))

    def _write_draft(self, path: str, upload: Upload) -> None:
        """Put a file beside its place and move it there; a broken one stays under the other name."""
        draft = join(posixpath.dirname(path), f".{upload.key}.part")
        if not self._takes(draft, path):
            self._write_in_place(path, upload)
            self._takes_drafts = False
            return
        self._put(draft, upload, self.show(path))
        target = {"Destination": self._url(path), "Overwrite": "T"}
        try:
            self._web.ask(Request("MOVE", self._url(draft), self.show(path), target))
        except Refused as error:
            with suppress(DataError):
                self._web.ask(self._request("DELETE", draft))
            self._takes_drafts = False
            raise Interrupted(f"{self.show(path)}: the server lets nothing be renamed") from error

    def _takes(self, draft: str, path: str) -> bool:
        """Whether the server takes a draft's name: an empty file tells, before bytes are sent in vain."""
        if self._takes_drafts is None:
            empty = Request("PUT", self._url(draft), self.show(path), {"Content-Length": "0"}, b"")
            answer, _ = persist(self._patience, lambda: self._web.ask(empty, _FORBIDS))
            if answer.status in _FORBIDS:  # or it takes nothing there: then the file itself is refused
                return False
            self._takes_drafts = True
        return self._takes_drafts

    def _write_in_place(self, path: str, upload: Upload) -> None:
        """Put a file where it belongs; what a broken try made of the place is removed."""
        before = None if path in self._in_part else look_if_allowed(self, path)
        try:
            self._put(path, upload)
        except BaseException as error:
            if not self._remove_broken(path, before):
                self._in_part.add(path)
                if isinstance(error, Interrupted):
                    raise Interrupted(f"{error.message}; it may be there in part") from error
            raise
        self._in_part.discard(path)

    def _remove_broken(self, path: str, before: Entry | None) -> bool:
        """Remove what is no longer as it was before; False where that cannot be done now."""
        with suppress(DataError):
            after = self._look(path, replace(self._patience, attempts=1))
            if after is not None and after != before:
                self._web.ask(self._request("DELETE", path))
            return True
        return False

    def _make_folders(self, folder: str) -> None:
        """Make a folder and those above it, each once."""
        if not folder.strip("/") or folder in self._folders:
            return
        with self._making:
            if folder in self._folders:
                return
            missing_ones = []
            above = folder
            while above.strip("/") and above not in self._folders:
                try:
                    found = self.look(above)
                except Forbidden:  # a folder to drop files into; making it, or writing, tells whether it is there
                    found, self._takes_drafts = None, False
                if found is not None and not found.is_folder:
                    raise Refused(f"{self.show(above)} is a file where a folder should be", "take another destination")
                if found is not None:
                    break
                missing_ones.append(above)
                above = posixpath.dirname(above)
            for each in reversed(missing_ones):
                request = Request("MKCOL", f"{self._url(each)}/", self.show(each), {})
                with _telling_unfit():
                    persist(self._patience, lambda request=request: self._web.ask(request, _EXISTS))  # type: ignore[misc]
            self._folders.add(folder)

    def _look(self, path: str, patience: Patience) -> Entry | None:
        try:
            found = self._propfind(path, "0", patience)
        except Missing:
            return None
        except Forbidden as error:
            return self._look_by_head(path, patience, error)
        return next((each for each in found if not each.path), found[0] if found else None)

    def _look_by_head(self, path: str, patience: Patience, refused: Forbidden) -> Entry | None:
        """Ask for a file's headers, where the server lists nothing."""
        try:
            answer, _ = persist(patience, lambda: self._web.ask(self._request("HEAD", path)))
        except Missing:
            return None
        except Forbidden:
            raise refused from None
        return entry_of(answer)

    def _propfind(self, path: str, depth: str, patience: Patience) -> list[Entry]:
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        request = Request("PROPFIND", self._url(path), self.show(path), headers, FIELDS)
        answer, content = persist(patience, lambda: self._web.ask(request))
        if answer.status != 207:
            raise DataError(f"{self.show(path)}: the server does not speak WebDAV there", "check the address")
        return parse_listing(content, self._url(path), self.show(path))

    def _url(self, path: str) -> str:
        return f"{self._base}/{quote_path(path.strip('/'))}"

    def _request(self, method: str, path: str) -> Request:
        return Request(method, self._url(path), self.show(path), {})


def _chunks(upload: Upload) -> Iterator[bytes]:
    at = 0
    while at < upload.size_bytes:
        upload.check()
        chunk = upload.read(at, min(_SEND_BYTES, upload.size_bytes - at))
        yield chunk
        at += len(chunk)
        upload.advance(len(chunk))


@contextmanager
def _telling_unfit() -> Iterator[None]:
    """Tell what a server refuses of one file alone from what it refuses of all: rights, room, a place."""
    try:
        yield
    except DataError as error:
        if type(error) is DataError:
            raise Unfit(error.message, "give it another name: the other files are sent") from error
        raise
