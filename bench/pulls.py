"""Pulls of images from a docker-registry on the same machine: ours against the tools that pull, by number of layers.

Run on a login node of the test cluster with the venv deephpc is installed in. All images have the same size. Prints its
rows as JSON on the last line. As `pulls.py NAME STORE RESULT` it pulls one image inside its process, and writes how
many milliseconds that took.
"""

import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import deephpc.containers.registry  # noqa: F401 - a running process has it
from bench.images import IMAGE_BYTES, build_layered, pull_image, registry_of
from bench.row import Cost, Row, dump, race, try_once
from deephpc.containers.store import Store

ROUNDS = 3
_NUMBERS = itertools.count()
_BIN = Path(sys.executable).parent
_T = TypeVar("_T")


@dataclass(frozen=True)
class Image:
    """One image in the registry."""

    host: str
    layers: int

    @property
    def repository(self) -> str:
        """Its name there, without a tag."""
        return f"bench/tool-{self.layers}"

    @property
    def name(self) -> str:
        """Its full name."""
        return f"{self.host}/{self.repository}:latest"


@dataclass(frozen=True)
class Peer:
    """A tool that pulls an image into an empty place."""

    name: str
    words: Callable[[Image, Path], Sequence[str]]
    files: str
    """Pattern of what a layer becomes in the place; "" where layers do not stay."""
    variables: Mapping[str, str]
    """Environment variables; {place} is the place."""


_UDOCKER = Peer(
    "udocker pull",
    lambda image, _: ["udocker", "pull", f"--registry=http://{image.host}", f"{image.repository}:latest"],
    "layers/*",
    {"UDOCKER_DIR": "{place}", "UDOCKER_TARBALL": ""},  # nothing else is fetched
)
_APPTAINER = Peer(
    "apptainer pull (makes a SIF as well)",
    lambda image, place: ["apptainer", "pull", "--no-https", f"{place}/image.sif", f"docker://{image.name}"],
    "",
    {"APPTAINER_CACHEDIR": "{place}/cache", "APPTAINER_TMPDIR": "{place}"},
)
_SKOPEO = Peer(
    "skopeo copy",
    lambda image, place: [
        *("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false"),
        *(f"docker://{image.name}", f"oci:{place}/layout"),
    ],
    "layout/blobs/sha256/*",
    {},
)
PEERS = {10: (_UDOCKER, _APPTAINER, _SKOPEO), 50: (_UDOCKER, _SKOPEO), 500: (_UDOCKER, _SKOPEO)}


def main() -> None:
    """Run everything and print the rows, or pull one image."""
    if len(sys.argv) > 1:
        _pull_one(*sys.argv[1:])
        return
    os.environ["PATH"] = f"{_BIN}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR") or Path.home()) as folder:
        home = Path(folder)
        layouts = {f"bench/tool-{count}:latest": build_layered(home / f"layout-{count}", count) for count in PEERS}
        with registry_of(home, layouts) as host:
            rows = [row for count, peers in PEERS.items() for row in compare(home, Image(host, count), peers)]
    print(dump(rows))


def compare(home: Path, image: Image, peers: Sequence[Peer]) -> list[Row]:
    """Pull in turn: by a whole command, inside a process, and by each peer until it stumbles."""
    ours = {"deephpc image pull": _by_command, "pull inside a running process": _in_process}
    pulls = {what: partial(pull, image) for what, pull in ours.items()}
    pulls |= {peer.name: partial(_by_peer, image, peer) for peer in peers}
    raced = race({name: partial(_in_new_place, home, pull) for name, pull in pulls.items()}, ROUNDS)
    rows = []
    for peer in peers:
        cost, stumbled = raced[peer.name]
        for what in ours:
            mine, ours_stumbled = raced[what]
            name = f"{what}, {image.layers} layers, {IMAGE_BYTES >> 20} MiB"
            row = Row(name, mine.wall_ms, peer.name, cost.wall_ms, "≤ 1", mine.peak_mib, cost.peak_mib)
            rows.append(replace(row, stumbled=stumbled, ours_stumbled=ours_stumbled))
    return rows


def _by_peer(image: Image, peer: Peer, place: Path) -> tuple[Cost, str]:
    def check() -> str:
        found = len(list(place.glob(peer.files))) if peer.files else image.layers
        return "" if found >= image.layers else f"{found} of {image.layers} layers arrived"

    return try_once(peer.words(image, place), env=_env(peer, place), check=check)


def _env(peer: Peer, place: Path) -> dict[str, str]:
    return {**os.environ, **{name: value.format(place=place) for name, value in peer.variables.items()}}


def _by_command(image: Image, place: Path) -> tuple[Cost, str]:
    words = ["deephpc", "--quiet", "image", "pull", f"docker://{image.name}"]
    return try_once(words, env={**os.environ, "DEEPHPC_CACHE_DIR": str(place)})


def _in_process(image: Image, place: Path) -> tuple[Cost, str]:
    """Pull in a process that has imported all; its time is that of the pull, its memory that of the process."""
    result = place / "taken_ms"
    program = str(Path(__file__).resolve())
    cost, stumbled = try_once([sys.executable, program, f"docker://{image.name}", str(place / "store"), str(result)])
    return (cost if stumbled else replace(cost, wall_ms=float(result.read_text()))), stumbled


def _pull_one(name: str, store: str, result: str) -> None:
    started = time.perf_counter()
    pull_image(Store(Path(store)), name)
    Path(result).write_text(str((time.perf_counter() - started) * 1000))


def _in_new_place(home: Path, action: Callable[[Path], _T]) -> _T:
    place = home / f"pulled-{next(_NUMBERS)}"
    place.mkdir()
    try:
        return action(place)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
