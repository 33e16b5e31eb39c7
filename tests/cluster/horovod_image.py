"""An image without Docker whose DEEPaaS module trains with PyTorch and Horovod: `examples/deepaas-digits-torch`.

Its lower layers (Debian, Python, DEEPaaS) are those of module_images.py. PyTorch comes out of the nodes' root file
system: what Python imports of it, and the libraries that ldd(1) names, so that nothing is downloaded twice.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .horovod import fetch_horovod
from .host import call, locked
from .image_layers import (
    Config,
    assemble,
    load_layers,
    pack_layer,
    pip_in_tree,
    put_wheels,
    run_in_tree,
)
from .module_images import (
    PROJECT,
    copy_example,
    example_content,
    fetch_module_images,
    fetch_module_wheels,
    fetch_wheels,
)
from .rootfs import RECIPES, cache_dir, fetch_rootfs

EXAMPLE = PROJECT / "examples" / "deepaas-digits-torch"
WHEELS = ("pillow==11.3.0", "pytest==8.4.2")
_RELEASE = "trixie"
_PACKAGES = "usr/lib/python3/dist-packages"
#: What `import torch, horovod.torch` and an optimizer's first step import out of Debian's packages.
_IMPORTED = ("torch", "torchgen", "sympy", "mpmath", "typing_extensions.py", "yaml", "_yaml", "psutil")
_NEEDLESS = ("torch/include", "torch/test", "torch/bin/*[tT]est*", "sympy/*/tests", "mpmath/tests")
_LINKED = ("torch/_C.*.so", "torch/lib/*.so", "torch/bin/torch_shm_manager", "yaml/*.so", "psutil/*.so")
_CONFIG = Config(
    env={"DEEPAAS_V2_MODEL": "deepaas_digits_torch", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
    folder=f"/srv/{EXAMPLE.name}",
    command=("deepaas-run", "--listen-ip", "0.0.0.0", "--listen-port", "5000"),
    ports=("5000/tcp",),
)
_WORKS = "import deepaas, horovod.torch, torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"


def fetch_horovod_image() -> Path:
    """Return the OCI layout; built now (some 30 s, beside Horovod itself) when it is not in the cache.

    Nobody may write into it: it shares blobs with other layouts by hard links.
    """
    horovod, below = fetch_horovod(), fetch_module_images()["digits"]
    recipe = Path(__file__).read_bytes() + example_content(EXAMPLE) + f"{below} {horovod}".encode()
    done = cache_dir() / f"horovod-image-{hashlib.sha256(recipe).hexdigest()[:10]}"
    with locked(cache_dir() / "horovod-image.lock", timeout=900):
        if not done.is_dir():
            for stale in cache_dir().glob("building-image-*"):
                call(["rm", "-rf", "--one-file-system", str(stale)], timeout=120)
            building = Path(tempfile.mkdtemp(prefix="building-image-", dir=cache_dir()))
            _build(building, below, horovod)
            (building / "done").rename(done)
            call(["rm", "-rf", "--one-file-system", str(building)], timeout=120)
    return done / EXAMPLE.name


def _build(building: Path, below: Path, horovod: Path) -> None:
    """Build the image: `building`/done is what to keep."""
    tree, store, stamp = building / "tree", building / "store", building / "stamp"
    tree.mkdir()
    (store / "blobs" / "sha256").mkdir(parents=True)
    layers = load_layers(below)[:2]  # Debian with Python, and DEEPaaS
    for layer in layers:
        blob = below / "blobs" / "sha256" / layer.blob
        (store / "blobs" / "sha256" / layer.blob).hardlink_to(blob)
        call(["tar", "-C", str(tree), "-xpzf", str(blob)], timeout=120)
    stamp.touch()
    _copy_torch(fetch_rootfs(_RELEASE), tree)
    layers.append(pack_layer(store, tree, "PyTorch of Debian", newer_than=stamp))
    stamp.touch()
    shutil.copytree(horovod, tree / _PACKAGES, dirs_exist_ok=True)
    put_wheels(tree, fetch_module_wheels())
    put_wheels(tree, fetch_wheels(WHEELS, RECIPES[_RELEASE].python))
    pip_in_tree(tree, *WHEELS)
    run_in_tree(tree, "python3", "-c", _WORKS)
    layers.append(pack_layer(store, tree, "Horovod, Pillow, pytest", newer_than=stamp))
    stamp.touch()
    copy_example(tree, EXAMPLE)
    pip_in_tree(tree, "--no-build-isolation", "--no-deps", "--editable", f"/srv/{EXAMPLE.name}")
    layers.append(pack_layer(store, tree, "the module", newer_than=stamp))
    assemble(store, building / "done" / EXAMPLE.name, layers, _CONFIG)


def _copy_torch(rootfs: Path, tree: Path) -> None:
    """Copy what `_IMPORTED` names, and the libraries below it that the tree lacks; times stay as they are."""
    wanted = [f"{_PACKAGES}/{name}" for name in _IMPORTED]
    wanted += sorted({library for library in _libraries(rootfs) if not (tree / library).exists()})
    excluded = [f"--exclude={_PACKAGES}/{pattern}" for pattern in _NEEDLESS]
    read = ["tar", "-C", str(rootfs), *excluded, "-cf", "-", *wanted]
    with subprocess.Popen(read, stdout=subprocess.PIPE) as reading:
        subprocess.run(["tar", "-C", str(tree), "-xpf", "-"], stdin=reading.stdout, check=True, timeout=120)
    assert reading.returncode == 0


def _libraries(rootfs: Path) -> Iterator[str]:
    """Yield the libraries of PyTorch and all that they load, links and what they lead to, by their paths in there."""
    packages = rootfs / _PACKAGES
    own = [f"/{path.relative_to(rootfs)}" for pattern in _LINKED for path in packages.glob(pattern)]
    said = call(["chroot", str(rootfs), "/usr/bin/ldd", *own], timeout=120).stdout
    loaded = [words[2] for words in map(str.split, said.splitlines()) if words[1:2] == ["=>"]]
    for name in (*own, *loaded):
        path = rootfs / name.lstrip("/")
        while (here := path.parent.resolve() / path.name).is_relative_to(rootfs):
            yield str(here.relative_to(rootfs))
            if not here.is_symlink():
                break
            target = here.readlink()
            path = rootfs / target.relative_to("/") if target.is_absolute() else here.parent / target


if __name__ == "__main__":
    print(fetch_horovod_image())
