"""Where a run's server is reached and with which token: files of the run folder that only its owner may read.

endpoint.json            address and certificate; written when the port is bound, removed when the server ends
certificate.pem          the certificate alone, for `curl --cacert`
secrets/token            256 bits, in hexadecimal
secrets/authorization    the same as a header line, for `curl -H @FILE`: a token in argv could be read by others
"""

import base64
import binascii
import contextlib
import errno
import hashlib
import os
import re
import secrets
import ssl
import stat
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from deephpc.errors import SiteError
from deephpc.model import Model
from deephpc.whole_file import replacing

ENDPOINT = "endpoint.json"
CERTIFICATE = "certificate.pem"
TOKEN = "secrets/token"  # noqa: S105 - a file's name
AUTHORIZATION = "secrets/authorization"

_LARGEST_BYTES = 1 << 16
_STALE_TRIES = 3
_TOKEN = re.compile(r"[0-9a-f]{64}")

ServiceKind = Literal["deepaas", "jupyter", "command"]


class Endpoint(Model):
    """One server, as its gateway publishes it."""

    schema_name: Literal["deephpc.endpoint/1"] = Field(
        "deephpc.endpoint/1", serialization_alias="schema", validation_alias="schema"
    )
    run_id: str
    attempt: int = 1
    kind: ServiceKind = "deepaas"
    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")
    """The compute node's name; no option of ssh, for it does not begin with a dash."""
    port: int = Field(ge=1, le=65535)
    certificate: str
    """The certificate made for this run (PEM); clients trust this one and no other."""
    public_key_pin: str = Field(pattern=r"^sha256//[A-Za-z0-9+/]{43}=$")
    """Hash of the certificate's public key, as `curl --pinnedpubkey` takes it."""
    model: str | None = None
    """The DEEPaaS module that is served."""
    started_at: datetime
    ends_at: datetime | None = None
    """When the job reaches its time limit."""

    @field_validator("certificate")
    @classmethod
    def _is_certificate(cls, text: str) -> str:
        try:
            ssl.PEM_cert_to_DER_cert(text)
        except (ValueError, binascii.Error) as error:
            raise ValueError("it is no certificate in PEM") from error
        return text

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256, in hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate)).hexdigest()


def public_key_pin(public_key: bytes) -> str:
    """Return the pin of a public key (DER, SubjectPublicKeyInfo). Source: curl(1) 7.88, --pinnedpubkey."""
    return "sha256//" + base64.b64encode(hashlib.sha256(public_key).digest()).decode()


def prepare_token(run_folder: Path) -> str:
    """Return the run's token, made now when it has none; a requeued run keeps its own (compute node).

    Raises
    ------
    SiteError
        The files cannot be written, or others could read or change them.
    """
    token = load_token(run_folder)
    if token is None:
        token = secrets.token_hex(32)
        _write_token(run_folder, token)
    return token


def keep(folder: Path, endpoint: Endpoint, token: str) -> None:
    """Write what is known of a server elsewhere into a folder, as it lies in its run folder (laptop).

    Raises
    ------
    SiteError
        It is no token, or the files cannot be written.
    """
    if not _TOKEN.fullmatch(token):
        raise SiteError(f"{endpoint.run_id} has no token", "start the server anew")
    _write_token(folder, token)
    publish(folder, endpoint)


def publish(run_folder: Path, endpoint: Endpoint) -> None:
    """Tell where the server is reached; its port must be bound (compute node).

    Raises
    ------
    SiteError
        The files cannot be written.
    """
    _write(run_folder / CERTIFICATE, endpoint.certificate)
    _write(run_folder / ENDPOINT, endpoint.model_dump_json(by_alias=True, indent=1) + "\n")


def withdraw(run_folder: Path, endpoint: Endpoint) -> None:
    """Take the address back, unless a later attempt has published another (compute node)."""
    with contextlib.suppress(SiteError):
        if load_endpoint(run_folder) == endpoint:
            (run_folder / ENDPOINT).unlink(missing_ok=True)
            (run_folder / CERTIFICATE).unlink(missing_ok=True)


def load_endpoint(run_folder: Path) -> Endpoint | None:
    """Return where the run's server is reached; None when it is not, or no longer.

    Raises
    ------
    SiteError
        The file belongs to somebody else, others may write it, or it is not what this version reads.
    """
    text = _read(run_folder / ENDPOINT, forbidden=stat.S_IWGRP | stat.S_IWOTH)
    if text is None:
        return None
    try:
        return Endpoint.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SiteError(
            f"{run_folder / ENDPOINT} cannot be read: {place}: {first['msg']}",
            "was the server started by another version of deephpc? use that one, or start the server anew",
        ) from error


def load_token(run_folder: Path) -> str | None:
    """Return the token of the run's server; None when it has none yet.

    Raises
    ------
    SiteError
        The file belongs to somebody else, others may read it, or it holds no token.
    """
    text = _read(run_folder / TOKEN, forbidden=0o077)
    if text is None:
        return None
    if not _TOKEN.fullmatch(text.strip()):
        raise SiteError(f"{run_folder / TOKEN} holds no token", "start the server anew")
    return text.strip()


def _write_token(folder: Path, token: str) -> None:
    (folder / TOKEN).parent.mkdir(mode=0o700, exist_ok=True)
    _write(folder / AUTHORIZATION, f"Authorization: Bearer {token}\n")
    _write(folder / TOKEN, f"{token}\n")


def _read(path: Path, forbidden: int) -> str | None:
    """Read a small file of ours; one renamed into place on NFS is opened anew (ESTALE)."""
    for attempt in range(_STALE_TRIES):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                _check(path, os.fstat(descriptor), forbidden)
                return file.read(_LARGEST_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or attempt + 1 == _STALE_TRIES:
                hint = "is it a file of yours, and is its file system there?"
                raise SiteError(f"cannot read {path}: {error.strerror or error}", hint) from error
    return None


def _check(path: Path, status: os.stat_result, forbidden: int) -> None:
    """Refuse a file that somebody else put there, or that others may read or write though they must not."""
    if status.st_uid != os.geteuid():
        raise SiteError(f"{path} belongs to user {status.st_uid}, not to you", "do not use this server")
    if not stat.S_ISREG(status.st_mode) or status.st_mode & forbidden:
        mode = stat.filemode(status.st_mode)
        raise SiteError(f"{path} is open to others ({mode})", "stop the server, see to your run folders, start it anew")


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise SiteError(
            f"cannot write {path}: {error.strerror or error}", "check the folder's permissions, free space and quota"
        ) from error
