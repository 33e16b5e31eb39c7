"""Pack the Python environment that runs this, with a DEEPaaS module in it, as a container image (an OCI layout).

    ENVIRONMENT/bin/python pack_image.py MODULE IMAGE

MODULE is the folder of a module that is installed in the environment; IMAGE is the folder to make. It needs neither
root nor Docker nor a network: every file of the image is a file of this machine, at the same path. It packs the
environment, Python itself, the packages outside the environment that the module imports, the libraries that ldd(1)
names for all of these, and a shell with a few tools. The module lies in `/srv/NAME`, as in images of the catalogue.

The image is as large as what it packs (some 700 MB with PyTorch for CPUs) and runs on machines with a processor and a
kernel like this one's. To publish a module, build its image from its Dockerfile.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import distributions, entry_points
from io import BytesIO
from pathlib import Path
from typing import IO

OCI = "application/vnd.oci.image"
TOOLS = (
    "bash cat chmod cp cut date dirname basename env find grep head hostname id ldconfig ln ls mkdir mktemp mv nproc "
    "readlink rm sed sh sleep sort stat tail tar tee test touch tr true uname wc"
)
FILES = ("/etc/ld.so.cache", "/etc/os-release", "/usr/lib/locale/C.utf8")
TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/group": "root:x:0:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}
FOLDERS = ("/dev", "/proc", "/sys", "/run", "/root", "/home", "/tmp", "/var/tmp")
LATE = ("torch._dynamo", "torch.distributed", "deepaas.cmd.cli", "deepaas.cmd.run")
"""What is imported only when a training or a server is well under way."""
PACKAGES = frozenset({"site-packages", "dist-packages"})
NEEDLESS = frozenset({"test", "tests", "include", "ensurepip", "idlelib", "tkinter", "turtledemo"})
LEFT_BEHIND = frozenset({"__pycache__", "build", "data", "models"})


def main() -> None:
    """Collect the files, write them as a layer, then what describes it."""
    options = parse_options()
    module, image = options.module.resolve(), options.image.resolve()
    if image.exists() and not (image / "oci-layout").exists():
        sys.exit(f"pack_image.py: {image} exists and is not an image")
    served = import_module(module)
    sources = collect(module)
    part = image.with_name(f".{image.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "blobs" / "sha256").mkdir(parents=True)
    digest, size = write_layer(part, sources)
    write_image(part, {"mediaType": f"{OCI}.layer.v1.tar", "digest": digest, "size": size}, config(module, served))
    shutil.rmtree(image, ignore_errors=True)
    part.rename(image)
    print(f"{options.image}: {len(sources)} files, {size / 1e6:.0f} MB")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Pack this Python environment and a DEEPaaS module as an image.")
    parser.add_argument("module", type=Path, help="folder of a module that is installed in this environment")
    parser.add_argument("image", type=Path, help="folder of the image (an OCI layout); replaced if it is one")
    options = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        sys.exit("pack_image.py: run it with the python of a virtual environment in which the module is installed")
    return options


def import_module(module: Path) -> str:
    """Import the module with all it needs, and return the name of its entry point."""
    for point in entry_points(group="deepaas.v2.model"):
        if Path(point.load().__file__).resolve().is_relative_to(module):
            for name in LATE:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            return point.name
    sys.exit(f"pack_image.py: {module} is not installed here; run: {sys.prefix}/bin/pip install -e {module}")


def collect(module: Path) -> dict[Path, Path | None]:
    """Return all paths of the image, each with the file here that it comes from; None for one of our texts."""
    found = Files()
    found.add_tree(Path(sys.prefix))
    for package in packages_outside(module):
        found.add_tree(package, NEEDLESS)
    for name in ("stdlib", "platstdlib"):
        base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
        found.add_tree(Path(sysconfig.get_path(name, vars=base)), NEEDLESS | PACKAGES)
    for tool in map(find_tool, TOOLS.split()):
        found.add_tree(tool)
    found.add(Path("/bin/sh"))
    for name in (*FILES, *libraries(sorted(filter(is_program, found.paths)))):
        found.add_tree(Path(name))
    sources: dict[Path, Path | None] = {path: path for path in found.paths}
    home = Path("/srv", module.name)
    for path in module.rglob("*"):
        inside = path.relative_to(module)
        if not LEFT_BEHIND & set(inside.parts) and ".egg-info" not in str(inside):
            sources[home / inside] = path
    for folder in (*FOLDERS, home / "data", home / "models"):
        sources.setdefault(Path(folder), Path("/"))
    sources.update(dict.fromkeys(map(Path, TEXTS)))
    folders = {parent for path in sources for parent in path.parents}
    return {**dict.fromkeys(folders, Path("/")), **sources}


class Files:
    """The paths that go into an image: links stay links, and what they lead to comes too."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()

    def add(self, path: Path) -> None:
        """Add a path with all links on the way to it."""
        here, rest = Path("/"), list(reversed(path.parts[1:]))
        while rest:
            part = rest.pop()
            if part == "..":
                here = here.parent
                continue
            place = here / part
            self.paths.add(place)
            if place.is_symlink():
                target = place.readlink()
                here = Path("/") if target.is_absolute() else here
                rest += reversed(target.parts[target.is_absolute() :])
            else:
                here = place

    def add_tree(self, top: Path, needless: Collection[str] = ()) -> None:
        """Add a file, or a folder with all in it but folders of some names; nothing where there is nothing."""
        if top.exists():
            self.add(top)
        for place, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name not in needless]
            for name in (*names, *folders):
                path = Path(place, name)
                if path.is_symlink() or os.access(path, os.R_OK):
                    self.add(path)


def packages_outside(module: Path) -> set[Path]:
    """Return what was imported neither from the environment nor from Python's own library, with its metadata."""
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    ours = (Path(sys.prefix).resolve(), module, standard / "lib-dynload")
    places = {Path(place).resolve() for place in sys.path if place} - {standard}
    imported: dict[Path, set[str]] = {}
    for loaded in list(sys.modules.values()):
        file = Path(getattr(loaded, "__file__", None) or "/").resolve()
        place = max(places & set(file.parents), key=lambda each: len(each.parts), default=None)
        if place and not any(file.is_relative_to(each) for each in ours):
            imported.setdefault(place, set()).add(file.relative_to(place).parts[0])
    packages = {place / name for place, names in imported.items() for name in names}
    for place, names in imported.items():
        packages |= set(place.glob("*.pth"))  # setuptools has the old distutils by one
        stems = {name.partition(".")[0] for name in names}
        for each in distributions(path=[str(place)]):
            tops = each.read_text("top_level.txt") or each.metadata["Name"].replace("-", "_")
            if stems & set(tops.split()):
                packages |= set(place.glob(f"{each.metadata['Name'].replace('-', '_')}-{each.version}*-info"))
    return packages


def find_tool(name: str) -> Path:
    """Return where a program lies; one that does not exist where it is not here."""
    return Path(shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") or f"/usr/bin/{name}")


def is_program(path: Path) -> bool:
    """Whether it is a program or a library of the dynamic loader's format."""
    if path.is_symlink() or not path.is_file() or not (".so" in path.name or os.access(path, os.X_OK)):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs: Iterable[Path]) -> set[str]:
    """Return the libraries that programs are loaded with."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    words = (line.partition("=>")[2].split() or line.split() for line in said.splitlines() if " (0x" in line)
    return {found[0] for found in words if found[0].startswith("/")}


def write_layer(image: Path, sources: dict[Path, Path | None]) -> tuple[str, int]:
    """Write all files as one tar and return its digest and size."""
    part = image / "layer.part"
    with part.open("wb") as raw:
        hashing = Hashing(raw)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for member, source in members(sources):
                with source.open("rb") if source and member.isreg() else BytesIO(text_of(member)) as content:
                    archive.addfile(member, content)
    digest = hashing.hash.hexdigest()
    part.rename(image / "blobs" / "sha256" / digest)
    return f"sha256:{digest}", hashing.size


class Hashing:
    """A file that knows the hash and the size of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write."""
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)


def members(sources: dict[Path, Path | None]) -> Iterator[tuple[tarfile.TarInfo, Path | None]]:
    """Yield what the tar has, folders first, all of it root's; times stay, since byte code is valid only with them."""
    for path in sorted(sources.keys() - {Path("/")}):
        source, member = sources[path], tarfile.TarInfo(str(path)[1:])
        if source is None:
            member.size = len(text_of(member))
        elif source.is_symlink():
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(source.readlink()), 0o777
        elif source.is_dir():
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if path.name == "tmp" else 0o755
        elif source.is_file():
            facts = source.stat()
            member.size, member.mtime = facts.st_size, int(facts.st_mtime)
            member.mode = 0o755 if facts.st_mode & 0o111 else 0o644
        else:
            continue
        yield member, source


def text_of(member: tarfile.TarInfo) -> bytes:
    """Return the content of a file of our own."""
    return TEXTS.get(f"/{member.name}", "").encode()


def config(module: Path, served: str) -> dict[str, object]:
    """Return how the image is started: what a module's Dockerfile says of it."""
    home = f"/srv/{module.name}"
    beyond = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    variables = {
        "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": ":".join([home, *beyond]),
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        "DEEPAAS_V2_MODEL": served,
    }
    if "LD_LIBRARY_PATH" in os.environ:
        variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return {
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "WorkingDir": home,
        "Cmd": ["deepaas-run", "--listen-ip", "0.0.0.0", "--listen-port", "5000"],
        "ExposedPorts": {"5000/tcp": {}},
    }


def write_image(image: Path, layer: dict[str, str | int], started: dict[str, object]) -> None:
    """Write what makes an image of a layer (OCI image specification 1.1)."""
    whole = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": started,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", **put_blob(image, whole)},
        "layers": [layer],
    }
    entry = {"mediaType": f"{OCI}.manifest.v1+json", **put_blob(image, manifest)}
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (image / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}), encoding="utf-8")
    (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


def put_blob(image: Path, value: object) -> dict[str, str | int]:
    """Write a JSON document under its digest and return its descriptor."""
    data = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (image / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


if __name__ == "__main__":
    main()
