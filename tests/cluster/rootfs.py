"""Root file systems for the test clusters: built once with mmdebstrap, cached, shared read-only by every node."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .host import PATH, HarnessError, call, locked

SLURM = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurm-wlm-mysql-plugin",
    "munge",
    "mariadb-server",
)
SYSTEM = (
    "openssh-server",
    "openssh-client",
    "iproute2",
    "mount",
    "procps",
    "psmisc",
    "busybox-static",
    "ca-certificates",
    "curl",
    "less",
    "rsync",
    "git",
    "python3",
    "python3-venv",
    "python3-pip",
)
ENGINES = (
    "apptainer",
    "proot",
    "squashfs-tools",
    "squashfuse",
    "fuse-overlayfs",
    "fuse3",
    "runc",
    "crun",
    "uidmap",
    "libfakechroot",
    "patchelf",
    "fakeroot",
)
IMAGE_TOOLS = ("skopeo", "umoci", "docker-registry", "jq")
LEARNING = ("python3-numpy", "python3-sklearn", "python3-torch")
#: Environment Modules, and what Lmod stands on: the packages of both conflict, so Lmod itself lies unpacked in LMOD.
MODULES = ("environment-modules", "lua5.3", "lua-filesystem", "lua-json", "lua-posix", "lua-term", "tcl")
LMOD = "/opt/lmod"
PYSLURM_BUILD = ("libslurm-dev", "gcc", "libc6-dev", "python3-dev", "cython3", "python3-setuptools")


@dataclass(frozen=True)
class Recipe:
    """What goes into one root file system.

    `from_sid` are packages taken from sid because the release's own are too old to be of use; `unpacked` are not
    installed, their files lie in the folder given.
    """

    release: str
    python: str
    packages: tuple[str, ...]
    from_sid: tuple[str, ...] = ()
    unpacked: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """A short hash of everything that decides the content."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:10]


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "trixie": Recipe(
            release="trixie",
            python="3.13",
            packages=(
                *(*SLURM, "slurmrestd", "slurm-wlm-plugins", *SYSTEM),
                *(*ENGINES, *IMAGE_TOOLS, *LEARNING, *MODULES, *PYSLURM_BUILD),
            ),
            unpacked=(("lmod", LMOD),),
            from_sid=("apptainer", "proot"),
        ),
        "bookworm": Recipe(release="bookworm", python="3.11", packages=(*SLURM, *SYSTEM)),
    }
)


def cache_dir() -> Path:
    """Where what is costly to make is kept between sessions (`DEEPHPC_TEST_CACHE`)."""
    return Path(os.environ.get("DEEPHPC_TEST_CACHE") or "/var/tmp/deephpc-tests")


def fetch_rootfs(name: str) -> Path:
    """The folder of a ready root file system; built now (one to three minutes) when it is not in the cache.

    Nobody may write into it: it is the lower layer of every node's overlay.
    """
    recipe = RECIPES[name]
    done = cache_dir() / f"rootfs-{name}-{recipe.key}"
    if done.is_dir():
        return done
    with locked(cache_dir() / f"rootfs-{name}.lock", timeout=900):
        if done.is_dir():
            return done
        for stale in cache_dir().glob(f"building-{name}-*"):
            call(["rm", "-rf", "--one-file-system", str(stale)], timeout=300)
        building = cache_dir() / f"building-{name}-{os.getpid()}"
        call(_mmdebstrap_argv(recipe, building), timeout=1500)
        building.rename(done)
    return done


def mirror() -> str:
    """The Debian mirror this host already uses, asked of apt."""
    listed = call(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).stdout.split()
    plain = [address for address in listed if address.rstrip("/").endswith("/debian")]
    if not plain:
        raise HarnessError("apt knows no Debian mirror; put one into its sources and run apt-get update")
    return plain[0]


def _mmdebstrap_argv(recipe: Recipe, target: Path) -> list[str]:
    """How one root file system is built: no services started, no documentation, no needless fsync."""
    pinned = " ".join(recipe.from_sid)
    preferences = "Package: *\\nPin: release n=sid\\nPin-Priority: 50\\n"
    if pinned:
        preferences += f"\\nPackage: {pinned}\\nPin: release n=sid\\nPin-Priority: 990\\n"
    pins = f'mkdir -p "$1/etc/apt/preferences.d"; printf "{preferences}" >"$1/etc/apt/preferences.d/sid"'
    no_services = 'printf "#!/bin/sh\\nexit 101\\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"'
    dropped = ("doc/*", "man/*", "locale/*", "info/*")
    source = mirror()
    sources = [f"deb {source} {recipe.release} main"]
    if pinned:
        sources.append(f"deb [check-valid-until=no] {source} sid main")
    return [
        *("/usr/bin/env", f"PATH={PATH}"),
        *("unshare", "--mount", "--propagation", "private"),  # a killed build leaves no mount of /dev or /proc behind
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}" for folder in dropped),
        f"--setup-hook={pins}",
        f"--essential-hook={no_services}",
        *(f"--customize-hook={_unpacking(*each)}" for each in recipe.unpacked),
        f"--include={','.join(recipe.packages)}",
        recipe.release,
        str(target),
        *sources,
    ]


def _unpacking(package: str, folder: str) -> str:
    inside = f"cd /tmp && apt-get -qq download {package} && dpkg-deb -x {package}_*.deb {folder} && rm {package}_*.deb"
    return f'chroot "$1" sh -c "{inside}"'
