"""A plain web server as storage: files by URL, folders where the server lists them as a page of links; read-only."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from deephpc.data.http_login import HttpLogin
from deephpc.data.location import join
from deephpc.data.storage import ByteStream, Entry, Limits, Missing, Refused, Upload
from deephpc.data.surroundings import Surroundings
from deephpc.data.web import Request, Web, clean_base, entry_of, quote_path
from deephpc.errors import DataError
from deephpc.retries import persist

_MAX_DEPTH = 64
_NO_HEAD = frozenset({403, 405, 501})


class HttpStorage:
    """Files of a web server."""

    parallel = 64
    can_write = False
    can_range = False

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        self._prefix = prefix
        self._base = clean_base(settings["url"])
        self._query = f"?{settings['query']}" if settings.get("query") else ""
        self._patience = limits.patience
        self._web = Web(self._base, HttpLogin(settings, around.home), limits)

    def show(self, path: str) -> str:
        """Return a path's full name without credentials."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Ask for a file by HEAD, or by a GET whose body is not read; a page at `…/` is a folder."""
        try:
            found = persist(self._patience, lambda: self._head(path))
        except Missing:
            return Entry("", is_folder=True) if self._is_page(path) else None
        return Entry("", is_folder=True) if path.endswith("/") or not path or found.is_folder else found

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what a page of links has directly below; sizes are asked for one by one."""
        for name in self._links(path):
            if name.endswith("/"):
                yield Entry(name[:-1], is_folder=True)
                continue
            found = self.look(join(path, name))
            if found is not None:
                yield replace(found, path=name)

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below; their sizes and versions become known when they are read."""
        yield from self._walk(path, "", _MAX_DEPTH)

    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> AbstractContextManager[ByteStream]:
        """Open a file's bytes."""
        return self._web.open_range(self._request("GET", path), entry, start, stop)

    def write(self, path: str, upload: Upload) -> Entry:
        """Refuse."""
        del upload
        raise Refused(
            f"{self.show(path)}: a plain web server takes no files", "write webdav(s)://… when it speaks WebDAV"
        )

    def remove(self, path: str) -> None:
        """Refuse."""
        raise Refused(f"{self.show(path)}: a plain web server removes no files", "use another protocol")

    def close(self) -> None:
        """End the connections."""
        self._web.close()

    def _walk(self, path: str, below: str, depth: int) -> Iterator[Entry]:
        if not depth:
            raise DataError(f"{self.show(path)}: folders in folders without end", "name a folder further down")
        for name in self._links(path):
            if name.endswith("/"):
                yield from self._walk(f"{join(path, name[:-1])}/", join(below, name[:-1]), depth - 1)
            else:
                yield Entry(join(below, name))

    def _links(self, path: str) -> list[str]:
        folder = f"{path.rstrip('/')}/" if path else ""
        request = self._request("GET", folder)
        answer, content = persist(self._patience, lambda: self._web.ask(request))
        if "html" not in answer.headers.get("content-type", ""):
            raise DataError(f"{self.show(folder)} is no folder that the server lists", "name its files one by one")
        return parse_links(content.decode("utf-8", "replace"), answer.url)

    def _is_page(self, path: str) -> bool:
        """Say whether a page answers to a name with `/` after it; some servers do not redirect to that."""
        if not path or path.endswith("/"):
            return False
        try:
            answer, _ = persist(self._patience, lambda: self._web.ask(self._request("HEAD", f"{path}/"), _NO_HEAD))
        except Missing:
            return False
        return answer.is_success and "html" in answer.headers.get("content-type", "")

    def _head(self, path: str) -> Entry:
        answer, _ = self._web.ask(self._request("HEAD", path), _NO_HEAD)
        if answer.status in _NO_HEAD:
            with self._web.send(self._request("GET", path)) as answer:
                return entry_of(answer)
        return entry_of(answer)

    def _request(self, method: str, path: str) -> Request:
        return Request(method, f"{self._base}/{quote_path(path)}{self._query}", self.show(path), {})


def parse_links(page: str, url: str) -> list[str]:
    """Return the names directly below a page's URL that it links to, folders with `/` at their end."""
    parser = _Links()
    parser.feed(page)
    here = urlsplit(url)
    found: dict[str, None] = {}
    for link in parser.found:
        try:
            target = urlsplit(urljoin(url, link))
        except ValueError:
            continue
        if (target.scheme, target.netloc) != (here.scheme, here.netloc) or target.query:
            continue
        if not target.path.startswith(here.path) or target.path == here.path:
            continue
        name = target.path[len(here.path) :]
        plain = unquote(name)
        if "/" in plain.removesuffix("/") or plain.strip("/") in ("", ".", ".."):
            continue
        found[plain] = None
    return list(found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where an anchor leads."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
