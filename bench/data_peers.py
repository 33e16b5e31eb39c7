"""Peers of `deephpc data`: how each program is told to send or bring a folder."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.data_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Server, find_program

_OBSTORE = Path(__file__).with_name("obstore_copy.py")
HASH_ALL = 'find "$0" -type f -exec sha256sum {} + >hashes'
_SYNC = 'find "$0" -type f -exec sync {} + && sync hashes'  # sync(1) with files: fsync of each
_NO_RETRIES = ("--log-level", "NOTICE", "--retries", "1", "--low-level-retries", "1")


@dataclass(frozen=True)
class Transfer:
    """One folder to send or to bring."""

    server: Server
    is_put: bool
    here: Path
    there: str
    """Name of the folder on the server."""
    is_large: bool


@dataclass(frozen=True)
class Peer:
    """A program to be compared with."""

    name: str
    argv: Callable[[Transfer], list[str]]
    bar: str = ""


def peers_of(transfer: Transfer) -> list[Peer]:
    """Return whom a transfer is compared with."""
    large = transfer.is_large
    peers = [Peer("rclone copy", _rclone, "≤ 1.5" if large else "≤ 1.0")]
    if large:  # the same work as ours: what is sent is hashed, what is brought is hashed and on the disk
        more = "sha256sum" if transfer.is_put else "sha256sum + sync"
        peers.append(Peer(f"rclone copy + {more}", _rclone_and_hash, "≤ 1.0"))
    return [*peers, *_MORE.get(transfer.server.kind, ())]


def rclone_copy(source: str, target: str, *options: str) -> list[str]:
    """Return `rclone copy` that tries once and tells of trouble."""
    return [find_program("rclone"), "copy", *_NO_RETRIES, *options, source, target]


def peer_environment(server: Server) -> dict[str, str]:
    """Return what tells rclone and s5cmd of a server."""
    remote = {f"RCLONE_CONFIG_THERE_{key.upper()}": value for key, value in server.options.items()}
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
    return remote | ({"S3_ENDPOINT_URL": server.endpoint, **keys} if server.kind == "S3" else {})


def _rclone(transfer: Transfer) -> list[str]:
    # rclone waits 10 ms before each request of WebDAV, to spare clouds; here that would flatter us
    options = ("--webdav-pacer-min-sleep", "0s") if transfer.server.kind == "WebDAV" else ()
    here, there = str(transfer.here), f"there:{transfer.server.top}{transfer.there}"
    return rclone_copy(*((here, there) if transfer.is_put else (there, here)), *options)


def _rclone_and_hash(transfer: Transfer) -> list[str]:
    script = f'"$@" && {HASH_ALL}' if transfer.is_put else f'"$@" && {HASH_ALL} && {_SYNC}'
    return ["sh", "-c", script, str(transfer.here), *_rclone(transfer)]


def _s5cmd(transfer: Transfer) -> list[str]:
    there = f"s3://{BUCKET}/{transfer.there}/"
    words = [find_program("s5cmd"), "--log", "error", "--retry-count", "0", "cp"]
    return [*words, *((f"{transfer.here}/", there) if transfer.is_put else (f"{there}*", f"{transfer.here}/"))]


def _obstore(transfer: Transfer) -> list[str]:
    way = "put" if transfer.is_put else "get"
    return [sys.executable, str(_OBSTORE), way, transfer.server.endpoint, str(transfer.here), transfer.there]


def _openssh(transfer: Transfer) -> list[str]:
    there = f"{transfer.server.top}{transfer.there}"
    if transfer.is_put:
        said = f"mkdir {there}\nput -r {transfer.here}/. {there}/"
    else:
        said = f"lmkdir {transfer.here}\nget -r {there}/. {transfer.here}/"
    login, place = _login(transfer.server)
    return ["sh", "-c", 'printf "%s\\n" "$0" | "$@"', said, find_program("sftp"), "-q", "-b", "-", *login, place]


def _lftp(transfer: Transfer) -> list[str]:
    there = f"{transfer.server.top}{transfer.there}"
    if transfer.is_put:
        what = f"mirror -R -P 8 {transfer.here} {there}"
    elif transfer.is_large:
        what = f"!mkdir -p {transfer.here}\npget -n 8 {there}/file -o {transfer.here}/file"
    else:
        what = f"mirror -P 8 {there} {transfer.here}"
    login, place = _login(transfer.server)
    user, _, host = place.partition("@")
    settings = f"set cmd:fail-exit yes; set net:max-retries 1; set sftp:connect-program 'ssh -a -x {' '.join(login)}'"
    address = f"open -u {user},x -p {transfer.server.port} sftp://{host}"
    return [find_program("lftp"), "-c", f"{settings}; {address}; {what}"]


def _login(server: Server) -> tuple[list[str], str]:
    options = server.options
    known = f"UserKnownHostsFile={options['known_hosts_file']}"
    words = ["-o", f"Port={server.port}", "-o", f"IdentityFile={options['key_file']}", "-o", known]
    return [*words, "-o", "IdentitiesOnly=yes"], f"{options['user']}@{options['host']}"


_MORE: Mapping[str, tuple[Peer, ...]] = {
    "S3": (Peer("s5cmd", _s5cmd), Peer("obstore, from Python", _obstore)),
    "SFTP": (Peer("OpenSSH's sftp", _openssh), Peer("lftp, 8 at once", _lftp)),
}
