"""Nextcloud and ownCloud: how they are known, and large files in chunks, so that an upload that broke off goes on.

Source: Nextcloud developer manual 28 and 30, "Chunked file upload", version 2: chunks are called 1 to 10000, hold 5 MB
to 5 GB each but for the last, are put together in the order of their names, and are thrown away after 24 idle hours.
Every request names the destination. A file in one piece is written to a part file and renamed by the server, which
reserves such names to itself from release 30 on (apps/dav/lib/Connector/Sabre/File.php, `put`;
lib/private/Files/FilenameValidator.php).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deephpc.data.storage import Interrupted, Missing, Refused, Upload
from deephpc.data.web import Request, Web
from deephpc.data.webdav_listing import FIELDS, parse_listing
from deephpc.retries import Patience, Retries, persist

CHUNK_BYTES = 16 << 20
_MAX_CHUNKS = 10_000
_THERE = frozenset({405})  # the answer to an MKCOL for what is there (RFC 4918, 9.3.1)
_VENDORS = frozenset({"nextcloud", "owncloud"})
_ADDRESS = re.compile(r"/(remote|public)\.php/(web)?dav(/|$)")
#: No earlier times are taken (Nextcloud 30, apps/dav/lib/Connector/Sabre/MtimeSanitizer.php).
_FIRST_DAY_S = 24 * 60 * 60
_FILE = re.compile(r"(?P<top>https?://.*?/remote\.php/dav)/files/(?P<user>[^/]+)/.+")


def is_own_cloud(url: str, vendor: str) -> bool:
    """Say whether a server is a Nextcloud or an ownCloud, by what rclone's configuration calls it or by its address."""
    return vendor in _VENDORS or _ADDRESS.search(url) is not None


def time_told(upload: Upload) -> dict[str, str]:
    """Return the header that tells them when a file was changed."""
    at = int(upload.modified_s)
    return {"X-OC-Mtime": str(at)} if at > _FIRST_DAY_S else {}


def chunks_url(url: str, key: str) -> str | None:
    """Return the folder that a file's chunks go to, percent-encoded as its URL is; None where it is not Nextcloud's."""
    found = _FILE.fullmatch(url)
    return f"{found['top']}/uploads/{found['user']}/deephpc-{key}" if found else None


def chunk_bytes(size_bytes: int) -> int:
    """Return how large the chunks of a file are."""
    return max(CHUNK_BYTES, -(-size_bytes // _MAX_CHUNKS))


@dataclass(frozen=True)
class ChunkedUpload:
    """One file on its way to Nextcloud."""

    web: Web
    patience: Patience
    folder: str
    """URL of the folder that its chunks go to."""
    target: str
    """Its own URL."""
    shown: str

    def send(self, upload: Upload) -> bool:
        """Send what the server lacks and have it put together; False where the server takes no chunks."""
        size = chunk_bytes(upload.size_bytes)
        places = {
            f"{number:05}": (at, min(size, upload.size_bytes - at))
            for number, at in enumerate(range(0, upload.size_bytes, size), 1)
        }
        try:
            kept = self._begin({name: count for name, (_, count) in places.items()})
        except (Missing, Refused):  # where it is forbidden, sending it in one piece tells why
            return False

        def send_chunk(name: str) -> None:
            upload.check()
            at, count = places[name]
            if name in kept:
                upload.keep(count)
                return
            content = upload.read(at, count)
            self._ask(self._request("PUT", name, _total(upload), content))
            upload.advance(count)

        try:
            upload.share([lambda name=name: send_chunk(name) for name in places])  # type: ignore[misc]
        except Missing as error:
            raise Interrupted(f"{self.shown}: the server threw its chunks away") from error
        self._put_together(upload)
        return True

    def _begin(self, wanted: Mapping[str, int]) -> frozenset[str]:
        """Return the chunks that an earlier try left; make the folder where there is none.

        What is not as we would send it would end up in the file: then it all begins anew.
        """
        kept = self._kept()
        if kept is not None and any(wanted.get(name) != count for name, count in kept.items()):
            self._ask(self._request("DELETE", "", {}))
            kept = None
        if kept is None:
            self._ask(self._request("MKCOL", "", {}))
            kept = {}
        return frozenset(kept)

    def _kept(self) -> dict[str, int | None] | None:
        try:
            listed = {"Depth": "1", "Content-Type": "application/xml"}
            content = self._ask(self._request("PROPFIND", "", listed, FIELDS))
        except Missing:
            return None
        found = parse_listing(content, self.folder, self.shown)
        return {each.path: each.size_bytes for each in found if each.path and each.path != ".file"}

    def _put_together(self, upload: Upload) -> None:
        """Have the file made of its chunks; a server that is at it for longer than we wait finishes all the same."""
        said = {**time_told(upload), "Overwrite": "T", **_total(upload)}
        retries = Retries(self.patience)
        is_first = True
        while True:
            try:
                self.web.ask(self._request("MOVE", ".file", said))
            except Interrupted as error:
                if self._kept() is None:
                    return
                retries.again(error)
            except Missing:
                if is_first:
                    raise
                return
            else:
                return
            is_first = False

    def _ask(self, request: Request) -> bytes:
        return persist(self.patience, lambda: self.web.ask(request, _THERE))[1]

    def _request(self, method: str, name: str, headers: Mapping[str, str], content: bytes | None = None) -> Request:
        url = f"{self.folder}/{name}" if name else self.folder
        return Request(method, url, self.shown, {"Destination": self.target, **headers}, content)


def _total(upload: Upload) -> dict[str, str]:
    return {"OC-Total-Length": str(upload.size_bytes)}
