"""A set of machines that come up and go down together, and commands on them as one of their users."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .host import PATH, HarnessError, call, children, locked, send, wait_for
from .layout import NETWORK, Layout, render_slurm_conf, slurm_parameters
from .machine import Machine, cgroup_controllers, make_network, remove_leftovers
from .prepare import prepare_state
from .rootfs import RECIPES, fetch_rootfs

Command = str | Sequence[str]


class Process:
    """A command running on a machine, with the pid of the command itself (not of what brought it there)."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        found: list[int] = []

        def started() -> bool:
            found[:] = children(popen.pid)
            return bool(found) or popen.poll() is not None

        wait_for(f"start of {popen.args!r}", started, timeout=60, every=0.005)
        self.pid = found[0] if found else None

    def send(self, number: signal.Signals) -> None:
        """Signal the command; nothing happens when it has ended."""
        if self.pid is not None and self.popen.poll() is None:
            send(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the command and reap it; its output stays readable."""
        self.send(signal.SIGKILL)
        self.popen.wait(timeout=60)

    def wait(self, timeout: float = 900) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        return self.popen.wait(timeout=timeout)

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        return self.popen.communicate(timeout=timeout)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Box:
    """The machines of one cluster.

    Parameters
    ----------
    layout
        Which machines there are.
    state
        The folder that holds everything the cluster keeps; removed by `down`.
    tethered
        Let the kernel end the machines when this process dies, however it dies.
    """

    def __init__(self, layout: Layout, state: Path, *, tethered: bool) -> None:
        self.layout = layout
        self.state = state.resolve()
        self.tethered = tethered
        self.prefix = "dh" + hashlib.sha256(str(self.state).encode()).hexdigest()[:5]
        self.confined = bool(cgroup_controllers()) and not layout.one_machine
        self.parameters = slurm_parameters(layout, confined=self.confined)
        self.machines = {
            name: Machine(name, layout.address_of(name), self.prefix, self.state) for name in layout.machines
        }

    @property
    def rootfs(self) -> Path:
        """The root file system under every machine; never written to."""
        return fetch_rootfs(self.layout.rootfs)

    @property
    def python(self) -> str:
        """The Python release on the machines, as `3.13`."""
        return RECIPES[self.layout.rootfs].python

    @property
    def ssh_config(self) -> Path:
        """`ssh -F THIS login` logs in as alice from the host (root)."""
        return self.state / "ssh_config"

    @contextlib.contextmanager
    def claimed(self, *, timeout: float = 0) -> Iterator[None]:
        """Hold this state folder for as long as the context lasts; a second session is told who holds it."""
        with locked(self.state.with_name(self.state.name + ".lock"), timeout=timeout):
            yield

    def up(self) -> None:
        """Start a new, empty cluster, ending whatever an earlier session left here; ready when it returns."""
        rootfs = self.rootfs
        self.down()
        self.state.mkdir(parents=True)
        prepare_state(self.state, rootfs, self.layout, prefix=self.prefix, confined=self.confined)
        self.write_slurm_conf()
        call(["mount", "--bind", str(self.state / "shared"), str(self.state / "shared")])
        call(["mount", "--make-shared", str(self.state / "shared")])
        make_network(self.prefix, f"{NETWORK}.254")
        for name in self.layout.machines:
            self.switch_on(name)

    def down(self) -> None:
        """End every machine and remove the state folder; nothing to do when there is none."""
        for machine in self.machines.values():
            machine.switch_off()
        remove_leftovers(self.prefix, self.layout.machines)
        shared = self.state / "shared"
        for _ in range(20):
            if str(shared) not in Path("/proc/self/mounts").read_text():
                break
            call(["umount", "--recursive", "--lazy", str(shared)], check=False)
        call(["rm", "-rf", "--one-file-system", str(self.state)], timeout=120)

    def is_up(self) -> bool:
        """Whether every machine runs."""
        return all(machine.handle() for machine in self.machines.values())

    def switch_on(self, name: str) -> None:
        """Start one machine; returns before its daemons are ready."""
        settings = {
            "ROOTFS": str(self.rootfs),
            "ROLES": "controller" if name == self.layout.controller else "member",
            "SLURM_NODES": " ".join(self.layout.slurm_nodes_of(name)),
            "GPUS": str(self.layout.gpus),
        }
        self.machines[name].switch_on(settings, tethered=self.tethered)

    def write_slurm_conf(self) -> None:
        """Write slurm.conf from the present parameters; every machine sees it, no daemon is told."""
        target = self.state / "slurm" / "slurm.conf"
        fresh = target.with_suffix(".new")
        fresh.write_text(render_slurm_conf(self.layout, self.parameters))
        fresh.chmod(0o644)
        fresh.rename(target)

    def home(self, user: str) -> Path:
        """A user's home as the machines see it."""
        return Path("/root") if user == "root" else Path("/home") / user

    def on_host(self, path: str | Path) -> Path:
        """Where the host finds a file of the shared /home or /scratch."""
        return self.state / "shared" / Path(path).relative_to("/")

    def argv(
        self,
        command: Command,
        *,
        user: str = "alice",
        node: str = "login",
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        limit_s: float | None = None,
    ) -> list[str]:
        """The host's words that run a command as a user, with a login's environment, in the user's home.

        A command given as one string is a bash script. With `limit_s` the machine itself ends it after that time.
        """
        home = self.home(user)
        words = ["bash", "-c", command] if isinstance(command, str) else list(command)
        identity = ["--reuid", user, "--regid", user, "--init-groups"]
        path = PATH if user == "root" else f"{home}/deephpc-venv/bin:/usr/local/bin:/usr/bin:/bin"
        surroundings = {
            "PATH": path,
            "HOME": str(home),
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            **(env or {}),
        }
        return [
            *self.machines[self.layout.machine_of(node)].enter_argv(),
            *([] if user == "root" else ["setpriv", *identity]),
            *("env", "-i", f"--chdir={cwd or home}", *(f"{name}={value}" for name, value in surroundings.items())),
            *(["timeout", "--kill-after=2", f"{limit_s:g}"] if limit_s else []),
            *words,
        ]

    def run(
        self,
        command: Command,
        *,
        user: str = "alice",
        node: str = "login",
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float = 900,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as a user on a machine.

        Raises
        ------
        HarnessError
            With its output, when it fails and `check` is on.
        subprocess.TimeoutExpired
            When it had to be ended after `timeout` seconds.
        """
        argv = self.argv(command, user=user, node=node, env=env, cwd=cwd, limit_s=timeout)
        return self._finish(argv, command, stdin=stdin, timeout=timeout, check=check)

    def root(
        self, command: Command, *, node: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, on the controller unless told otherwise."""
        return self.run(command, user="root", node=node or self.layout.controller, timeout=timeout, check=check)

    def ssh(
        self,
        command: str,
        *,
        user: str = "alice",
        node: str = "login",
        stdin: str | None = None,
        timeout: float = 900,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command over a real ssh connection from the host."""
        argv = ["timeout", "--kill-after=2", f"{timeout:g}", *self.ssh_argv(command, user=user, node=node)]
        return self._finish(argv, command, stdin=stdin, timeout=timeout, check=check)

    def ssh_argv(self, *words: str, user: str = "alice", node: str = "login") -> list[str]:
        """The host's words for an ssh connection; options of ssh may come first among `words` only as a command."""
        return ["ssh", "-F", str(self.ssh_config), "-l", user, self.layout.machine_of(node), *words]

    def popen(
        self,
        command: Command,
        *,
        user: str = "alice",
        node: str = "login",
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Process:
        """Start a command as a user on a machine and return at once; leaving the `with` block kills it."""
        argv = self.argv(command, user=user, node=node, env=env, cwd=cwd)
        return Process(subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, text=True))

    def _finish(
        self, argv: list[str], command: Command, *, stdin: str | None, timeout: float, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Carry out a command whose own words hold the deadline; ours comes a little later, as a last resort."""
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        limits: dict[str, Any] = {"timeout": timeout + 10, "env": {"PATH": PATH}}
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, **limits, **source)
        if done.returncode in (124, 137) and time.monotonic() - began >= timeout:
            raise subprocess.TimeoutExpired(argv, timeout, done.stdout, done.stderr)
        if check and done.returncode != 0:
            said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}".strip()
            raise HarnessError(f"{command!r}: exit {done.returncode}: {said}")
        return done
