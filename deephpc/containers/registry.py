"""Asks a registry for manifests, tags and blobs.

Source: OCI distribution specification 1.1; RFC 9110 for ranges, redirects and Retry-After.
"""

import difflib
import hashlib
import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from deephpc import __version__
from deephpc.containers.auth import Credentials
from deephpc.containers.body import read_body, translating
from deephpc.containers.manifest import INDEXES, MANIFESTS, MAX_DOCUMENT_BYTES, media_type_of
from deephpc.containers.reference import DOCKER_HUB, RegistryImage, is_digest, is_tag
from deephpc.containers.refusal import CHECK_THE_NAME, CHECK_THE_REPOSITORY, refusal
from deephpc.containers.registry_token import Authority, parse_challenge
from deephpc.containers.source import BlobStream, Corrupt, Document, Interrupted
from deephpc.errors import EngineError, SiteError
from deephpc.retries import Patience, persist
from deephpc.unpacking import coding_of, unpack

_HUB_HOST = "registry-1.docker.io"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_TAG_PAGES = 50
_MAX_TAGS_BYTES = 8 << 20
_SHOWN_TAGS = 8
_FINE = frozenset({200, 206, 416})
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Access:
    """How registries are reached."""

    credentials: Credentials | None = None
    insecure: frozenset[str] = frozenset()
    """Hosts, with port where they have one, that may be asked without TLS."""
    patience: Patience = field(default_factory=Patience)


class Registry:
    """One repository of a registry, seen as the source of one image; close it, or use it in `with`."""

    def __init__(self, image: RegistryImage, access: Access) -> None:
        self.image = image
        self._access = access
        self._host = _HUB_HOST if image.registry == DOCKER_HUB else image.registry
        self._is_local = is_loopback(self._host)
        self._plain_allowed = self._is_local or image.registry in access.insecure
        self._authority = Authority(
            access.credentials, image.repository, plain_allowed=self._plain_allowed, patience=access.patience
        )
        self._base: str | None = None if self._plain_allowed else f"https://{self._host}"
        patience = access.patience
        self._client = httpx.Client(
            headers={"User-Agent": f"deephpc/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(patience.stall_s, connect=patience.connect_s),
            limits=httpx.Limits(max_connections=32),
            trust_env=not self._is_local,  # no proxy between us and ourselves
            verify=_trusted(),
        )

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def name(self) -> str:
        """The image's full name."""
        return str(self.image)

    @property
    def names(self) -> tuple[str, ...]:
        """That name."""
        return (self.name,)

    def resolve(self) -> Document:
        """Return what the tag or digest names; where there is no such tag, say which there are."""
        try:
            return self._manifest(self.image.selector)
        except EngineError as error:
            if error.hint != CHECK_THE_NAME or self.image.digest:
                raise
            error.hint = self._hint_of_tags() or error.hint
            raise

    def document(self, digest: str) -> Document:
        """Return a manifest by its digest."""
        return self._manifest(digest)

    def tags(self) -> tuple[str, ...]:
        """Return the repository's tags."""
        found: list[str] = []
        listed = path = f"/v2/{self.image.repository}/tags/list"
        for _ in range(_MAX_TAG_PAGES):
            content, headers = self._persist(lambda path=path: self._read(path, {}, _MAX_TAGS_BYTES))  # type: ignore[misc]
            found += _parse_tags(content, self.name)
            following = re.search(r'<[^>?]*\?([^>#\s]+)>\s*;\s*rel="?next"?', headers.get("link", ""))
            if following is None:
                break
            path = f"{listed}?{following[1]}"  # the same list on the same host, whatever else the link says
        return tuple(found)

    @contextmanager
    def open_blob(self, digest: str, size: int, start: int) -> Iterator[BlobStream]:
        """Open a blob at an offset; one try, since only the reader knows how far it came."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._translated(), self._send(f"/v2/{self.image.repository}/blobs/{digest}", headers) as response:
            begins = 0
            if response.status_code == 206:
                begins = _range_start(response.headers.get("content-range", ""))
                if begins != start:
                    raise Interrupted(f"{self._host} sent bytes from {begins} on where {start} was asked for")
            elif start and response.status_code == 416:
                raise Corrupt(f"{digest} is shorter at {self._host} than its manifest says", "take another tag")
            said = response.headers.get("content-length", "")
            length = begins + int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None
            coding = coding_of(response.headers.get("content-encoding", ""))
            if coding and length != size:  # else a layer that is packed itself, and labelled with that
                if begins:
                    raise EngineError(
                        f"{self._host} sends {digest} in parts packed with {coding}, though it was asked for as it is",
                        "tell the registry's administrators",
                    )
                with translating(self._host):  # without a length a packed layer's own packing may be what is meant
                    body, _ = unpack(response.iter_raw(), coding, "" if length else "layer.gz")
                    yield BlobStream(0, map(bytes, body))
                return
            if length not in (None, size):
                raise Corrupt(
                    f"{digest} measures {length} bytes at {self._host}, its manifest says {size}",
                    "the image is broken there; tell the registry's administrators",
                )
            yield BlobStream(begins, response.iter_raw())

    def _hint_of_tags(self) -> str:
        """Return which tags there are, nearest first, or that the repository is unknown; empty where nobody tells."""
        try:
            tags = self.tags()
        except (EngineError, SiteError) as error:
            return error.hint if error.hint == CHECK_THE_REPOSITORY else ""
        near = difflib.get_close_matches(self.image.selector, tags, n=_SHOWN_TAGS, cutoff=0.3)
        shown = list(dict.fromkeys((*near, *sorted(tags))))[:_SHOWN_TAGS]
        return f"its tags are {', '.join(shown)}{', …' if len(tags) > _SHOWN_TAGS else ''}" if shown else ""

    def _manifest(self, selector: str) -> Document:
        accept = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        path = f"/v2/{self.image.repository}/manifests/{selector}"
        content, headers = self._persist(lambda: self._read(path, accept, MAX_DOCUMENT_BYTES))
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        promised = selector if is_digest(selector) else headers.get("docker-content-digest", digest)
        if promised.startswith("sha256:") and promised != digest:
            raise Corrupt(
                f"the manifest of {self.name} has the digest {digest}, not {promised}",
                "somebody changed it on its way or in the registry; tell its administrators",
            )
        said = headers.get("content-type", "").partition(";")[0].strip()
        return Document(content, media_type_of(content, said), digest)

    def _persist(self, ask: Callable[[], _Answer]) -> _Answer:
        def once() -> _Answer:
            with self._translated():
                return ask()

        return persist(self._access.patience, once)

    def _read(self, path: str, headers: Mapping[str, str], limit: int) -> tuple[bytes, httpx.Headers]:
        with self._send(path, headers) as response:
            return read_body(response, limit, self._access.patience.deadline_s), response.headers

    @contextmanager
    def _send(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a GET, with the authorisation that is asked for; the caller reads the body."""
        url = self._find_base() + path
        authorization = self._authority.header()
        response = self._follow(url, headers, authorization)
        try:
            challenge = parse_challenge(response.headers.get_list("www-authenticate"))
            is_ours = _origin(response.url) == _origin(httpx.URL(url))  # whoever we were sent on to gets no credentials
            if response.status_code == 401 and challenge is not None and is_ours:
                better = self._authority.answer(self._client, challenge, authorization)
                if better is not None:
                    response.close()
                    response = self._follow(url, headers, better)
            if response.status_code not in _FINE:
                raise refusal(self._host, response, self._access.credentials, self.name)
            yield response
        finally:
            response.close()

    def _follow(self, url: str, headers: Mapping[str, str], authorization: str | None) -> httpx.Response:
        """Send a GET along redirects: credentials stay with their host, and nothing leads from TLS to plain."""
        for _ in range(_MAX_REDIRECTS + 1):
            sent = {**headers, **({"Authorization": authorization} if authorization else {})}
            response = self._client.send(self._client.build_request("GET", url, headers=sent), stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            following = response.url.join(response.headers.get("location", ""))
            if following.scheme != "https" and not (self._plain_allowed and following.scheme == "http"):
                raise EngineError(f"{self._host} sends us to {following}, which is not https", "take another registry")
            if _origin(following) != _origin(response.url):
                authorization = None
            url = str(following)
        raise EngineError(f"{self._host} sends us on more than {_MAX_REDIRECTS} times", "take another registry")

    def _find_base(self) -> str:
        """Find out, once, whether a host that may speak plain HTTP does; no credentials are sent for that."""
        if self._base is None:
            order = ("http", "https") if self._is_local else ("https", "http")
            for scheme in order:
                try:
                    with self._client.stream("GET", f"{scheme}://{self._host}/v2/") as response:
                        if response.status_code != 400:
                            self._base = f"{scheme}://{self._host}"
                            break
                except (httpx.ConnectError, httpx.RemoteProtocolError):
                    if scheme == order[-1]:
                        raise
            self._base = self._base or f"{order[-1]}://{self._host}"
        return self._base

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in our words what went wrong on the wire."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise Interrupted(f"{self._host} is silent ({type(error).__name__})") from error
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            plain = "" if self._plain_allowed else "; a registry without TLS needs --insecure-registry HOST"
            raise Interrupted(
                f"cannot reach {self._host}: {error}", f"check the host and this machine's network{plain}"
            ) from error
        except (httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:  # the last for a host no resolver takes
            raise EngineError(
                f"{self._host} gives an answer nobody can follow: {error}", "take another registry"
            ) from error


def is_loopback(host: str) -> bool:
    """Say whether `host[:port]` is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _trusted() -> ssl.SSLContext:
    """Trust the system's authorities, as sites add their own there, and SSL_CERT_FILE; not a list of our own."""
    return ssl.create_default_context()


def _parse_tags(content: bytes, where: str) -> list[str]:
    """Read a list of tags; what can be none is left out."""
    try:
        tags = json.loads(content)["tags"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(f"the list of tags of {where} is not one", "name the tag yourself") from error
    if not isinstance(tags, list | None):
        raise EngineError(f"the list of tags of {where} is not one", "name the tag yourself")
    return [tag for tag in tags or () if isinstance(tag, str) and is_tag(tag)]


def _range_start(text: str) -> int:
    match = re.match(r"bytes (\d{1,18})-", text, re.ASCII)
    return int(match[1]) if match else -1
