"""SFTP as storage, through the user's own SSH settings: aliases, keys, agent, known hosts, jump hosts.

Source: draft-ietf-secsh-filexfer-02 and OpenSSH's posix-rename extension; ssh_config(5) of OpenSSH 9.2.
"""

import contextlib
import posixpath
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

import paramiko
from paramiko.sftp import CMD_READDIR

from deephpc.data.location import join
from deephpc.data.manifest import fault_of
from deephpc.data.sftp_login import Login, connect
from deephpc.data.storage import (
    ByteStream,
    Entry,
    Forbidden,
    Interrupted,
    Limits,
    Missing,
    Refused,
    Unwritable,
    Upload,
    changed,
    unlisted,
)
from deephpc.data.surroundings import Surroundings
from deephpc.errors import DataError
from deephpc.retries import persist

_SEND_BYTES = 1 << 18
_READ_BYTES = 1 << 15  # what every server gives at once
_ASKED_BYTES = 8 << 20
_Answer = TypeVar("_Answer")
_OK_MODES = (stat.S_ISREG, stat.S_ISDIR)


class SftpStorage:
    """Files of an SSH server; a path without `/` at its beginning is below the login's home."""

    parallel = 6  # sshd allows ten sessions on a connection (sshd_config(5), MaxSessions)
    can_write = True
    is_certain = True

    def __init__(self, prefix: str, settings: Mapping[str, str], limits: Limits, around: Surroundings) -> None:
        self._prefix = prefix
        self._patience = limits.patience
        self._login = Login.of(settings, around)
        self._opening = threading.Lock()
        self._client: paramiko.SSHClient | None = None
        self._mine = threading.local()
        self._folders: set[str] = set()

    def show(self, path: str) -> str:
        """Return a path's full name."""
        return f"{self._prefix}{path}"

    def look(self, path: str) -> Entry | None:
        """Look at a path, through links."""
        try:
            return _entry(self._persist(path, lambda sftp: sftp.stat(path or ".")), "")
        except Missing:
            return None

    def list_folder(self, path: str) -> Iterator[Entry]:
        """Return what is directly in a folder; links as what they lead to, devices and broken links not at all."""
        for each in self._listed(path):
            if fault_of(each.filename):
                yield Entry(each.filename, left_out=fault_of(each.filename))
                continue
            found = self._behind(join(path, each.filename), each)
            if found is not None:
                yield _entry(found, each.filename)

    def walk(self, path: str) -> Iterator[Entry]:
        """Return all files below; left out are links to folders or to nothing, and what is neither file nor folder."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            here = join(path, below)
            try:
                listed = self._listed(here)
            except DataError as error:
                yield unlisted(below, error)
                continue
            for each in listed:
                relative = join(below, each.filename)
                if fault_of(each.filename):
                    yield Entry(relative, left_out=fault_of(each.filename))
                    continue
                found = self._behind(join(path, relative), each)
                is_link = stat.S_ISLNK(each.st_mode or 0)
                if found is None or (is_link and stat.S_ISDIR(found.st_mode or 0)):
                    yield Entry(relative, left_out="is a link to a folder or to nothing, or a device")
                    continue
                if stat.S_ISDIR(found.st_mode or 0):
                    waiting.append(relative)
                else:
                    yield _entry(found, relative)

    @contextmanager
    def open_range(self, path: str, entry: Entry, start: int, stop: int) -> Iterator[ByteStream]:
        """Open a file's bytes; many small requests are on their way together."""
        with self._talking(path) as sftp, sftp.open(path, "rb") as file:
            self._check_same(path, entry, file.stat())
            yield ByteStream(start, _ahead(file, start, stop))
            self._check_same(path, entry, file.stat())

    def write(self, path: str, upload: Upload) -> Entry:
        """Write beside the place and rename; what a broken try left of the same content is gone on with."""
        folder = posixpath.dirname(path)
        self._make_folders(folder)
        draft = join(folder, f".{upload.key}.part")
        with self._talking(path) as sftp:
            at = _size_of(sftp, draft)
            if at > upload.size_bytes:
                at = 0
            upload.keep(at)
            with sftp.open(draft, "r+b" if at else "wb") as file:
                file.set_pipelined(True)
                file.seek(at)
                while at < upload.size_bytes:
                    upload.check()
                    chunk = upload.read(at, min(_SEND_BYTES, upload.size_bytes - at))
                    file.write(chunk)
                    at += len(chunk)
                    upload.advance(len(chunk))
            seen = _size_of(sftp, draft)
            if seen != upload.size_bytes:
                raise Interrupted(f"{self.show(path)}: the server kept {seen} of {upload.size_bytes} bytes")
            sftp.utime(draft, (upload.modified_s, upload.modified_s))
            _move(sftp, draft, path)
            return _entry(sftp.stat(path), "")

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._persist(path, lambda sftp: sftp.remove(path))

    def close(self) -> None:
        """End the connection."""
        with self._opening:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _behind(self, path: str, found: paramiko.SFTPAttributes) -> paramiko.SFTPAttributes | None:
        """Return what a link leads to, the thing itself when it is none; None for what cannot be copied."""
        if stat.S_ISLNK(found.st_mode or 0):
            try:
                found = self._persist(path, lambda sftp: sftp.stat(path))
            except Missing:
                return None
        return found if any(is_it(found.st_mode or 0) for is_it in _OK_MODES) else None

    def _check_same(self, path: str, entry: Entry, found: paramiko.SFTPAttributes) -> None:
        if _entry(found, "").version != entry.version:
            raise changed(self.show(path))

    def _make_folders(self, folder: str) -> None:
        if not folder.strip("/") or folder in self._folders:
            return
        with self._opening:
            done = folder in self._folders
        if done:
            return
        missing_ones = []
        above = folder
        while above.strip("/"):
            found = self.look(above)
            if found is not None and not found.is_folder:
                raise Refused(f"{self.show(above)} is a file where a folder should be", "take another destination")
            if found is not None:
                break
            missing_ones.append(above)
            above = posixpath.dirname(above)
        for each in reversed(missing_ones):
            with contextlib.suppress(DataError):  # another thread may have made it; writing tells whether it is there
                self._make_folder(each)
        self._folders.add(folder)

    def _make_folder(self, path: str) -> None:
        self._persist(path, lambda sftp: sftp.mkdir(path))

    def _listed(self, path: str) -> list[paramiko.SFTPAttributes]:
        return self._persist(path, lambda sftp: sftp.listdir_attr(path or "."))

    def _persist(self, path: str, ask: Callable[[paramiko.SFTPClient], _Answer]) -> _Answer:
        def once() -> _Answer:
            with self._talking(path) as sftp:
                return ask(sftp)

        return persist(self._patience, once)

    @contextmanager
    def _talking(self, path: str) -> Iterator[paramiko.SFTPClient]:
        """Lend this thread's channel; a broken one is thrown away, and its errors become ours."""
        shown = self.show(path)
        try:
            yield self._channel(shown)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing(f"{shown} does not exist", "list its folder: `deephpc data ls FOLDER`") from error
        except PermissionError as error:
            raise Forbidden(f"{shown}: the server forbids it", "ask its owner for permission") from error
        except (EOFError, TimeoutError, paramiko.SSHException, ConnectionError) as error:
            self._drop()
            words = " ".join(str(error).split()) or type(error).__name__
            raise Interrupted(f"{shown}: the connection broke ({words})") from error
        except OSError as error:
            words = " ".join(str(error).split())
            if "closed" in words.lower():
                self._drop()
                raise Interrupted(f"{shown}: the connection broke ({words})") from error
            raise Unwritable(f"{shown}: the server says {words!r}", "is its disk full, or over quota?") from error

    def _channel(self, shown: str) -> paramiko.SFTPClient:
        with self._opening:
            client = self._client
            if client is None or not _is_alive(client):
                client = self._client = connect(self._login, shown, self._patience)
        mine = getattr(self._mine, "channel", None)
        if mine is None or mine[0] is not client:
            sftp = _Client.from_transport(cast("paramiko.Transport", client.get_transport()))
            assert sftp is not None  # noqa: S101 - tells mypy that there is a transport
            cast("paramiko.Channel", sftp.get_channel()).settimeout(self._patience.stall_s)
            mine = self._mine.channel = (client, sftp)
        return cast("paramiko.SFTPClient", mine[1])

    def _drop(self) -> None:
        """End the connection this thread used, unless another thread has replaced it already."""
        mine = getattr(self._mine, "channel", None)
        self._mine.channel = None
        with self._opening:
            if mine is not None and self._client is not None and mine[0] is self._client:
                self._client.close()
                self._client = None


class _AnyNames(paramiko.Message):
    """A message whose texts need not be UTF-8."""

    def get_text(self) -> str:
        """Return a text; bytes that are none stand for themselves, as in Python's own names of files."""
        return self.get_string().decode("utf-8", "surrogateescape")


class _Client(paramiko.SFTPClient):
    """A client that lists names of whatever bytes: paramiko's ends with one that is not UTF-8 (5.1, `get_text`)."""

    def _request(self, kind: int, *arguments: object) -> tuple[int, paramiko.Message]:
        answer, message = super()._request(kind, *arguments)  # type: ignore[misc] # what listdir_attr calls
        return answer, _AnyNames(message.get_remainder()) if kind == CMD_READDIR else message


def _is_alive(client: paramiko.SSHClient) -> bool:
    transport = client.get_transport()
    return transport is not None and transport.is_active()


def _entry(found: paramiko.SFTPAttributes, path: str) -> Entry:
    modified_s = float(found.st_mtime) if found.st_mtime is not None else None
    if stat.S_ISDIR(found.st_mode or 0):
        return Entry(path, is_folder=True, modified_s=modified_s)
    return Entry(path, found.st_size, f"{found.st_mtime} {found.st_size}", modified_s)


def _ahead(file: paramiko.SFTPFile, start: int, stop: int) -> Iterator[bytes]:
    """Read in the small pieces that servers give, many of them asked for at once."""
    _hush(file)
    at = start
    while at < stop:
        ends = min(at + _ASKED_BYTES, stop)
        wanted = [(place, min(_READ_BYTES, ends - place)) for place in range(at, ends, _READ_BYTES)]
        for piece in file.readv(wanted):
            if not piece:
                return
            yield piece
            at += len(piece)
        if at < ends:
            return


def _hush(file: paramiko.SFTPFile) -> None:
    """Keep the thread in which paramiko asks from writing a traceback when the connection breaks; the reader is told.

    Source: paramiko 5.1, SFTPFile._start_prefetch, which starts whatever this attribute is.
    """
    ask = getattr(file, "_prefetch_thread", None)
    if ask is None:
        return

    def ask_quietly(*request: object) -> None:
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            ask(*request)

    file._prefetch_thread = ask_quietly  # type: ignore[attr-defined] # the one place where paramiko lets us


def _size_of(sftp: paramiko.SFTPClient, path: str) -> int:
    try:
        return sftp.stat(path).st_size or 0
    except FileNotFoundError:
        return 0


def _move(sftp: paramiko.SFTPClient, draft: str, path: str) -> None:
    try:
        sftp.posix_rename(draft, path)
    except OSError:  # a server without that extension does not rename onto a file
        with contextlib.suppress(FileNotFoundError):
            sftp.remove(path)
        sftp.rename(draft, path)
