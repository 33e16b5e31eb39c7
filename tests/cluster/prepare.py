"""Writes a cluster's state folder before its machines start: users, keys, configuration files, shared folders."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from .host import call
from .layout import (
    CLIENT_CONFIG,
    SHARED_GROUP,
    SSH_BANNER,
    SSHD_CONFIG,
    USERS,
    Layout,
    render_cgroup_conf,
    render_gres_conf,
    render_hosts,
    render_slurmdbd_conf,
    render_ssh_config,
)

FOLDERS = (
    *("cfg/etc/ssh", "cfg/etc/munge", "slurm", "shared/home", "shared/scratch"),
    *("db/mysql", "db/slurmctld", "nodes", "run", "log"),
)
BASHRC = 'export PATH="$HOME/deephpc-venv/bin:$PATH"\n'
PROFILE = "[ -f ~/.bashrc ] && . ~/.bashrc\n"


def prepare_state(state: Path, rootfs: Path, layout: Layout, *, prefix: str, confined: bool) -> None:
    """Fill a new state folder; machines see `cfg` as a layer over the root file system and `slurm` as /etc/slurm."""
    for name in FOLDERS:
        (state / name).mkdir(parents=True)
    shutil.copytree(Path(__file__).parent / "inside", state / "inside")
    for folder in (state, *filter(Path.is_dir, state.rglob("*"))):
        folder.chmod(0o755)
    _write_accounts(state / "cfg/etc", rootfs)
    _write_keys(state, rootfs)
    _write_homes(state)
    _write_configuration(state, rootfs, layout, confined=confined)
    enter = f"nsenter --net=/run/netns/{prefix}net {rootfs}/bin/busybox"
    config = render_ssh_config(layout, enter_network=enter, key=str(state / "id_%r"))
    (state / "ssh_config").write_text(config)


def ids_of(rootfs: Path, user: str) -> tuple[int, int]:
    """The user and group number of a system user of the root file system."""
    for line in (rootfs / "etc/passwd").read_text().splitlines():
        words = line.split(":")
        if words[0] == user:
            return int(words[2]), int(words[3])
    raise KeyError(user)


def _write_accounts(etc: Path, rootfs: Path) -> None:
    """Users with numbers of their own, one group they share, no passwords (`*`, since `!` also refuses keys)."""
    for name in ("passwd", "group", "shadow", "gshadow"):
        shutil.copy(rootfs / "etc" / name, etc / name)
    group, number = SHARED_GROUP
    members = ",".join(USERS)
    added = {
        "passwd": [f"{user}:x:{uid}:{uid}:{user}:/home/{user}:/bin/bash\n" for user, uid in USERS.items()],
        "shadow": [f"{user}:*:20000:0:99999:7:::\n" for user in USERS],
        "group": [*(f"{user}:x:{uid}:\n" for user, uid in USERS.items()), f"{group}:x:{number}:{members}\n"],
    }
    for name, lines in added.items():
        with (etc / name).open("a") as table:
            table.writelines(lines)
    for name in ("subuid", "subgid"):  # bob deliberately has none
        (etc / name).write_text("alice:1000000:65536\n")


def _write_keys(state: Path, rootfs: Path) -> None:
    """The machines' one ssh host key, the munge key, and a key pair for each user."""
    ssh = state / "cfg/etc/ssh"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
    call([*make, "-C", "box", "-f", str(ssh / "ssh_host_ed25519_key")])
    (ssh / "sshd_config").write_text(SSHD_CONFIG)
    (ssh / "banner").write_text(SSH_BANNER)
    for user in USERS:
        call([*make, "-C", f"{user}@box", "-f", str(state / f"id_{user}")])
    munge = state / "cfg/etc/munge"
    key = munge / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    munge.chmod(0o700)
    for path in (munge, key):
        os.chown(path, *ids_of(rootfs, "munge"))


def _write_homes(state: Path) -> None:
    """Private homes that can log in to every machine, scratch folders, and one folder for the shared group."""
    scratch = state / "shared/scratch"
    scratch.chmod(0o1777)
    for user, uid in USERS.items():
        home = state / "shared/home" / user
        (home / ".ssh").mkdir(parents=True)
        (home / ".bashrc").write_text(BASHRC)
        (home / ".profile").write_text(PROFILE)
        shutil.copy(state / f"id_{user}.pub", home / ".ssh/authorized_keys")
        shutil.copy(state / f"id_{user}", home / ".ssh/id_ed25519")
        (home / ".ssh/config").write_text(CLIENT_CONFIG)
        (scratch / user).mkdir()
        for path in (home, *home.rglob("*"), scratch / user):
            os.chown(path, uid, uid)
            path.chmod(0o700 if path.is_dir() else 0o600)
        (scratch / user).chmod(0o755)
    group, number = SHARED_GROUP
    (scratch / group).mkdir()
    os.chown(scratch / group, 0, number)
    (scratch / group).chmod(0o2775)


def _write_configuration(state: Path, rootfs: Path, layout: Layout, *, confined: bool) -> None:
    """Everything of Slurm but slurm.conf, which the cluster rewrites, and the names of the machines."""
    etc, slurm = state / "cfg/etc", state / "slurm"
    (etc / "hosts").write_text(render_hosts(layout))
    (etc / "resolv.conf").write_text("")
    (slurm / "gres.conf").write_text(render_gres_conf(layout))
    (slurm / "cgroup.conf").write_text(render_cgroup_conf(layout, confined=confined))
    secret = slurm / "slurmdbd.conf"
    secret.write_text(render_slurmdbd_conf(layout))
    secret.chmod(0o600)
    os.chown(secret, *ids_of(rootfs, "slurm"))
