"""Real images without Docker: the example module with DEEPaaS on Debian, that module broken, and a plain image.

Built once (about 30 s), cached by a hash of everything that decides the content, as OCI layouts with one image each.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.containers.images import OCI, put_blob, write_index

from .cluster import Cluster
from .host import PATH, HarnessError, call, locked
from .install import GLIBC_TAGS
from .rootfs import RECIPES, cache_dir, fetch_rootfs, mirror

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples" / "deepaas-digits"
NAMES = ("digits", "broken-import", "plain")

DEEPAAS = "deepaas==2.6.0"
SOURCE_ONLY = ("aiohttp-apispec<3", "pyinotify")  # what DEEPaaS needs that comes without a wheel; both pure Python
INSTALLERS = ("pip", "setuptools")

_RELEASE = "trixie"
_PACKAGES = ("python3", "python3-numpy")
_DROPPED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_NOT_IN_LAYERS = ("./dev/*", "./proc/*", "./run/*", "./sys/*", "./tmp/*", "./var/tmp/*", "./root/.cache")
_HOME = "/srv/deepaas-digits"
_SEARCH_PATH = f"PATH={PATH}"

#: What an image may say that a launcher easily gets wrong.
PLAIN_ENV = {
    "QUOTES": """it's "double" and `back`""",
    "LINES": "first\nsecond\n",
    "UNICODE": "ψηφία – 数字",
    "DOLLAR": "$HOME ${PATH} $(id) \\n",
    "EMPTY": "",
    "SPACES": "  two  spaces  ",
}
PLAIN_FOLDER = "/srv/plain folder"

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


@dataclass(frozen=True)
class Layer:
    """A layer in the shared folder of blobs."""

    described: Mapping[str, Any]
    diff_id: str
    made_by: str


@dataclass(frozen=True)
class Config:
    """What an image says about how it is started; the user stays empty, which means root."""

    env: Mapping[str, str]
    folder: str = ""
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    ports: Sequence[str] = field(default=())

    def as_oci(self) -> dict[str, Any]:
        """Return the `config` member of an OCI image configuration."""
        return {
            "Env": [_SEARCH_PATH, *(f"{name}={value}" for name, value in self.env.items())],
            "WorkingDir": self.folder,
            **({"Cmd": list(self.command)} if self.command else {}),
            **({"Entrypoint": list(self.entrypoint)} if self.entrypoint else {}),
            **({"ExposedPorts": {port: {} for port in self.ports}} if self.ports else {}),
        }


MODULE_CONFIG = Config(
    env={"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
    folder=_HOME,
    # as in most images of the catalogue; DEEPaaS no longer knows the option
    command=("deepaas-run", "--openwhisk-detect", "--listen-ip", "0.0.0.0", "--listen-port", "5000"),
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
    asked = (DEEPAAS, *SOURCE_ONLY, *INSTALLERS, python)
    done = cache_dir() / f"module-wheels-{hashlib.sha256(repr(asked).encode()).hexdigest()[:10]}"
    with locked(cache_dir() / "module-wheels.lock", timeout=600):
        if done.is_dir():
            return done
        fetching = done.with_suffix(".part")
        shutil.rmtree(fetching, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        call([*pip, "wheel", "--no-deps", "-w", str(fetching), *SOURCE_ONLY], timeout=300)
        tags = [word for tag in GLIBC_TAGS for word in ("--platform", f"{tag}_{platform.machine()}")]
        download = [*pip, "download", "--only-binary=:all:", "--python-version", python, *tags]
        call(
            [*download, "--find-links", str(fetching), "-d", str(fetching), DEEPAAS, *INSTALLERS],
            timeout=600,
        )
        fetching.rename(done)
    return done


def put_layout(cluster: Cluster, name: str, path: str) -> str:
    """Copy a layout to a path of the cluster, readable for everybody; returns the path, for `oci:PATH`."""
    place = cluster.on_host(path)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(fetch_module_images()[name], place)
    for each in (place, *place.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return path


def push_image(cluster: Cluster, name: str, reference: str) -> str:
    """Copy an image into a plain-HTTP registry of the cluster, as `ctl:5055/demo/digits:cpu`; returns its digest."""
    folder = put_layout(cluster, name, f"/scratch/.layouts/{name}")
    skopeo = "skopeo copy -q --insecure-policy --preserve-digests --dest-tls-verify=false"
    cluster.root(f"{skopeo} oci:{folder} docker://{reference}", timeout=120)
    return image_digest(fetch_module_images()[name])


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


def example_files() -> Iterator[Path]:
    """Yield the files of the example module, without what running it leaves behind."""
    for path in sorted(EXAMPLE.rglob("*")):
        inside = path.relative_to(EXAMPLE)
        left_behind = {"__pycache__", "models", "data", "build"} & set(inside.parts) or ".egg-info" in str(inside)
        if path.is_file() and not left_behind and not inside.parts[0].startswith("."):
            yield path


def _key() -> str:
    """Return a short hash of this recipe and of the example module."""
    content = hashlib.sha256(Path(__file__).read_bytes())
    for path in example_files():
        content.update(f"{path.relative_to(EXAMPLE)}\0".encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:10]


def _build(building: Path) -> None:
    """Build all images: `building`/done is what to keep."""
    tree, store = building / "tree", building / "store"
    (store / "blobs" / "sha256").mkdir(parents=True)
    call(_mmdebstrap_argv(tree), timeout=900)
    base = _pack(store, tree, "Debian with Python and NumPy")
    stamp = building / "stamp"
    stamp.touch()
    _install_deepaas(tree)
    deepaas = _pack(store, tree, f"pip install {DEEPAAS}", newer_than=stamp)
    stamp.touch()
    _install_module(tree)
    module = _pack(store, tree, "the module", newer_than=stamp)
    broken = _write_layer(store, {f"{_HOME}/deepaas_digits/api.py": _BROKEN}, "an import that fails")
    plain = _write_layer(
        store,
        {"/usr/local/bin/entry": _ENTRY, f"{PLAIN_FOLDER}/here.txt": "ψ in the working folder\n"},
        "an entry point",
    )
    _assemble(store, building / "done" / "digits", [base, deepaas, module], MODULE_CONFIG)
    _assemble(store, building / "done" / "broken-import", [base, deepaas, module, broken], MODULE_CONFIG)
    _assemble(store, building / "done" / "plain", [base, plain], PLAIN_CONFIG)


def _mmdebstrap_argv(tree: Path) -> list[str]:
    """How the base is built: essential packages and Python, without apt, documentation and needless fsync."""
    return [
        *("/usr/bin/env", _SEARCH_PATH),
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
    wheels = fetch_module_wheels()
    place = tree / "run" / "wheels"
    shutil.copytree(wheels, place)
    _pip(tree, "--find-links", "/run/wheels", DEEPAAS, "setuptools")


def _install_module(tree: Path) -> None:
    """Put the module where catalogue images have theirs, with its data, owned by root and closed to others' writing."""
    home = tree / _HOME.lstrip("/")
    for path in example_files():
        target = home / path.relative_to(EXAMPLE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (home / "models").mkdir()
    (home / "data").mkdir()
    digits = "usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"  # of Debian's python3-sklearn
    shutil.copyfile(fetch_rootfs(_RELEASE) / digits, home / "data" / "digits.csv.gz")
    _pip(tree, "--no-build-isolation", "--no-deps", "--editable", _HOME)


def _pip(tree: Path, *words: str) -> None:
    """Run pip inside a tree; nothing but the wheels there is installed."""
    [pip] = (tree / "run" / "wheels").glob("pip-*.whl")
    run = ["chroot", str(tree), "/usr/bin/env", "-i", _SEARCH_PATH, "HOME=/root", "LANG=C.UTF-8"]
    install = ["python3", f"/run/wheels/{pip.name}/pip", "install", "-q", "--no-index", "--no-cache-dir"]
    quiet = ["--break-system-packages", "--root-user-action=ignore", "--disable-pip-version-check"]
    call([*run, *install, *quiet, *words], timeout=300)


def _pack(store: Path, tree: Path, made_by: str, *, newer_than: Path | None = None) -> Layer:
    """Make a layer of a tree, or of what changed in it since a file was touched.

    Files keep their times: the byte code beside Python's sources is only valid with them.
    """
    excluded = [f"--exclude={pattern}" for pattern in _NOT_IN_LAYERS]
    changed = ["-cnewer", str(newer_than)] if newer_than else []
    with tempfile.TemporaryFile() as names:
        find = ["find", ".", "-mindepth", "1", "-not", "-type", "s", *changed, "-print0"]
        subprocess.run(find, cwd=tree, stdout=names, check=True, timeout=120)
        names.seek(0)
        tar = ["tar", "-C", str(tree), *excluded, "--numeric-owner", "--no-recursion", "--null", "-T", "-", "-cf", "-"]
        with subprocess.Popen(tar, stdin=names, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            layer = _add_layer(store, running.stdout, made_by)
    if running.returncode:
        raise HarnessError(f"tar of {tree}: exit {running.returncode}")
    return layer


def _write_layer(store: Path, files: Mapping[str, str], made_by: str) -> Layer:
    """Make a layer of a few texts, executable where they begin with `#!`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in files.items():
            for folder in reversed([*Path(name.lstrip("/")).parents][:-1]):
                above = tarfile.TarInfo(str(folder))
                above.type, above.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(above)
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(text.encode()), 0o755 if text.startswith("#!") else 0o644
            member.mtime = 1_700_000_000
            archive.addfile(member, io.BytesIO(text.encode()))
    raw.seek(0)
    return _add_layer(store, raw, made_by)


def _add_layer(store: Path, tar: IO[bytes], made_by: str) -> Layer:
    """Compress a tar stream into the store."""
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    part = store / "layer.part"
    with part.open("wb") as file:
        while True:
            chunk = tar.read(1 << 20)
            plain.update(chunk)
            out = gzip.compress(chunk) if chunk else gzip.flush()
            packed.update(out)
            size += file.write(out)
            if not chunk:
                break
    part.rename(store / "blobs" / "sha256" / packed.hexdigest())
    kind = f"{OCI}.layer.v1.tar+gzip"
    described = {"mediaType": kind, "digest": f"sha256:{packed.hexdigest()}", "size": size}
    return Layer(described, f"sha256:{plain.hexdigest()}", made_by)


def _assemble(store: Path, layout: Path, layers: Sequence[Layer], config: Config) -> None:
    """Write an OCI layout with one image; its layers are hard links into the store."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in layers:
        name = layer.described["digest"].removeprefix("sha256:")
        (blobs / name).hardlink_to(store / "blobs" / "sha256" / name)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    whole = {
        "architecture": architecture,
        "os": "linux",
        "config": config.as_oci(),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": layer.made_by} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", **put_blob(layout, json.dumps(whole).encode())},
        "layers": [layer.described for layer in layers],
    }
    entry = {"mediaType": f"{OCI}.manifest.v1+json", **put_blob(layout, json.dumps(manifest).encode())}
    write_index(layout, [{**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}}])
