"""A double of Nextcloud: WebDAV by wsgidav under `/remote.php/dav/files/USER`, chunked upload version 2 beside it.

Each rule names the file of Nextcloud's source that it follows, as it is in release 30 and later; what the developer
manual 28 and 30, "Chunked file upload", demands is demanded here. Bulk upload (apps/dav/lib/BulkUpload) is not here:
deephpc does not use it.

It logs the requests for chunks to FOLDER/log, those that are not allowed to FOLDER/refused. Files in FOLDER change
what it does: `no-chunks` (it knows none), `hang-up-after-move` (the answer to the first MOVE is lost), `forbidden.json`
(what its config.php forbids), `refuses-with` (another status for a refused name).
"""

import base64
import json
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from .servers import PASSWORD, USER, process_of

_FILES, _UPLOADS = f"/remote.php/dav/files/{USER}", f"/remote.php/dav/uploads/{USER}"
_SMALLEST_BYTES = 5_000_000
_FIRST_DAY_S = 24 * 60 * 60
#: lib/private/Files/FilenameValidator.php: the fallbacks of its options; `.part` is added to whatever is configured.
_FORBIDDEN = {
    "forbidden_filenames": [".htaccess"],
    "forbidden_filename_basenames": [],
    "forbidden_filename_characters": [],
    "forbidden_filename_extensions": [".filepart"],
}
_ERROR = """<?xml version="1.0" encoding="utf-8"?>
<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">
  <s:exception>{kind}</s:exception>
  <s:message>{message}</s:message>{more}
</d:error>
"""
#: apps/dav/lib/Connector/Sabre/Exception/InvalidPath.php, `serialize`.
_REASON = """
  <o:retry xmlns:o="o:">false</o:retry>
  <o:reason xmlns:o="o:">{message}</o:reason>"""
_LISTING = (
    "<d:response><d:href>{href}</d:href><d:propstat><d:prop><d:resourcetype>{kind}</d:resourcetype>{size}</d:prop>"
    "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
)


@contextmanager
def server(folder, address=_FILES):
    """Run it; yields its port.

    Parameters
    ----------
    address
        The path that the files lie at: another one hides that it is Nextcloud.
    """
    for name in ("files", "uploads"):
        (folder / name).mkdir(parents=True)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
    code += "from tests.data.nextcloud import main; main(*sys.argv[1:])"
    with process_of(code, str(folder), address, folder=folder) as port:
        yield port


def refusal_of(name, config):
    """Return what is said of a file or folder that may not be called so; "" for one that may.

    Source: lib/private/Files/FilenameValidator.php, `validateFilename`; where that says nothing,
    tests/lib/Files/PathVerificationTest.php has the words.
    """
    found = {**_FORBIDDEN, **config}
    small = name.lower()
    if not name.strip():
        return "Empty filename is not allowed"
    if name.strip() in (".", ".."):
        return "Dot files are not allowed"
    if len(name.encode()) > 250:
        return "Filename is too long"
    if small in found["forbidden_filenames"]:
        return f'"{small}" is a forbidden file or folder name.'
    if small[:1] + small[1:].partition(".")[0] in found["forbidden_filename_basenames"]:
        return f'"{name}" is a forbidden prefix for file or folder names.'
    for end in (*found["forbidden_filename_extensions"], ".part"):
        if small.endswith(end):
            is_kind = end.startswith(".")
            return f'"{end}" is a forbidden file type.' if is_kind else f'Filenames must not end with "{end}".'
    if any(ord(sign) < 32 for sign in name):
        return "Filename contains at least one invalid character"
    for sign in ("\\", "/", *found["forbidden_filename_characters"]):
        if sign in name:
            return f'"{sign}" is not allowed inside a file or folder name.'
    return ""


def error_of(kind, message, more=""):
    """Return an error's body as sabre/dav writes it; tests/recorded has its own."""
    return _ERROR.format(kind=kind, message=escape(message), more=more.format(message=escape(message))).encode()


class Names:
    """What it refuses before anything is written, and once it is.

    Source: apps/dav/lib/Connector/Sabre/Directory.php (`createFile`, `createDirectory`) and Node.php (`verifyPath`).
    """

    def __init__(self, folder, files, others):
        self.folder = Path(folder)
        self.files = files
        self.others = others

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode()
        target = unquote(urlsplit(environ.get("HTTP_DESTINATION", "")).path) if method == "MOVE" else path
        if method not in ("PUT", "MKCOL", "MOVE") or not target.startswith(f"{self.files}/"):
            return self.others(environ, start_response)
        config = self.folder / "forbidden.json"
        said = refusal_of(
            target.rstrip("/").rpartition("/")[2], json.loads(config.read_text()) if config.exists() else {}
        )
        if said:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            with (self.folder / "refused").open("a") as log:
                print(method, target, file=log)
            wish = self.folder / "refuses-with"
            status = wish.read_text() if wish.exists() else "400 Bad Request"
            body = error_of("OCA\\DAV\\Connector\\Sabre\\Exception\\InvalidPath", said, _REASON)
            return _answer(start_response, status, body)
        time = environ.get("HTTP_X_OC_MTIME")
        if time is None or method != "PUT":
            return self.others(environ, start_response)
        return self.put_with_time(environ, start_response, time)

    def put_with_time(self, environ, start_response, time):
        """Write a file and set its time: a wrong one is found when it is written.

        Source: apps/dav/lib/Connector/Sabre/File.php (`put`) and MtimeSanitizer.php.
        """
        given, path = [], environ["PATH_INFO"].encode("latin-1").decode()  # which wsgidav takes apart
        body = list(self.others(environ, lambda status, headers, *_: given.append((status, headers))))
        status, headers = given[-1]
        if status.startswith("2"):
            if int(time) <= _FIRST_DAY_S:
                return _answer(start_response, "500 Internal Server Error", error_of("InvalidArgumentException", time))
            os.utime(self.folder / "files" / path[len(self.files) + 1 :], (int(time), int(time)))
            headers.append(("X-OC-MTime", "accepted"))
        start_response(status, headers)
        return body


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
            return _answer(start_response, "401 Unauthorized", b"")
        method = environ["REQUEST_METHOD"]
        name, _, chunk = path[len(_UPLOADS) :].strip("/").partition("/")
        place = self.folder / "uploads" / name
        status, body = self.answer(method, environ, place, chunk)
        return _answer(start_response, status, body)

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
        rows.append(_LISTING.format(href=f"{path}/.file", kind="", size=""))  # UploadFolder.php, `getChildren`
        for each in sorted(place.iterdir()):
            size = f"<d:getcontentlength>{each.stat().st_size}</d:getcontentlength>"
            rows.append(_LISTING.format(href=f"{path}/{each.name}", kind="", size=size))
        return "207 Multi-Status", f'<d:multistatus xmlns:d="DAV:">{"".join(rows)}</d:multistatus>'.encode()

    def put(self, environ, path):
        """Source: apps/dav/lib/Upload/ChunkingV2Plugin.php, `beforePut`."""
        if re.fullmatch(r"\d{1,5}", path.name) is None or not 1 <= int(path.name) <= 10_000:
            said = "Invalid chunk name, must be numeric between 1 and 10000"
            return "400 Bad Request", error_of("Sabre\\DAV\\Exception\\BadRequest", said)
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
        wanted = int(environ.get("HTTP_OC_TOTAL_LENGTH", sum(sizes)))
        if sum(sizes) != wanted:  # apps/dav/lib/Upload/ChunkingPlugin.php, `verifySize`
            said = f"Chunks on server do not sum up to {wanted} but to {sum(sizes)} bytes"
            return "400 Bad Request", error_of("Sabre\\DAV\\Exception\\BadRequest", said)
        with target.open("wb") as file:
            for path in chunks:
                file.write(path.read_bytes())
        if "HTTP_X_OC_MTIME" in environ:
            modified = int(environ["HTTP_X_OC_MTIME"])
            if modified <= _FIRST_DAY_S:
                return "500 Internal Server Error", error_of("InvalidArgumentException", str(modified))
            os.utime(target, (modified, modified))
        shutil.rmtree(place)
        wish = self.folder / "hang-up-after-move"
        if wish.exists():
            wish.unlink()
            raise ConnectionAbortedError
        return "201 Created", b""


def _answer(start_response, status, body):
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def main(address, folder, files):
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    sharing = {
        "provider_mapping": {files: str(Path(folder) / "files")},
        "verbose": 0,
        "logging": {"enable_loggers": []},
        "lock_storage": None,
        "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
        "dir_browser": {"enable": False},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    }
    served = wsgi.Server((address, 0), Names(folder, files, Chunks(folder, WsgiDAVApp(sharing))), numthreads=12)
    served.prepare()
    print(served.bind_addr[1], flush=True)
    served.serve()
