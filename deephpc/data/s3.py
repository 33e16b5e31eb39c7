"""S3 as storage, at Amazon or any other endpoint: listings by page, ranged reads, uploads in parts that go on later.

Source: Amazon S3 API reference: ListObjectsV2, GetObject, PutObject, CreateMultipartUpload and what belongs to it.
"""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import format_datetime

from deephpc.data.answer import Answer
from deephpc.data.header import parse_number
from deephpc.data.manifest import fault_of
from deephpc.data.s3_account import find_account
from deephpc.data.s3_signing import render_query, sign
from deephpc.data.storage import ByteStream, Entry, Forbidden, Interrupted, Limits, Missing, Upload
from deephpc.data.surroundings import Surroundings
from deephpc.data.url_path import decode
from deephpc.data.web import Request, Web, entry_of, quote_path, refused, version_of
from deephpc.errors import DataError, InputError
from deephpc.retries import persist

_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_MD5 = re.compile(r'"([0-9a-f]{32})"')
_MOVED = frozenset({301, 307, 400})
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}")


class S3Storage:
    """Objects of S3; paths are BUCKET/KEY."""

    parallel = 64
    can_write = True
    is_certain = False

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        self._prefix = prefix
        self._account = find_account(settings, around)
        self._patience = limits.patience
        self._web = Web(self._account.endpoint or "https://s3.amazonaws.com", None, limits)
        self._regions: dict[str, str] = {}

    def show(self, path: str) -> str:
        """Return a path's full name without credentials."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Ask for one object; where there is none, whether keys begin with it as with a folder."""
        bucket, key = _split(path)
        forbidden: Forbidden | None = None
        if key and not key.endswith("/"):
            try:
                answer = persist(self._patience, lambda: self._head(path))
            except Missing:
                pass
            except Forbidden as error:  # so it also says that there is none, to whom it shows no list
                forbidden = error
            else:
                found = entry_of(answer, as_stored=True)
                is_sealed = "kms" in answer.headers.get("x-amz-server-side-encryption", "") or bool(
                    answer.headers.get("x-amz-server-side-encryption-customer-algorithm")
                )
                return replace(found, md5="" if is_sealed else _md5_of(answer.headers.get("etag", "")))
        query = {"list-type": "2", "max-keys": "1", "prefix": _folder(key)}
        try:
            root = self._document("GET", bucket, query)
        except Missing:
            return None
        except Forbidden as error:
            raise forbidden or error from None
        if not key or root.find("{*}Contents") is not None:
            return Entry("", is_folder=True)
        if forbidden is not None:
            raise forbidden
        return None

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return the objects directly below, and what other keys have in common up to a `/`."""
        if not path.strip("/"):
            yield from self._buckets()
        else:
            yield from self._list(path, {"delimiter": "/"})

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all objects below; those that only mark a folder are left out."""
        return self._list(path, {})

    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> AbstractContextManager[ByteStream]:
        """Open an object's bytes."""
        return self._web.open_range(self._request("GET", path), entry, start, stop, as_stored=True)

    def write(self, path: str, upload: Upload) -> Entry:
        """Put an object; it appears when its last byte is there. Every part is signed with its sha256."""
        if not _split(path)[1]:
            raise InputError(f"{self.show(path)} is a bucket, not a place for a file", "write BUCKET/KEY")
        if upload.size_bytes <= _PART_BYTES:
            content = upload.read(0, upload.size_bytes) if upload.size_bytes else b""
            answer, _ = self._ask("PUT", path, content=content)
            upload.advance(len(content))
            etag = answer.headers.get("etag", "")
        else:
            etag = self._write_parts(path, upload)
        return Entry("", upload.size_bytes, version_of(etag, ""), md5=_md5_of(etag))

    def remove(self, path: str) -> None:
        """Remove an object."""
        persist(self._patience, lambda: self._ask("DELETE", path))

    def close(self) -> None:
        """End the connections."""
        self._web.close()

    def _head(self, path: str) -> Answer:
        """Ask for an object's headers, by a GET whose body is not read where HEAD is refused."""
        try:
            return self._ask("HEAD", path)[0]
        except (Missing, Interrupted):
            raise
        except DataError as error:
            try:
                with self._web.send(self._request("GET", path)) as answer:
                    return answer
            except DataError as told:  # which says why: an answer to HEAD has no body
                raise told from error

    def _write_parts(self, path: str, upload: Upload) -> str:
        size = part_bytes(upload.size_bytes)
        number, kept = self._begin(path, upload)
        tags: dict[int, str] = {}

        def send(part: int) -> None:
            upload.check()
            at = (part - 1) * size
            content = upload.read(at, min(size, upload.size_bytes - at))
            if part in kept and kept[part].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest():
                tags[part] = kept[part]
                upload.keep(len(content))
            else:
                tags[part] = self._send_part(path, (number, part), content)
                upload.advance(len(content))

        parts = range(1, -(-upload.size_bytes // size) + 1)
        upload.share([lambda part=part: send(part) for part in parts])  # type: ignore[misc]
        rows = "".join(f"<Part><PartNumber>{part}</PartNumber><ETag>{tags[part]}</ETag></Part>" for part in parts)
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        root = _parse(self._ask("POST", path, {"uploadId": number}, body)[1], self.show(path))
        if root.tag.endswith("Error"):  # sent with the status 200: the server began to answer before it knew
            told = _find(root, "Message") or _find(root, "Code") or "the parts could not be put together"
            raise Interrupted(f"{self.show(path)}: {told}")
        return _find(root, "ETag")

    def _send_part(self, path: str, which: tuple[str, int], content: bytes) -> str:
        query = {"uploadId": which[0], "partNumber": str(which[1])}
        answer, _ = persist(self._patience, lambda: self._ask("PUT", path, query, content))
        return str(answer.headers.get("etag", ""))

    def _begin(self, path: str, upload: Upload) -> tuple[str, dict[int, str]]:
        """Return the upload that an earlier try left, with its parts' ETags, or a new one.

        An earlier one may be of other content: parts are taken over only when their MD5 is ours.
        """
        bucket, key = _split(path)
        try:
            listed = self._document("GET", bucket, {"uploads": "", "prefix": key})
            found = [_find(each, "UploadId") for each in listed.iterfind("{*}Upload") if _find(each, "Key") == key]
            if found:
                return found[-1], self._parts(path, found[-1])
        except (DataError, Interrupted):  # some servers forbid or lack the list: then from the beginning
            pass
        upload.check()
        root = _parse(self._ask("POST", path, {"uploads": ""})[1], self.show(path))
        return _find(root, "UploadId"), {}

    def _parts(self, path: str, number: str) -> dict[int, str]:
        found: dict[int, str] = {}
        query = {"uploadId": number}
        for _ in range(_MAX_PARTS):
            root = _parse(self._ask("GET", path, query)[1], self.show(path))
            for each in root.iterfind("{*}Part"):
                found[int(_find(each, "PartNumber"))] = _find(each, "ETag")
            if _find(root, "IsTruncated") != "true":
                break
            query = {"uploadId": number, "part-number-marker": _find(root, "NextPartNumberMarker")}
        return found

    def _list(self, path: str, extra: Mapping[str, str]) -> Iterator[Entry]:
        bucket, key = _split(path)
        prefix = _folder(key)
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url", **extra}
        while True:
            root = self._document("GET", bucket, query)
            yield from parse_page(root, prefix)
            following = _find(root, "NextContinuationToken")
            if _find(root, "IsTruncated") != "true" or not following:
                return
            query = {**query, "continuation-token": following}

    def _buckets(self) -> Iterator[Entry]:
        endpoint = self._account.endpoint or f"https://s3.{self._account.region}.amazonaws.com"
        signed = self._signed("GET", f"{endpoint}/", b"", self._account.region)
        request = Request("GET", f"{endpoint}/", self.show(""), signed, follow=False)
        root = _parse(persist(self._patience, lambda: self._web.ask(request))[1], self.show(""))
        for each in root.iterfind("{*}Buckets/{*}Bucket"):
            yield Entry(_find(each, "Name"), is_folder=True)

    def _document(self, method: str, path: str, query: Mapping[str, str]) -> ET.Element:
        content = persist(self._patience, lambda: self._ask(method, path, query))[1]
        return _parse(content, self.show(path))

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, content: bytes = b""
    ) -> tuple[Answer, bytes]:
        """Send a signed request; once more where the bucket turns out to be in another region."""
        request = self._request(method, path, query, content)
        answer, said = self._web.ask(request, _MOVED)
        if answer.status not in _MOVED:
            return answer, said
        bucket, region = _split(path)[0], answer.headers.get("x-amz-bucket-region", "")
        if not region or region == self._region(bucket):
            raise refused(request, answer, said)
        self._regions[bucket] = region
        return self._web.ask(self._request(method, path, query, content))

    def _request(self, method: str, path: str, query: Mapping[str, str] | None = None, content: bytes = b"") -> Request:
        bucket, key = _split(path)
        account = replace(self._account, region=self._region(bucket))
        url = f"{account.bucket_url(bucket)}/{quote_path(key)}" + (f"?{render_query(query)}" if query else "")
        has_body = method in ("PUT", "POST")
        headers = self._signed(method, url, content, account.region)
        return Request(method, url, self.show(path), headers, content if has_body else None, follow=False)

    def _signed(self, method: str, url: str, content: bytes, region: str) -> dict[str, str]:
        if self._account.keys is None:
            return {}
        digest = hashlib.sha256(content).hexdigest()
        return sign(method, url, {}, digest, (self._account.keys, region), datetime.now(timezone.utc))

    def _region(self, bucket: str) -> str:
        return self._regions.get(bucket, self._account.region)


def parse_page(root: ET.Element, prefix: str) -> Iterator[Entry]:
    """Return what one page of a list has below a prefix; keys are decoded where it says that they are encoded.

    Servers that know no `encoding-type` list keys as they are, with `+` and `%`.
    """
    is_encoded = _find(root, "EncodingType").lower() == "url"
    for each in (*root.iterfind("{*}Contents"), *root.iterfind("{*}CommonPrefixes")):
        is_folder = each.tag.endswith("CommonPrefixes")
        said = _find(each, "Prefix" if is_folder else "Key")
        key = decode(said.replace("+", " ")) if is_encoded else said
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or not name:
            continue
        if is_folder:
            yield Entry(name.rstrip("/"), is_folder=True, left_out=fault_of(name.removesuffix("/")))
        elif not name.endswith("/"):
            yield _entry(each, name)
        elif _find(each, "Size").strip() not in ("", "0"):  # one without content marks a folder
            yield Entry(name, left_out="has a / at its end")


def part_bytes(size_bytes: int) -> int:
    """Return how large the parts of an upload are, of which there may be 10 000."""
    return max(_PART_BYTES, -(-size_bytes // _MAX_PARTS))


def _split(path: str) -> tuple[str, str]:
    """Split BUCKET/KEY.

    Raises
    ------
    InputError
        The bucket's name cannot be one.
    """
    bucket, _, key = path.lstrip("/").partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise InputError(f"{bucket!r} is no bucket's name", "write s3://BUCKET/KEY, or REMOTE:BUCKET/KEY")
    return bucket, key


def _folder(key: str) -> str:
    return f"{key.rstrip('/')}/" if key.strip("/") else ""


def _entry(element: ET.Element, name: str) -> Entry:
    etag = _find(element, "ETag")
    modified = _find(element, "LastModified")
    try:
        time = datetime.fromisoformat(modified.replace("Z", "+00:00")).astimezone(timezone.utc)
    except ValueError:
        time = None
    modified_s = None if time is None else time.timestamp()
    told = "" if time is None else format_datetime(time, usegmt=True)  # as an answer spells it
    return Entry(
        name, parse_number(_find(element, "Size").strip()), version_of(etag, told), modified_s, md5=_md5_of(etag)
    )


def _md5_of(etag: str) -> str:
    """Return the MD5 that the ETag of an object sent in one piece is; empty for others, which have a `-`.

    Where the server seals objects with keys of its own (SSE-KMS, SSE-C) it looks like one and is none; lists do not
    tell, HEAD does.
    """
    found = _MD5.fullmatch(etag)
    return found[1] if found else ""


def _parse(content: bytes, shown: str) -> ET.Element:
    try:
        return ET.fromstring(content)  # noqa: S314 - expat since 2.4.1 bounds entities; no external ones are followed
    except ET.ParseError as error:
        raise DataError(f"{shown}: the answer is not S3's ({error})", "check the endpoint") from error


def _find(element: ET.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
