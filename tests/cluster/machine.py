"""One machine of a test cluster: name spaces, a root of its own, a cable to the bridge; on and off by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .host import PATH, HarnessError, alive, call, children, send, wait_for

CGROUP_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "freezer", "cpuset", "devices", "pids", "cpu", "cpuacct")


def cgroup_controllers() -> tuple[str, ...]:
    """The cgroup v1 hierarchies a machine gets; none where the host lacks one that Slurm needs (pure cgroup v2)."""
    if os.environ.get("DEEPHPC_TEST_CGROUP") == "none":
        return ()
    there = tuple(name for name in CONTROLLERS if (CGROUP_ROOT / name / "tasks").exists())
    needed = {"memory", "freezer", "cpuset", "devices", "cpuacct"}
    return there if needed <= set(there) else ()


@dataclass(frozen=True)
class Machine:
    """The names and places that belong to one machine.

    `prefix` begins the name of every network name space and control group of this cluster.
    """

    name: str
    address: str
    prefix: str
    state: Path

    @property
    def netns(self) -> str:
        """Its network name space."""
        return f"{self.prefix}-{self.name}"

    @property
    def cable(self) -> str:
        """The bridge's end of its cable."""
        return f"v-{self.name}"

    @property
    def pid_file(self) -> Path:
        """Holds the pid of the process whose end ends the machine."""
        return self.state / "run" / f"{self.name}.pid"

    def handle(self) -> int | None:
        """The running process that owns the machine, or None; a recycled pid is not taken for it."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if alive(pid) and str(self.state / "inside").encode() in command else None

    def init(self) -> int:
        """The host's pid of the machine's PID 1."""
        handle = self.handle()
        below = children(handle) if handle else []
        if not below:
            raise HarnessError(f"{self.name} is off; its console: {self.console}")
        return below[0]

    @property
    def console(self) -> Path:
        """What the machine said while it started."""
        return self.state / "log" / f"{self.name}.console"

    def connect(self) -> None:
        """Make its network and plug it into the bridge; nothing to do when it has one."""
        if Path(f"/run/netns/{self.netns}").exists():
            return
        call(["ip", "netns", "add", self.netns])
        bridge, own = ["ip", "-n", f"{self.prefix}net"], ["ip", "-n", self.netns]
        call([*bridge, "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.netns])
        call([*bridge, "link", "set", self.cable, "master", "br0", "up"])
        call([*own, "addr", "add", f"{self.address}/24", "dev", "eth0"])
        call([*own, "link", "set", "eth0", "up"])
        call([*own, "link", "set", "lo", "up"])

    def switch_on(self, settings: Mapping[str, str], *, tethered: bool) -> None:
        """Start the machine; its disk keeps what it held. Returns at once, its daemons come up by themselves.

        A `tethered` machine is killed by the kernel when this process dies, however it dies.
        """
        self.connect()
        disk = self.state / "nodes" / self.name
        call(["rm", "-rf", str(disk / "work")])
        for folder in ("upper", "work", "merged"):
            (disk / folder).mkdir(parents=True, exist_ok=True)
        controllers = cgroup_controllers()
        joins = [str(self._control_group(controller) / "cgroup.procs") for controller in controllers]
        join = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'
        isolation = ["-m", "-u", "-i", "-p", "--fork", "--kill-child=SIGKILL", "--propagation", "slave"]
        if controllers:
            isolation.append("--cgroup")
        argv = [
            *(["setpriv", "--pdeathsig", "KILL"] if tethered else []),
            *("bash", "-c", join, "join", *joins, "--"),
            *("nsenter", f"--net=/run/netns/{self.netns}"),
            *("unshare", *isolation),
            *("bash", str(self.state / "inside" / "boot.sh")),
        ]
        own = {"MACHINE": self.name, "STATE": str(self.state), "CGROUPS": " ".join(controllers)}
        with self.console.open("ab") as console:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": PATH, **own, **settings},
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))
        _disown(process)
        wait_for(f"start of {self.name} (console: {self.console})", lambda: bool(children(process.pid)), timeout=20)

    def switch_off(self) -> None:
        """Cut the power: every process of the machine is killed, nothing is written back or said goodbye to."""
        handle = self.handle()
        if handle is None:
            return
        pids = [handle, *children(handle)]
        send(handle, signal.SIGKILL)
        wait_for(f"end of {self.name}", lambda: not any(map(alive, pids)), timeout=30, every=0.02)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(handle, os.WNOHANG)
        self.pid_file.unlink(missing_ok=True)

    def enter_argv(self) -> list[str]:
        """The words that run a command inside the machine as its root, without an environment."""
        spaces = ["-m", "-u", "-i", "-n", "-p"] + (["-C"] if cgroup_controllers() else [])
        return ["nsenter", "-t", str(self.init()), *spaces, "-r", "-w"]

    def _control_group(self, controller: str) -> Path:
        """This machine's own group in one hierarchy, made when it is not there."""
        hierarchy = CGROUP_ROOT / controller
        group = hierarchy / self.prefix / self.name
        for level in (group.parent, group):
            level.mkdir(exist_ok=True)
            if controller == "cpuset":
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (level / setting).write_text((hierarchy / setting).read_text())
                (level / "cgroup.clone_children").write_text("1")
        return group


def make_network(prefix: str, gateway: str) -> None:
    """Make the bridge all cables lead to, in a network name space of its own with no way out."""
    name = f"{prefix}net"
    call(["ip", "netns", "add", name])
    for words in (
        ["link", "add", "br0", "type", "bridge"],
        ["addr", "add", f"{gateway}/24", "dev", "br0"],
        ["link", "set", "br0", "up"],
        ["link", "set", "lo", "up"],
    ):
        call(["ip", "-n", name, *words])


def remove_leftovers(prefix: str, machines: Sequence[str]) -> None:
    """Remove the network name spaces and control groups of a cluster that is off."""
    for name in (*(f"{prefix}-{machine}" for machine in machines), f"{prefix}net"):
        if Path(f"/run/netns/{name}").exists():
            call(["ip", "netns", "del", name])
    for controller in CONTROLLERS:
        top = CGROUP_ROOT / controller / prefix
        if top.is_dir():
            wait_for(f"removal of {top}", lambda top=top: _removed(top), timeout=20)  # type: ignore[misc]


def _removed(top: Path) -> bool:
    """Try to remove a tree of control groups; the kernel needs a moment after the last process."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()


def _disown(process: subprocess.Popen[bytes]) -> None:
    """Let a daemon outlive its Popen object without a warning; the pid file is its owner."""
    process.returncode = 0
