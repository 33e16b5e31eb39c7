"""The measurements of containers; run on a login node of the test cluster with the venv deephpc is installed in.

Conversion to a SIF and the start of a container: ours against the tools themselves. Prints its rows as JSON on the last
line.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.images import TREE_BYTES, build_image, build_layered, pull_image, real_files
from bench.row import Cost, Row, cost_of, dump, first_try, pairs_ms
from deephpc.containers.container import Container
from deephpc.containers.engine import ENGINES
from deephpc.containers.store import Store
from deephpc.workflows.conversion import write_scripts
from deephpc.workflows.image import PullResult

STARTS = 15
LAYERS = 10
_NUMBERS = itertools.count()
_BIN = Path(sys.executable).parent


def main() -> None:
    """Run everything and print the rows."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR") or Path.home()) as folder:
        home = Path(folder)
        os.environ.update(
            {
                "PATH": f"{_BIN}:{os.environ['PATH']}",
                "UDOCKER_TARBALL": "",  # nothing is fetched
                "UDOCKER_USE_PROOT_EXECUTABLE": "/usr/bin/proot",
                "UDOCKER_USE_RUNC_EXECUTABLE": "/usr/bin/runc",
                "APPTAINER_TMPDIR": str(home),
            }
        )
        small = build_layered(home / "small", LAYERS)
        rows = conversion(home, build_image(home / "tree", [real_files()]), small)
        print(dump([*rows, *start_up(home, small)]))


def conversion(home: Path, layout: Path, small: Path) -> list[Row]:
    """Make a SIF of an image that is here: CPU time, against apptainer's own default, first tried on a small image."""
    result = pull_image(Store(home / "cache/images"), f"oci:{layout}")
    container = _container(home, result, "apptainer")
    script = write_scripts(container, _folder(home / "conversion"), home, ())
    first = home / "first.sif"
    stumbled = first_try(["apptainer", "build", str(first), f"oci:{small}"], check=lambda: _lacks(first))
    ours = cost_of(["bash", str(script), str(_folder(home / f"private-{next(_NUMBERS)}"))])
    peer = None if stumbled else cost_of(["apptainer", "build", str(home / "peer.sif"), f"oci:{layout}"])
    what = f"CPU time of making a SIF of {TREE_BYTES >> 20} MiB of software"
    return [_cpu_row(what, ours, "apptainer build", peer, stumbled)]


def _cpu_row(what: str, ours: Cost, name: str, peer: Cost | None, stumbled: str) -> Row:
    cpu_ms, mib = (peer.cpu_ms, peer.peak_mib) if peer else (0.0, None)
    return Row(what, ours.cpu_ms, name, cpu_ms, "≤ 0.15", ours.peak_mib, mib, stumbled)


def _lacks(path: Path) -> str:
    return "" if path.exists() else f"no {path.name} was made"


def start_up(home: Path, layout: Path) -> list[Row]:
    """Start `true` in a container as a job does, preflight and all: against the engine called bare."""
    result = pull_image(Store(home / "cache/images"), f"oci:{layout}")
    rows = []
    for engine, bare in {"apptainer": _bare_apptainer, "udocker-p2": _bare_udocker, "udocker-r": _bare_udocker}.items():
        container = _container(home, result, engine)
        script = write_scripts(container, _folder(home / f"start-{engine}"), home, ())
        quietly("bash", str(script), str(_folder(home / f"private-{next(_NUMBERS)}")))

        def ours(script: Path = script) -> None:
            private = _folder(home / f"private-{next(_NUMBERS)}")
            run = {"DEEPHPC_OUTPUT_DIR": str(home / "output"), "DEEPHPC_DATA_DIR": str(home / "data")}
            quietly("bash", str(script), str(private), "/bin/true", **run)

        words, variables = bare(home, engine, layout, container.prepared)
        stumbled = first_try(words, env={**os.environ, **variables})
        theirs = (lambda: None) if stumbled else partial(quietly, *words, **variables)
        our_ms, bare_ms = pairs_ms(ours, theirs, STARTS)
        what, peer = f"start `true` in {engine}, with preflight and events", f"{ENGINES[engine].program} alone"
        rows.append(Row(what, our_ms, peer, bare_ms, "+ 30 ms", stumbled=stumbled))
    return rows


def _bare_apptainer(_home: Path, _engine: str, _layout: Path, prepared: Path) -> tuple[list[str], dict[str, str]]:
    return ["apptainer", "--silent", "exec", str(prepared), "/bin/true"], {}


def _bare_udocker(home: Path, engine: str, layout: Path, _prepared: Path) -> tuple[list[str], dict[str, str]]:
    """Set a container up as a user of udocker would."""
    place = {"UDOCKER_DIR": str(home / f"bare-{engine}")}
    archive = home / f"{engine}.tar"
    quietly("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}", f"docker-archive:{archive}:bench/tool:latest")
    quietly("udocker", "--quiet", "load", "-i", str(archive), "bench/tool", **place)
    quietly("udocker", "--quiet", "create", "--name=bare", "bench/tool:latest", **place)
    mode = {"udocker-p2": "P2", "udocker-r": "R1"}[engine]
    quietly("udocker", "--quiet", "setup", f"--execmode={mode}", "bare", **place)
    words = ["udocker", "--quiet", "run", "--nobanner", "bare", "/bin/true"]
    if mode == "R1":  # without a terminal it always ends with 1
        words = ["script", "-qec", " ".join(words), "/dev/null"]
    return words, place


def quietly(*words: str, **variables: str) -> None:
    """Run a program that must succeed; what it says is shown when it does not."""
    done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def _container(home: Path, result: PullResult, engine: str) -> Container:
    cache = home / "cache"
    found = ENGINES[engine]
    return Container(
        engine=engine,
        engine_command=shutil.which(found.program) or found.program,
        reason="to be measured",
        image=result.name,
        digest=result.digest,
        prepared=found.prepared_path(cache, result.digest),
        layout_dir=result.path,
        cache_dir=cache,
        workdir="/",
    )


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True)
    return path


if __name__ == "__main__":
    main()
