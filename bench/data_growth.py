"""The same work at ten times the size: many tiny files from disk to disk, and checked there; time, CPU and memory."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from bench.data_peers import HASH_ALL, rclone_copy
from bench.data_servers import find_program
from bench.row import Cost, Row, race, try_once
from tests.data.servers import clean_environment

SMALLER = int(os.environ.get("BENCH_GROWTH_FILES", "10000"))
LARGER = 10 * SMALLER
_ROUNDS = {SMALLER: 2, LARGER: 1}
_FILE_BYTES = 300
_FILES_PER_FOLDER = 1000
_OURS = (sys.executable, "-m", "deephpc", "--quiet", "data")
_Result = tuple[Cost, str]
_Results = Mapping[str, _Result]


def growth(folder: Path) -> Iterator[Row]:
    """Copy and check both sizes, and return the rows of each measure beside each other."""
    (folder / "home").mkdir()
    found = {files: _of_size(folder, files) for files in (SMALLER, LARGER)}
    copied = {files: each[0] for files, each in found.items()}
    checked = {files: each[1] for files, each in found.items()}
    copies, checks = "brought from disk to disk", "checked against another copy, hashes and all"
    yield from _rows(f"user CPU: {{}} {copies}", lambda cost: cost.user_ms, copied, "≤ 1.2")
    yield from _rows(f"wall time: {{}} {copies}", lambda cost: cost.wall_ms, copied)
    yield from _rows(f"CPU: {{}} {checks}", lambda cost: cost.cpu_ms, checked, "≤ 1.0")
    yield from _rows(f"wall time: {{}} {checks}", lambda cost: cost.wall_ms, checked)


def _of_size(folder: Path, files: int) -> tuple[_Results, _Results]:
    source, ours, peers = folder / "source", folder / "ours", folder / "peers"
    _write_files(source, files)
    around = {"DEEPHPC_CACHE_DIR": str(folder / "cache"), "DEEPHPC_STATE_DIR": str(folder / "state")}
    environ = clean_environment(folder / "home", RCLONE_CONFIG=os.devnull, DEEPHPC_SITE="local", **around)
    rclone = ["sh", "-c", f'"$@" && {HASH_ALL}', str(peers), *rclone_copy(str(source), str(peers))]
    copying = {
        "ours": partial(_copy, [*_OURS, "get", str(source), str(ours)], ours, files, environ),
        "rclone copy + sha256sum": partial(_copy, rclone, peers, files, environ),
    }
    check = [find_program("rclone"), "check", "--log-level", "ERROR", "--retries", "1", str(source), str(peers)]
    checking = {
        "ours": partial(_check, folder, [*_OURS, "verify", str(ours), "--against", str(source)], environ),
        "rclone check": partial(_check, folder, check, environ),
    }
    results = race(copying, _ROUNDS[files]), race(checking, _ROUNDS[files])
    for each in (source, ours, peers):
        shutil.rmtree(each, ignore_errors=True)
    return results


def _copy(argv: list[str], target: Path, files: int, environ: Mapping[str, str]) -> _Result:
    shutil.rmtree(target, ignore_errors=True)
    return _run(argv, target.parent, environ, lambda: _what_lacks(target, files))


def _check(folder: Path, argv: list[str], environ: Mapping[str, str]) -> _Result:
    return _run(argv, folder, environ, lambda: "")


def _run(argv: list[str], folder: Path, environ: Mapping[str, str], check: Callable[[], str]) -> _Result:
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return try_once(argv, folder, environ, check)


def _what_lacks(target: Path, files: int) -> str:
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    return "" if sizes == [_FILE_BYTES] * files else f"{len(sizes)} files, {sum(sizes)} bytes arrived of {files} files"


def _rows(what: str, measure: Callable[[Cost], float], results: Mapping[int, _Results], bar: str = "") -> Iterator[Row]:
    """Return the row of each size; the larger one tells by how much both grew."""
    peer = next(name for name in results[SMALLER] if name != "ours")
    before = {name: measure(cost) for name, (cost, _) in results[SMALLER].items()}
    for files, of_size in results.items():
        (ours, ours_stumbled), (theirs, stumbled) = of_size["ours"], of_size[peer]
        mine, other = measure(ours), measure(theirs)
        label = what.format(f"{files:,} files of {_FILE_BYTES} B".replace(",", " "))
        if files == LARGER and not (ours_stumbled or stumbled):
            label += f" (for 10 × the files ours × {mine / before['ours']:.1f}, peer × {other / before[peer]:.1f})"
        yield Row(label, mine, peer, other, bar, ours.peak_mib, theirs.peak_mib, stumbled, ours_stumbled)


def _write_files(folder: Path, files: int) -> None:
    for number in range(files):
        path = folder / str(number // _FILES_PER_FOLDER) / f"{number}.json"
        if number % _FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(number.to_bytes(4, "big") * (_FILE_BYTES // 4))
