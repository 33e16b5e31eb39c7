"""The Slurm cluster on the machines: its readiness, its configuration, and every fault a test may want."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .box import Box
from .host import HarnessError, call, end, in_namespace_of, send, wait_for
from .layout import CONTROLLER_DAEMONS, USERS

UP_STATES = ("IDLE", "MIXED", "ALLOCATED", "COMPLETING")


class Cluster(Box):
    """A real Slurm cluster with two ordinary users, `alice` and `bob`, and faults as methods."""

    def up(self) -> None:
        """Start a new, empty cluster; every node is idle when it returns."""
        super().up()
        ready = ["ssh", "-F", str(self.ssh_config), "-n", "login", "true"]
        wait_for("ssh to login", lambda: call(["timeout", "5", *ready], check=False).returncode == 0, timeout=60)
        self.wait_idle(timeout=90)

    # what Slurm says

    def node_states(self) -> dict[str, str]:
        """Each node's state as sinfo reports it (`IDLE`, `DOWN*`); nothing when the controller does not answer."""
        told = self.root("timeout 5 sinfo -h -N -p debug -O NodeList:30,StateLong:30", check=False)
        if told.returncode != 0:
            return {}
        return {words[0]: words[1].upper() for words in map(str.split, told.stdout.splitlines()) if len(words) == 2}

    def wait_state(self, node: str, *prefixes: str, timeout: float = 60) -> None:
        """Wait until a node's state begins with one of some words, as `DOWN` or `IDLE`."""
        wait_for(
            f"{node} {'/'.join(prefixes)}",
            lambda: self.node_states().get(node, "").startswith(tuple(prefixes)),
            timeout=timeout,
        )

    def wait_idle(self, nodes: Sequence[str] | None = None, *, timeout: float = 60) -> None:
        """Wait until nodes (all of them by default) are idle and answer."""
        wanted = tuple(nodes or self.layout.computes)

        def idle() -> bool:
            states = self.node_states()
            return all(states.get(node) == "IDLE" for node in wanted)

        try:
            wait_for(f"idle nodes {', '.join(wanted)}", idle, timeout=timeout)
        except HarnessError as error:
            raise HarnessError(f"{error}; they are {self.node_states()}; logs under {self.state}") from error

    # configuration

    def slurm_conf(self, **changes: str | None) -> None:
        """Change parameters of slurm.conf (None removes one) and restart the controller with them."""
        for name, value in changes.items():
            if value is None:
                self.parameters.pop(name, None)
            else:
                self.parameters[name] = value
        self.stop_daemon("slurmctld")
        self.write_slurm_conf()
        self.start_daemon("slurmctld")

    @contextlib.contextmanager
    def configured(self, **changes: str | None) -> Iterator[None]:
        """Change parameters of slurm.conf for a while; what they were comes back."""
        before = {name: self.parameters.get(name) for name in changes}
        self.slurm_conf(**changes)
        try:
            yield
        finally:
            self.slurm_conf(**before)

    @contextlib.contextmanager
    def without_accounting(self) -> Iterator[None]:
        """Have a cluster without slurmdbd for a while, as many sites are."""
        gone = [name for name in self.parameters if name.startswith("AccountingStorage")]
        with self.configured(**dict.fromkeys(gone)):
            self.stop_daemon("slurmdbd")
            try:
                yield
            finally:
                self.start_daemon("slurmdbd")

    @contextlib.contextmanager
    def policy(self, lua: str, **changes: str | None) -> Iterator[None]:
        """Have a site's job_submit.lua look at every job for a while."""
        (self.state / "slurm" / "job_submit.lua").write_text(lua)
        with self.configured(JobSubmitPlugins="lua", **changes):
            yield

    @contextlib.contextmanager
    def whole_nodes(self, *, threads: int) -> Iterator[None]:
        """Have a cluster that gives whole nodes alone (select/linear), of so many threads a core, for a while."""
        before = self.layout
        with self._nodes_off():
            self.layout = replace(before, threads=threads)
            self.slurm_conf(SelectType="select/linear", SelectTypeParameters="CR_Memory")
        try:
            yield
        finally:
            with self._nodes_off():
                self.layout = before
                self.slurm_conf(SelectType="select/cons_tres", SelectTypeParameters="CR_CPU_Memory")

    @contextlib.contextmanager
    def second(self, name: str, node: str, account: str) -> Iterator[None]:
        """Have a cluster of one machine, taken from the first, under one slurmdbd; it numbers its jobs likewise."""
        changes = {
            "ClusterName=": f"ClusterName={name}",
            "SlurmctldHost=": f"SlurmctldHost={node}",
            "NodeName=c": f"NodeName={node} CPUs={self.layout.cpus} RealMemory={self.layout.memory_mib} State=UNKNOWN",
            "GresTypes=": "",
            "PartitionName=gpu": "",
            "StateSaveLocation=": f"StateSaveLocation=/var/spool/{name}",
            "SlurmdSpoolDir=": f"SlurmdSpoolDir=/var/spool/{name}-slurmd",
        }
        sed = "; ".join(f"s|^{start}.*|{line}|" for start, line in changes.items())
        conf = f"/etc/slurm-{name}/slurm.conf"
        begin = f"""
            mkdir -p /etc/slurm-{name} /var/spool/{name}; chown slurm /var/spool/{name}
            cp /etc/slurm/cgroup.conf /etc/slurm-{name}
            sed '{sed}; s|/run/slurm/|/run/slurm/{name}-|; s|/var/log/slurm/|&{name}-|' /etc/slurm/slurm.conf >{conf}
            echo FirstJobId=$(scontrol show config | sed -n 's/^NEXT_JOB_ID *= //p') >>{conf}
            sacctmgr -iQ add cluster {name}
            sacctmgr -iQ add account {account} cluster={name}
            sacctmgr -iQ add user alice account={account} cluster={name}
            export SLURM_CONF={conf}
            runuser -u slurm -- slurmctld -f {conf} && slurmd -f {conf} -N {node}
        """
        with self.stopped("slurmd", node):
            self.root(["bash", "-c", begin], node=node)
            ready = f"timeout 5 sinfo -M {name} -h -o %t | grep -q idle"
            wait_for(f"cluster {name}", lambda: self.root(ready, check=False).returncode == 0, timeout=60)
            try:
                yield
            finally:
                for daemon in ("slurmd", "slurmctld"):
                    self.stop_daemon(daemon, node)
                self.root(f"sacctmgr -iQ delete cluster {name}")

    def purge_jobs(self, *, timeout: float = 60) -> None:
        """Make Slurm's controller forget every finished job, as MinJobAge does in time."""
        with self.configured(MinJobAge="2"):
            finished = "timeout 10 squeue -h -t all -o %T | grep -vcE '^(PENDING|RUNNING|SUSPENDED|COMPLETING)$'"
            wait_for(
                "forgetting of finished jobs",
                lambda: self.root(finished, check=False).stdout.strip() == "0",
                timeout=timeout,
                every=0.5,
            )

    # daemons

    def daemon_pids(self, daemon: str, node: str | None = None) -> list[int]:
        """The host's pids of a daemon's processes on a node's machine; `slurmd` by its own node name."""
        place = node or self._place_of(daemon)
        init = self.machines[self.layout.machine_of(place)].init()
        pids = [pid for pid, name in in_namespace_of(init).items() if name == daemon[:15]]
        if daemon != "slurmd":
            return pids
        mark = f"-N\0{place}\0".encode()
        return [pid for pid in pids if mark in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def freeze(self, daemon: str, node: str | None = None) -> None:
        """Stop a daemon with SIGSTOP: it holds its port and its connections and answers nobody."""
        self._signal(daemon, node, signal.SIGSTOP)

    def thaw(self, daemon: str, node: str | None = None) -> None:
        """Let a frozen daemon go on."""
        self._signal(daemon, node, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self, daemon: str, node: str | None = None) -> Iterator[None]:
        """Have a daemon frozen for a while."""
        self.freeze(daemon, node)
        try:
            yield
        finally:
            self.thaw(daemon, node)

    def stop_daemon(self, daemon: str, node: str | None = None) -> None:
        """End a daemon (TERM, KILL after 5 s): its port refuses connections."""
        pids = self.daemon_pids(daemon, node)
        for pid in pids:
            send(pid, signal.SIGCONT)
        end(pids, grace=5)

    def start_daemon(self, daemon: str, node: str | None = None) -> None:
        """Start a stopped daemon and wait until it serves."""
        place = node or self._place_of(daemon)
        if not self.daemon_pids(daemon, place):
            request = f"start {daemon} {place}" if daemon == "slurmd" else f"start {daemon}"
            self.root(f"echo {request} >/run/box.requests", node=place)
        checks = {
            "slurmctld": "timeout 5 scontrol ping | grep -q 'is UP'",
            "slurmdbd": ": </dev/tcp/localhost/6819",
            "mariadbd": "mariadb-admin --no-defaults -uroot -S /run/mysqld/mysqld.sock ping",
            "munged": "munge -n",
        }
        check = checks.get(daemon, "true")
        wait_for(f"{daemon} on {place}", lambda: self.root(check, node=place, check=False).returncode == 0, timeout=60)

    @contextlib.contextmanager
    def stopped(self, daemon: str, node: str | None = None) -> Iterator[None]:
        """Have a daemon dead for a while."""
        self.stop_daemon(daemon, node)
        try:
            yield
        finally:
            self.start_daemon(daemon, node)

    # machines

    def power_off(self, node: str) -> None:
        """Cut a machine's power: every process on it dies at once; Slurm notices after about 25 s."""
        self._own_machine(node, "its power cannot be cut; stop_daemon('slurmd', node) is the nearest")
        self.machines[node].switch_off()

    def power_on(self, node: str, *, timeout: float = 60) -> None:
        """Start a machine that was off; a compute node is back in Slurm when this returns."""
        self._own_machine(node, "it is never off")
        if self.machines[node].handle() is None:
            self.switch_on(node)
        if node in self.layout.computes:
            wait_for(f"{node} back in Slurm", lambda: self.node_states().get(node) in UP_STATES, timeout=timeout)

    def cut_cable(self, node: str) -> None:
        """Take a machine off the network; what runs on it goes on."""
        self._set_cable(node, "down")

    def mend_cable(self, node: str) -> None:
        """Put a machine back on the network."""
        self._set_cable(node, "up")

    @contextlib.contextmanager
    def cable_cut(self, node: str) -> Iterator[None]:
        """Have a machine off the network for a while."""
        self.cut_cable(node)
        try:
            yield
        finally:
            self.mend_cable(node)

    # disks

    @contextlib.contextmanager
    def small_disk(self, path: str, size: str = "1m", *, user: str = "alice", node: str = "login") -> Iterator[None]:
        """Have a file system of its own, so small that it fills, at a path for a while.

        Below /home and /scratch it is one disk that every machine sees; elsewhere it is the node's alone.
        What the path held is hidden meanwhile; what was written on the small disk is lost.
        """
        options = f"size={size},uid={USERS.get(user, 0)},gid={USERS.get(user, 0)},mode=755"
        if Path(path).parts[1] in ("home", "scratch"):
            self.run(["mkdir", "-p", path], user=user, node=node, cwd="/")
            place = self.on_host(path)
            call(["mount", "-t", "tmpfs", "-o", options, "small", str(place)])
            try:
                yield
            finally:
                call(["umount", "--lazy", str(place)])
            return
        self.root(f"mkdir -p {path} && mount -t tmpfs -o {options} small {path}", node=node)
        try:
            yield
        finally:
            self.root(["umount", "--lazy", path], node=node)

    @contextlib.contextmanager
    def full_disk(self, path: str, *, user: str = "alice", node: str = "login") -> Iterator[None]:
        """Have a file system at a path that has not one byte left, for a while."""
        with self.small_disk(path, "64k", user=user, node=node):
            self.root(f"cat /dev/zero >{path}/.filler", node=node, check=False)
            yield

    @contextlib.contextmanager
    def read_only(self, path: str) -> Iterator[None]:
        """Have an existing folder that nobody on any machine can write to, for a while."""
        nodes = [name for name, machine in self.machines.items() if machine.handle()]
        for node in nodes:
            self.root(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}", node=node)
        try:
            yield
        finally:
            for node in nodes:
                self.root(["umount", "--lazy", path], node=node)

    # between tests

    def calm(self) -> None:
        """Undo what a test may have left: frozen or dead daemons, cut cables, machines off, jobs in the queue."""
        for machine in self.layout.machines:
            if self.machines[machine].handle() is None:
                self.switch_on(machine)
            self._set_cable(machine, "up")
        for daemon in CONTROLLER_DAEMONS:
            self.thaw(daemon)
            self.start_daemon(daemon)
        for node in self.layout.computes:
            self.thaw("slurmd", node)
            self.start_daemon("slurmd", node)
        for user in USERS:  # scancel takes one user
            self.root(["timeout", "10", "scancel", "-u", user], check=False)
        bad = "timeout 5 sinfo -h -N -p debug -t drain,down -o %N"
        self.root(f"for node in $({bad}); do timeout 5 scontrol update nodename=$node state=resume; done", check=False)
        self.wait_idle(timeout=90)

    # private

    @contextlib.contextmanager
    def _nodes_off(self) -> Iterator[None]:
        """Have no slurmd for a moment; they read the new configuration as they start."""
        for node in self.layout.computes:
            self.stop_daemon("slurmd", node)
        try:
            yield
        finally:
            for node in self.layout.computes:
                self.start_daemon("slurmd", node)
            self.wait_idle()

    def _place_of(self, daemon: str) -> str:
        """Where a daemon runs when nobody says."""
        if daemon in CONTROLLER_DAEMONS:
            return self.layout.controller
        raise HarnessError(f"say on which node: {daemon} runs on several")

    def _signal(self, daemon: str, node: str | None, number: signal.Signals) -> None:
        """Send a signal to each process of a daemon."""
        for pid in self.daemon_pids(daemon, node):
            send(pid, number)

    def _own_machine(self, node: str, otherwise: str) -> None:
        """Refuse what only a node that is a machine of its own can have."""
        if node not in self.machines or self.layout.one_machine:
            raise HarnessError(f"{node} shares one machine with the whole cluster: {otherwise}")

    def _set_cable(self, node: str, state: str) -> None:
        """Plug a machine's cable in or out, at the bridge."""
        machine = self.machines[self.layout.machine_of(node)]
        call(["ip", "-n", f"{self.prefix}net", "link", "set", machine.cable, state])
