"""Real images without Docker: the example module with DEEPaaS on Debian, that module broken, and a plain image.

Built once (about 30 s), cached by a hash of everything that decides the content, as OCI layouts with one image each.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from . import image_layers
from .cluster import Cluster
from .host import call, locked
from .image_layers import SEARCH_PATH, Config, assemble, pack_layer, pip_in_tree, put_wheels, write_layer
from .install import GLIBC_TAGS
from .rootfs import RECIPES, cache_dir, fetch_rootfs, mirror

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples" / "deepaas-digits"
NAMES = ("digits", "broken-import", "writes", "oracle", "plain")

DEEPAAS = "deepaas==2.6.0"
SOURCE_ONLY = ("aiohttp-apispec<3", "pyinotify")  # what DEEPaaS needs that comes without a wheel; both pure Python
INSTALLERS = ("pip", "setuptools")

_RELEASE = "trixie"
_PACKAGES = ("python3", "python3-numpy")
_DROPPED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_HOME = "/srv/deepaas-digits"

#: What an image may say that a launcher easily gets wrong.
PLAIN_ENV = {
    "QUOTES": """it's "double" and `back`""",
    "LINES": "first\nsecond\n",
    "UNICODE": "ψηφία – 数字",
    "DOLLAR": "$HOME ${PATH} $(id) \\n",
    "EMPTY": "",
    "SPACES": "  two  spaces  ",
    # names that a shell keeps for itself, or cannot have at all
    "UID": "4242",
    "EUID": "4242",
    "PPID": "1",
    "SHELLOPTS": "nounset",
    "BASH_ENV": "/nowhere",
    "GROUPS": "a b",
    "IFS": ":",
    "dashed-name": "it's odd",
    "dotted.name": "$(id)",
}
#: What the image has in its home, as downloads of frameworks lie there.
PLAIN_WEIGHTS = ".cache/torch/hub/weights.pth"
PLAIN_FOLDER = "/srv/plain folder"
#: What it has where programs keep what is temporary.
PLAIN_TMP = ("/tmp/.cache/hub/weights.bin", "/tmp/names", "/var/tmp/library/settings.json")

_ENTRY = """\
#!/bin/sh
# Says what it was started as, then becomes its arguments; without any it says so.
printf 'entry: %s words in %s\\n' "$#" "$PWD"
[ "$#" -gt 0 ] || exit 64
exec "$@"
"""
_BROKEN = '''\
"""What DEEPaaS calls; it never gets so far."""

import a_library_that_nobody_installed  # noqa: F401
'''


#: A module as real ones are: it writes beside what it reads, wherever that is, and moves files about.
WRITES = '''\
"""A module that writes wherever Docker lets it, and tells where that worked."""

import glob
import os
import shutil
import tempfile
from pathlib import Path

from webargs import fields

HOME = Path("/srv/deepaas-digits")
MODELS_DIR = Path("/opt/weights")


def get_metadata():
    return {"name": "writes"}


def get_train_args():
    return {"weights": fields.Field(metadata={"type": "file", "location": "form"})}


def get_predict_args():
    return {"image": fields.Field(metadata={"type": "file", "location": "form"}), "note": fields.Str(load_default="-")}


def _try(action):
    try:
        action()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def _complete(path):
    with path.open("a") as file:
        file.write("completed\\n")


def _move(folder):
    (folder / "made.mp4").write_bytes(b"v" * 1000)
    os.rename(folder / "made.mp4", "/tmp/made.mp4")
    os.rename("/tmp/made.mp4", folder / "answer.mp4")


def _everywhere():
    places = {
        "working folder": lambda: Path("notes.txt").write_text("x"),
        "what lies in the working folder": lambda: _complete(Path("labels.txt")),
        "beside the code": lambda: Path(__file__).with_name("cache.bin").write_text("x"),
        "home of the module": lambda: (HOME / "runs" / "1").mkdir(parents=True, exist_ok=True),
        "beside the models": lambda: (HOME / "models" / "predictions").mkdir(exist_ok=True),
        "data in place": lambda: _complete(HOME / "data" / "data.yaml"),
        "data sets in place": lambda: [_complete(path) for path in (HOME / "data").glob("*/data.yaml")],
        "where its configuration says": lambda: tempfile.TemporaryFile(dir=MODELS_DIR).close(),
        "elsewhere": lambda: Path("/opt/deephpc-was-here").write_text("x"),
        "moved to /tmp and back": lambda: _move(Path.cwd()),
        "moved from its home and back": lambda: _move(HOME),
        "settings of a library": lambda: _complete(Path.home() / ".config" / "library" / "settings.json"),
    }
    return {name: _try(action) for name, action in places.items()}


def _all_in(folder):
    return sorted(glob.glob("**", root_dir=folder, recursive=True))


def train(weights=None):
    told = _everywhere()
    trained = HOME / "models" / "trained.bin"
    trained.write_text("trained")
    told_where = Path(os.environ.get("MODELS_PATH", HOME / "models"))
    told_where.mkdir(parents=True, exist_ok=True)
    (told_where / "as told.bin").write_text("trained")
    (MODELS_DIR / "as configured.bin").write_text("trained")
    return {"places": told, "models": sorted(p.name for p in (HOME / "models").iterdir()),
            "data": _all_in(HOME / "data"),
            "weights": Path(weights.filename).read_text() if weights else None}


def predict(image=None, note="-"):
    told = _everywhere()
    models = Path(os.environ.get("MODELS_PATH", HOME / "models"))
    files = {name: models / name for name in _all_in(models) if (models / name).is_file()}
    texts = {name: path.read_text() for name, path in files.items() if path.stat().st_size < 1000}
    for name in texts:
        _try(lambda: _complete(files[name]))
    (HOME / "models" / "predictions" / "last.txt").write_text(note)
    return {"places": told, "models": sorted(p.name for p in (HOME / "models").iterdir()), "where": str(models),
            "texts": texts, "configured": sorted(p.name for p in MODELS_DIR.iterdir())}
'''

MODULE_CONFIG = Config(
    env={"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
    folder=_HOME,
    # as in most images of the catalogue; DEEPaaS no longer knows the option
    command=("deepaas-run", "--openwhisk-detect", "--listen-ip", "0.0.0.0", "--listen-port", "5000"),
    ports=("5000/tcp",),
)
ORACLE_HOME = "/srv/oracle"
ORACLE_MODULES = PROJECT / "tests" / "oracle" / "modules"
ORACLE_CONFIG = Config(
    env={"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONPATH": ORACLE_HOME},
    folder=ORACLE_HOME,
    command=("deepaas-run", "--listen-ip", "0.0.0.0"),
    ports=("5000/tcp",),
)
PLAIN_CONFIG = Config(
    env=PLAIN_ENV,
    folder=PLAIN_FOLDER,
    command=("cat", "here.txt"),
    entrypoint=("/usr/local/bin/entry",),
)


def fetch_module_images() -> dict[str, Path]:
    """Return the OCI layouts by name (see `NAMES`); built now when they are not in the cache.

    Nobody may write into them: the layouts share their blobs by hard links. `put_layout` makes a copy.
    """
    done = cache_dir() / f"module-images-{_key()}"
    with locked(cache_dir() / "module-images.lock", timeout=900):
        if not done.is_dir():
            for stale in cache_dir().glob("building-modules-*"):
                call(["rm", "-rf", "--one-file-system", str(stale)], timeout=120)
            building = Path(tempfile.mkdtemp(prefix="building-modules-", dir=cache_dir()))
            _build(building)
            (building / "done").rename(done)
            call(["rm", "-rf", "--one-file-system", str(building)], timeout=120)
    return {name: done / name for name in NAMES}


def fetch_module_wheels(python: str = RECIPES[_RELEASE].python) -> Path:
    """Return a folder with wheels of DEEPaaS, all it needs, pip and setuptools; downloaded when not in the cache."""
    return fetch_wheels((DEEPAAS, *INSTALLERS), python, source_only=SOURCE_ONLY)


def fetch_wheels(wanted: Sequence[str], python: str, *, source_only: Sequence[str] = ()) -> Path:
    """Return a folder with wheels of some requirements and all they need; downloaded when not in the cache.

    Those of `source_only` are built, which has to work on any Python: they come without a wheel.
    """
    asked = (*wanted, *source_only, python)
    done = cache_dir() / f"module-wheels-{hashlib.sha256(repr(asked).encode()).hexdigest()[:10]}"
    with locked(cache_dir() / "module-wheels.lock", timeout=600):
        if done.is_dir():
            return done
        fetching = done.with_suffix(".part")
        shutil.rmtree(fetching, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        if source_only:
            call([*pip, "wheel", "--no-deps", "-w", str(fetching), *source_only], timeout=300)
        tags = [word for tag in GLIBC_TAGS for word in ("--platform", f"{tag}_{platform.machine()}")]
        download = [*pip, "download", "--only-binary=:all:", "--python-version", python, *tags]
        fetching.mkdir(exist_ok=True)
        call([*download, "--find-links", str(fetching), "-d", str(fetching), *wanted], timeout=600)
        fetching.rename(done)
    return done


def put_layout(cluster: Cluster, image: str | Path, path: str) -> str:
    """Copy a layout, one of `NAMES` or any, to a path of the cluster, readable for all; returns it, for `oci:PATH`."""
    place = cluster.on_host(path)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_layout(image), place)
    for each in (place, *place.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return path


def push_image(cluster: Cluster, image: str | Path, reference: str) -> str:
    """Copy an image into a plain-HTTP registry of the cluster, as `ctl:5055/demo/digits:cpu`; returns its digest."""
    folder = f"/scratch/.layouts/{Path(image).name}"
    place = cluster.on_host(folder)
    if not place.exists():  # only read there: hard links spare the copy of what may be hundreds of megabytes
        shutil.copytree(_layout(image), place, copy_function=_link_or_copy)
    skopeo = "skopeo copy -q --insecure-policy --preserve-digests --dest-tls-verify=false"
    cluster.root(f"{skopeo} oci:{folder} docker://{reference}", timeout=120)
    return image_digest(place)


def install_module(cluster: Cluster, user: str = "alice") -> str:
    """Install the module natively, in an environment of a user's own; returns its folder of programs.

    Data and models then lie in `~/deepaas-digits`; the digits are those of the node's scikit-learn.
    """
    wheels, home = fetch_module_wheels(cluster.python), cluster.on_host(f"/home/{user}")
    place, source = cluster.on_host("/scratch/.module-wheels"), home / "deepaas-digits"
    for folder in (place, source):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(wheels, place)
    for path in example_files():
        target = source / path.relative_to(EXAMPLE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    call(["chmod", "-R", "a+rX", str(place)])
    cluster.root(f"chown -R {user}: /home/{user}/deepaas-digits", node="login")
    cluster.run("python3 -m venv --system-site-packages ~/deepaas-venv", user=user, timeout=120)
    pip = "~/deepaas-venv/bin/python -m pip install -q --disable-pip-version-check --no-index"
    cluster.run(f"{pip} --find-links /scratch/.module-wheels {DEEPAAS} setuptools", user=user, timeout=180)
    cluster.run(f"{pip} --no-build-isolation --no-deps -e ~/deepaas-digits", user=user, timeout=120)
    return f"/home/{user}/deepaas-venv/bin"


def image_digest(layout: Path) -> str:
    """Return the digest of a layout's one manifest."""
    digest: str = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return digest


def example_files(example: Path = EXAMPLE) -> Iterator[Path]:
    """Yield the files of an example module, without what running it leaves behind."""
    for path in sorted(example.rglob("*")):
        inside = path.relative_to(example)
        left_behind = {"__pycache__", "models", "data", "build"} & set(inside.parts) or ".egg-info" in str(inside)
        if path.is_file() and not left_behind and not inside.parts[0].startswith("."):
            yield path


def example_content(example: Path) -> bytes:
    """Return the names and the content of all files of an example module."""
    files = [f"{path.relative_to(example)}\0".encode() + path.read_bytes() for path in example_files(example)]
    return b"\0".join(files)


def copy_example(tree: Path, example: Path) -> Path:
    """Put a module where catalogue images have theirs, owned by root, closed to others' writing; returns its folder."""
    home = tree / "srv" / example.name
    for path in example_files(example):
        target = home / path.relative_to(example)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in ("data", "models"):
        (home / name).mkdir()
    return home


def _key() -> str:
    """Return a short hash of this recipe and of the example module."""
    recipe = Path(__file__).read_bytes() + Path(image_layers.__file__).read_bytes()
    oracle = b"".join(text.encode() for text in _oracle_files().values())
    return hashlib.sha256(recipe + example_content(EXAMPLE) + oracle).hexdigest()[:10]


def _oracle_files() -> dict[str, str]:
    """Return the modules of the oracle as they lie in their image, each installed by hand."""
    files: dict[str, str] = {}
    for source in sorted(ORACLE_MODULES.glob("*.py")):
        name, about = source.stem, f"{ORACLE_HOME}/{source.stem}-1.0.dist-info"
        files[f"{ORACLE_HOME}/{source.name}"] = source.read_text(encoding="utf-8")
        files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        files[f"{about}/entry_points.txt"] = f"[deepaas.v2.model]\n{name} = {name}\n"
    return files


def _layout(image: str | Path) -> Path:
    return image if isinstance(image, Path) else fetch_module_images()[image]


def _link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # the cache lies in another file system
        shutil.copyfile(source, target)


def _build(building: Path) -> None:
    """Build all images: `building`/done is what to keep."""
    tree, store = building / "tree", building / "store"
    (store / "blobs" / "sha256").mkdir(parents=True)
    call(_mmdebstrap_argv(tree), timeout=900)
    base = pack_layer(store, tree, "Debian with Python and NumPy")
    stamp = building / "stamp"
    stamp.touch()
    _install_deepaas(tree)
    deepaas = pack_layer(store, tree, f"pip install {DEEPAAS}", newer_than=stamp)
    stamp.touch()
    _install_module(tree)
    module = pack_layer(store, tree, "the module", newer_than=stamp)
    broken = write_layer(store, {f"{_HOME}/deepaas_digits/api.py": _BROKEN}, "an import that fails")
    writes = write_layer(
        store,
        {
            f"{_HOME}/deepaas_digits/api.py": WRITES,
            f"{_HOME}/models/shipped.bin": "shipped",
            "/opt/weights/base.bin": "base",
            f"{_HOME}/data/data.yaml": "classes: 10\n",
            "/srv/labels.txt": "zero\n",
            "/root/.config/library/settings.json": "{}\n",
        },
        "a module that writes",
    )
    plain = write_layer(
        store,
        {
            "/usr/local/bin/entry": _ENTRY,
            f"{PLAIN_FOLDER}/here.txt": "ψ in the working folder\n",
            f"/root/{PLAIN_WEIGHTS}": "weights",
            **dict(zip(PLAIN_TMP, PLAIN_TMP, strict=True)),
        },
        "an entry point",
    )
    assemble(store, building / "done" / "digits", [base, deepaas, module], MODULE_CONFIG)
    assemble(store, building / "done" / "broken-import", [base, deepaas, module, broken], MODULE_CONFIG)
    oracle = write_layer(store, _oracle_files(), "the modules of the oracle")
    assemble(store, building / "done" / "oracle", [base, deepaas, oracle], ORACLE_CONFIG)
    assemble(
        store, building / "done" / "writes", [base, deepaas, module, writes], replace(MODULE_CONFIG, folder="/srv")
    )
    assemble(store, building / "done" / "plain", [base, plain], PLAIN_CONFIG)


def _mmdebstrap_argv(tree: Path) -> list[str]:
    """How the base is built: essential packages and Python, without apt, documentation and needless fsync."""
    return [
        *("/usr/bin/env", SEARCH_PATH),
        *("unshare", "--mount", "--propagation", "private"),  # a killed build leaves no mount behind
        *("mmdebstrap", "--mode=root", "--variant=essential"),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _DROPPED),
        f"--include={','.join(_PACKAGES)}",
        *(_RELEASE, str(tree), f"deb {mirror()} {_RELEASE} main"),
    ]


def _install_deepaas(tree: Path) -> None:
    put_wheels(tree, fetch_module_wheels())
    pip_in_tree(tree, DEEPAAS, "setuptools")


def _install_module(tree: Path) -> None:
    """Put the module into the tree with its data."""
    home = copy_example(tree, EXAMPLE)
    digits = "usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"  # of Debian's python3-sklearn
    shutil.copyfile(fetch_rootfs(_RELEASE) / digits, home / "data" / "digits.csv.gz")
    pip_in_tree(tree, "--no-build-isolation", "--no-deps", "--editable", _HOME)
