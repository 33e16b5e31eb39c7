"""A plain web server as storage: files by URL, folders where the server lists them as a page of links; read-only."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from html.parser import HTMLParser

from deephpc.data.answer import Answer
from deephpc.data.http_login import HttpLogin
from deephpc.data.location import join
from deephpc.data.manifest import entry_named
from deephpc.data.storage import ByteStream, Entry, Limits, Missing, Refused, Upload, unlisted
from deephpc.data.surroundings import Surroundings
from deephpc.data.url_path import Parts, parse_url
from deephpc.data.web import Request, Web, clean_base, entry_of, quote_path
from deephpc.errors import DataError
from deephpc.retries import persist

_MAX_DEPTH = 64
#: With what servers refuse HEAD alone: anything; about 429 there is no doubt.
_NO_HEAD = frozenset(range(400, 600)) - {401, 407, 429}


class HttpStorage:
    """Files of a web server."""

    parallel = 64
    can_write = False
    is_certain = False

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
            found = entry_of(persist(self._patience, lambda: self._headers(path)))
        except Missing:
            return Entry("", is_folder=True) if self._is_page(path) else None
        return Entry("", is_folder=True) if path.endswith("/") or not path or found.is_folder else found

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what a page of links has directly below; sizes are asked for one by one."""
        for each in self._links(path):
            found = each if each.is_folder or each.left_out else self.look(join(path, each.path))
            if found is not None:
                yield replace(found, path=each.path)

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
        try:
            links = list(self._links(path))
        except DataError as error:
            yield unlisted(below, error)
            return
        for each in links:
            relative = join(below, each.path)
            if each.is_folder and not each.left_out:
                yield from self._walk(f"{join(path, each.path)}/", relative, depth - 1)
            else:
                yield replace(each, path=relative)

    def _links(self, path: str) -> Iterator[Entry]:
        """Return what a page links to: a folder, a file of which no more is known, or what cannot be brought."""
        folder = f"{path.rstrip('/')}/" if path else ""
        request = self._request("GET", folder)
        answer, content = persist(self._patience, lambda: self._web.ask(request))
        if "html" not in answer.headers.get("content-type", ""):
            raise DataError(f"{self.show(folder)} is no folder that the server lists", "name its files one by one")
        page = parse_links(_text(content, answer), answer.url)
        for name in page.names:
            yield entry_named(name.removesuffix("/"), is_folder=name.endswith("/"))
        if page.further and not page.names:
            where = f"nothing directly below it, but to {page.further} places further down"
            yield Entry("", left_out=f"has a page that links to {where}")

    def _is_page(self, path: str) -> bool:
        """Say whether a page answers to a name with `/` after it; some servers do not redirect to that."""
        if not path or path.endswith("/"):
            return False
        try:
            answer = persist(self._patience, lambda: self._headers(f"{path}/"))
        except Missing:
            return False
        return "html" in answer.headers.get("content-type", "")

    def _headers(self, path: str) -> Answer:
        """Ask by HEAD, or where that is refused by a GET whose body is not read."""
        try:
            with self._web.send(self._request("HEAD", path), _NO_HEAD) as answer:
                if answer.is_success:
                    return answer
        except Refused:
            pass
        with self._web.send(self._request("GET", path)) as answer:
            return answer

    def _request(self, method: str, path: str) -> Request:
        return Request(method, f"{self._base}/{quote_path(path)}{self._query}", self.show(path), {})


def _text(content: bytes, answer: Answer) -> str:
    """Return a page as text; in a list that is UTF-8 in vain, bytes that are not stay what they are."""
    try:
        return content.decode(answer.headers.get_content_charset("utf-8"), "surrogateescape")
    except LookupError:
        return content.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of links has directly below it."""

    names: tuple[str, ...]
    """Folders with `/` at their end."""
    further: int
    """How many links lead further down."""


def parse_links(page: str, url: str) -> Page:
    """Read a page of links; a link with a query is no file's (servers sort their lists by them)."""
    parser = _Links()
    parser.feed(page)
    here = parse_url("./", parse_url(url))
    base = parse_url(parser.base, here) if parser.base else here
    names: dict[str, None] = {}
    further: set[Parts] = set()
    for link in parser.found:
        target = parse_url(link, base or here)
        below = None if target is None or here is None or target.has_query else target.below(here)
        if target is None or not below:
            continue
        if len(below) > 1:
            further.add(below)
        else:
            names[below[0] + ("/" if target.is_folder else "")] = None
    return Page(tuple(names), len(further))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where an anchor leads, and the first `base`."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
        elif tag == "base" and not self.base:
            self.base = next((value for name, value in attrs if name == "href" and value), "")
