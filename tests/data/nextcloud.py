"""A double of Nextcloud: WebDAV by wsgidav under `/remote.php/dav/files/USER`, chunked upload version 2 beside it.

Source: Nextcloud developer manual 28 and 30, "Chunked file upload": what it demands is demanded here.

It logs the requests for chunks to FOLDER/log. Files in FOLDER change what it does: `no-chunks` (it knows none) and
`hang-up-after-move` (the answer to the first MOVE is lost).
"""

import base64
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .servers import PASSWORD, USER, process_of

_FILES, _UPLOADS = f"/remote.php/dav/files/{USER}", f"/remote.php/dav/uploads/{USER}"
_SMALLEST_BYTES = 5_000_000
_LISTING = (
    "<d:response><d:href>{href}</d:href><d:propstat><d:prop><d:resourcetype>{kind}</d:resourcetype>{size}</d:prop>"
    "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
)


@contextmanager
def server(folder):
    """Run it; yields its port."""
    for name in ("files", "uploads"):
        (folder / name).mkdir(parents=True)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
    code += "from tests.data.nextcloud import main; main(*sys.argv[1:])"
    with process_of(code, str(folder), folder=folder) as port:
        yield port


class Chunks:
    """The part of it that wsgidav does not have."""

    def __init__(self, folder, others):
        self.folder = Path(folder)
        self.others = others
        self.turn = threading.Lock()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"].encode("latin-1").decode()
        if not path.startswith(_UPLOADS) or (self.folder / "no-chunks").exists():
            return self.others(environ, start_response)
        login = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if environ.get("HTTP_AUTHORIZATION") != login:
            start_response("401 Unauthorized", [("Content-Length", "0")])
            return [b""]
        method = environ["REQUEST_METHOD"]
        name, _, chunk = path[len(_UPLOADS) :].strip("/").partition("/")
        place = self.folder / "uploads" / name
        status, body = self.answer(method, environ, place, chunk)
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def answer(self, method, environ, place, chunk):
        target = unquote(urlsplit(environ.get("HTTP_DESTINATION", "")).path)
        if not target.startswith(f"{_FILES}/") and method in ("MKCOL", "PUT", "MOVE"):
            return "400 No Destination", b""
        if method == "PROPFIND":
            return self.listing(environ["PATH_INFO"], place)
        with self.turn, (self.folder / "log").open("a") as log:
            print(method, file=log)
        if method == "MKCOL":
            if place.exists():
                return "405 Exists", b""
            place.mkdir()
            return "201 Created", b""
        if not place.is_dir():
            return "404 Not Found", b""
        if method == "PUT":
            return self.put(environ, place / chunk)
        if method == "DELETE":
            shutil.rmtree(place)
            return "204 No Content", b""
        if method == "MOVE" and chunk == ".file":
            return self.put_together(environ, place, self.folder / "files" / target[len(_FILES) + 1 :])
        return "405 Chunks cannot be downloaded", b""

    def listing(self, path, place):
        if not place.is_dir():
            return "404 Not Found", b""
        rows = [_LISTING.format(href=f"{path}/", kind="<d:collection/>", size="")]
        for each in sorted(place.iterdir()):
            size = f"<d:getcontentlength>{each.stat().st_size}</d:getcontentlength>"
            rows.append(_LISTING.format(href=f"{path}/{each.name}", kind="", size=size))
        return "207 Multi-Status", f'<d:multistatus xmlns:d="DAV:">{"".join(rows)}</d:multistatus>'.encode()

    def put(self, environ, path):
        if re.fullmatch(r"\d{1,5}", path.name) is None or not 1 <= int(path.name) <= 10_000:
            return "400 Not a chunk's name", b""
        length = int(environ["CONTENT_LENGTH"])
        content = environ["wsgi.input"].read(length)
        if len(content) < length:
            return "400 Broke off", b""
        path.write_bytes(content)
        return "201 Created", b""

    def put_together(self, environ, place, target):
        chunks = sorted(place.iterdir(), key=lambda path: int(path.name))
        sizes = [path.stat().st_size for path in chunks]
        if any(size < _SMALLEST_BYTES for size in sizes[:-1]):
            return "400 Too small a chunk", b""
        if sum(sizes) != int(environ.get("HTTP_OC_TOTAL_LENGTH", sum(sizes))):
            return "400 Chunks do not sum up", b""
        with target.open("wb") as file:
            for path in chunks:
                file.write(path.read_bytes())
        if "HTTP_X_OC_MTIME" in environ:
            modified = int(environ["HTTP_X_OC_MTIME"])
            os.utime(target, (modified, modified))
        shutil.rmtree(place)
        wish = self.folder / "hang-up-after-move"
        if wish.exists():
            wish.unlink()
            raise ConnectionAbortedError
        return "201 Created", b""


def main(address, folder):
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    sharing = {
        "provider_mapping": {_FILES: str(Path(folder) / "files")},
        "verbose": 0,
        "logging": {"enable_loggers": []},
        "lock_storage": None,
        "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
        "dir_browser": {"enable": False},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    }
    served = wsgi.Server((address, 0), Chunks(folder, WsgiDAVApp(sharing)), numthreads=12)
    served.prepare()
    print(served.bind_addr[1], flush=True)
    served.serve()
