"""Bringing and sending data, against other programs from and to the same servers on this machine."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from bench.data_growth import growth
from bench.data_peers import Peer, Transfer, peer_environment, peers_of
from bench.data_servers import SERVERS, find_program
from bench.row import Cost, Row, race, try_once
from tests.data.servers import clean_environment

ROUNDS = 3
FILES = int(os.environ.get("BENCH_FILES", "2000"))
LARGE_BYTES = int(os.environ.get("BENCH_LARGE_BYTES", "500_000_000"))
_PLACE, _PLACES = "place{}", 64
_MIB = 1 << 20
_SETS = {"small": f"{FILES} files of 1 to 8 kB", "large": f"a file of {LARGE_BYTES // 1_000_000} MB"}
_PROGRAMS = ("rclone", "s5cmd", "sshd", "sftp", "lftp")


@dataclass
class _Desk:
    """A user with the remote `there`, and a folder of their own."""

    folder: Path
    environ: Mapping[str, str]
    places: Iterator[int] = field(default_factory=count)

    def ours(self, transfer: Transfer) -> list[str]:
        """Return `deephpc data …`."""
        here, there = str(transfer.here), f"there:{transfer.server.top}{transfer.there}"
        words = ["put", here, there] if transfer.is_put else ["get", f"{there}/", here]  # a web server wants the slash
        return [sys.executable, "-m", "deephpc", "--quiet", "data", *words]

    def carry_out(self, name: str, what: Transfer, peer: Peer) -> tuple[Cost, str]:
        """Run a transfer to or from a place that is new, with nothing known of earlier ones, and check it."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        new = _PLACE.format(next(self.places))
        here, there = (what.here, new) if what.is_put else (self.folder / new, name)
        target = what.server.folder / new if what.is_put else here
        source = what.here if what.is_put else what.server.folder / name
        transfer = Transfer(what.server, what.is_put, here, there, what.is_large)
        found = try_once(peer.argv(transfer), self.folder, self.environ, lambda: _difference(source, target))
        shutil.rmtree(target, ignore_errors=True)
        return found


def measure() -> Iterator[Row]:
    """Time each program over each protocol, and then a folder that grows."""
    missing = [name for name in _PROGRAMS if not find_program(name)]
    if missing:
        raise SystemExit(f"data cannot be measured: missing {', '.join(missing)}; run `make bench` as root on Debian")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        _write_sets(folder / "sets")
        for kind in SERVERS:
            yield from _of_server(kind, folder)
        shutil.rmtree(folder / "sets")
        yield from growth(folder)


def _of_server(kind: str, folder: Path) -> Iterator[Row]:
    place = folder / kind
    (place / "home").mkdir(parents=True)
    with SERVERS[kind](place) as server:
        shutil.copytree(folder / "sets", server.folder, dirs_exist_ok=True)
        if kind in ("S3", "WebDAV"):
            _make_places(server.folder, folder / "sets" / "small")
        around = {"DEEPHPC_CACHE_DIR": str(place / "cache"), "DEEPHPC_STATE_DIR": str(place / "state")}
        around |= {"RCLONE_CONFIG": os.devnull, "DEEPHPC_SITE": "local", **peer_environment(server)}
        desk = _Desk(place, clean_environment(place / "home", **around))
        for name in _SETS:
            for is_put in (True, False):
                if server.can_write or not is_put:
                    yield from _rows(
                        desk, name, Transfer(server, is_put, folder / "sets" / name, name, name == "large")
                    )
    shutil.rmtree(place)


def _make_places(top: Path, tree: Path) -> None:
    """Make the folders that puts will fill: `rclone serve s3` and `webdav` may fail when two requests make one."""
    for number in range(_PLACES):
        for folder in tree.iterdir():
            (top / _PLACE.format(number) / folder.name).mkdir(parents=True)


def _rows(desk: _Desk, name: str, transfer: Transfer) -> Iterator[Row]:
    """Run everyone in turn, and return a row for each peer."""
    peers = peers_of(transfer)
    everyone = (Peer("ours", desk.ours), *peers)
    results = race({peer.name: partial(desk.carry_out, name, transfer, peer) for peer in everyone}, ROUNDS)
    mine, ours_stumbled = results["ours"]
    what = f"{_SETS[name]} {'sent' if transfer.is_put else 'brought'} over {transfer.server.kind}"
    for peer in peers:
        theirs, stumbled = results[peer.name]
        memory = (mine.peak_mib, theirs.peak_mib)
        yield Row(what, mine.wall_ms, peer.name, theirs.wall_ms, peer.bar, *memory, stumbled, ours_stumbled)


def _difference(source: Path, target: Path) -> str:
    """Return how the number of files or bytes differs; empty when it does not."""
    wanted, found = _extent(source), _extent(target)
    return "" if wanted == found else f"{found[0]} files, {found[1]} bytes arrived of {wanted[0]} and {wanted[1]}"


def _extent(folder: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _write_sets(folder: Path) -> None:
    rng = random.Random(1)
    for number in range(FILES):
        path = folder / "small" / str(number // 100) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(1000, 8000)))
    (folder / "large").mkdir()
    with (folder / "large" / "file").open("wb") as file:
        for at in range(0, LARGE_BYTES, _MIB):
            file.write(rng.randbytes(min(_MIB, LARGE_BYTES - at)))
