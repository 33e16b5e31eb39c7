"""The two test clusters as values: which machines there are, what runs on each, and every configuration file's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NETWORK = "10.77.0"
CONTROLLER_DAEMONS = ("mariadbd", "slurmdbd", "slurmctld")
USERS: Mapping[str, int] = {"alice": 2001, "bob": 2002}
SHARED_GROUP = ("proj", 2100)


@dataclass(frozen=True)
class Layout:
    """One kind of cluster.

    `one_machine` runs every daemon on the login machine, several slurmd side by side (quick, no power cuts);
    otherwise login, controller and every compute node are machines of their own.
    """

    rootfs: str
    nodes: int
    one_machine: bool = False
    cpus: int = 8
    memory_mib: int = 6000
    gpus: int = 4
    threads: int = 1
    """Hardware threads of a core; a CPU of Slurm's is a thread then."""

    @property
    def computes(self) -> tuple[str, ...]:
        """The names Slurm has for the compute nodes."""
        return tuple(f"c{number}" for number in range(1, self.nodes + 1))

    @property
    def controller(self) -> str:
        """The machine of slurmctld, slurmdbd and the database."""
        return "login" if self.one_machine else "ctl"

    @property
    def machines(self) -> tuple[str, ...]:
        """Every machine, the controller first."""
        return ("login",) if self.one_machine else ("ctl", "login", *self.computes)

    def machine_of(self, node: str) -> str:
        """The machine on which a node's daemons run."""
        if node in self.machines:
            return node
        if node == "ctl" or node in self.computes:
            return "login"
        raise KeyError(f"no machine or node called {node}; there are {', '.join((*self.machines, *self.computes))}")

    def slurm_nodes_of(self, machine: str) -> tuple[str, ...]:
        """The Slurm nodes whose slurmd run on a machine."""
        if self.one_machine:
            return self.computes
        return (machine,) if machine in self.computes else ()

    def address_of(self, machine: str) -> str:
        """The IPv4 address of a machine on the cluster's own network."""
        return f"{NETWORK}.{self.machines.index(machine) + 1}"


RICH = Layout(rootfs="trixie", nodes=3)
CHEAP = Layout(rootfs="bookworm", nodes=4, one_machine=True)


def slurm_parameters(layout: Layout, *, confined: bool) -> dict[str, str]:
    """The parameters of slurm.conf, without its node and partition lines.

    `confined` puts tasks into cgroups with memory limits and device lists; without it only the accounting poll watches.
    """
    if confined:
        tasks = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup"}
        gather = {"JobAcctGatherType": "jobacct_gather/cgroup"}
    else:
        tasks = {"ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none"}
        gather = {"JobAcctGatherType": "jobacct_gather/linux", "JobAcctGatherParams": "OverMemoryKill"}
    return {
        "ClusterName": "box",
        "SlurmctldHost": layout.controller,
        "SlurmUser": "slurm",
        "AuthType": "auth/munge",
        "AuthInfo": "cred_expire=10",  # a requeue waits this long, 120 s by default
        "MpiDefault": "none",
        "StateSaveLocation": "/var/spool/slurmctld",
        "SlurmdSpoolDir": "/var/spool/slurmd/%n",
        "SlurmctldPidFile": "/run/slurm/slurmctld.pid",
        "SlurmdPidFile": "/run/slurm/slurmd-%n.pid",
        "SlurmctldLogFile": "/var/log/slurm/slurmctld.log",
        "SlurmdLogFile": "/var/log/slurm/slurmd-%n.log",
        **tasks,
        **gather,
        "JobAcctGatherFrequency": "task=1",
        "ReturnToService": "2",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "600",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=5,bf_interval=5,sched_min_interval=0,batch_sched_delay=0,"
        "default_queue_depth=1000,max_array_tasks=20000",
        "MaxArraySize": "20001",
        "MaxJobCount": "50000",
        "MinJobAge": "300",
        "KillWait": "5",
        "UnkillableStepTimeout": "60",
        "SlurmdTimeout": "15",
        "SlurmctldTimeout": "30",
        "MessageTimeout": "10",
        "JobRequeue": "1",
        "GresTypes": "gpu",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": layout.controller,
        "AccountingStorageTRES": "gres/gpu",
        "AccountingStorageEnforce": "associations,limits,qos",
    }


def render_slurm_conf(layout: Layout, parameters: Mapping[str, str]) -> str:
    """The whole slurm.conf."""
    last = layout.nodes
    where = f" NodeHostname=login NodeAddr=login Port=[17001-{17000 + last}]" if layout.one_machine else ""
    per_socket = f" CoresPerSocket={layout.cpus // layout.threads} ThreadsPerCore={layout.threads}"
    cores = per_socket if layout.threads > 1 else ""
    lines = [f"{name}={value}" for name, value in parameters.items()]
    lines += [
        f"NodeName=c[1-{last}]{where} CPUs={layout.cpus}{cores} RealMemory={layout.memory_mib} "
        f"Gres=gpu:a100:{layout.gpus} State=UNKNOWN",
        "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10:00 State=UP",
        "PartitionName=short Nodes=ALL MaxTime=5:00 DefaultTime=1:00 State=UP",
        f"PartitionName=gpu Nodes=c[1-{min(2, last)}] MaxTime=1-00:00:00 DefaultTime=10:00 State=UP",
    ]
    return "\n".join(lines) + "\n"


def render_gres_conf(layout: Layout) -> str:
    """The whole gres.conf: device files, since a bare count leaves the nodes invalid."""
    return f"NodeName=c[1-{layout.nodes}] Name=gpu Type=a100 File=/dev/nvidia[0-{layout.gpus - 1}]\n"


def render_cgroup_conf(layout: Layout, *, confined: bool) -> str:
    """The whole cgroup.conf."""
    if not confined:  # 22.05 cannot say "none" and fails where it finds none; v1 is only looked for when it is used
        return "CgroupPlugin=cgroup/v1\n" if layout.rootfs == "bookworm" else "CgroupPlugin=disabled\n"
    return (
        "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"
        "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\nConstrainDevices=yes\nConstrainCores=no\n"
    )


def render_slurmdbd_conf(layout: Layout) -> str:
    """The whole slurmdbd.conf."""
    return (
        f"AuthType=auth/munge\nDbdHost={layout.controller}\nSlurmUser=slurm\n"
        "LogFile=/var/log/slurm/slurmdbd.log\nPidFile=/run/slurm/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
        "StorageUser=slurm\nStoragePass=slurmpw\nStorageLoc=slurm_acct_db\n"
    )


def render_hosts(layout: Layout) -> str:
    """The machines' /etc/hosts; the controller answers to `ctl` on both kinds of cluster."""
    lines = ["127.0.0.1 localhost"]
    for machine in layout.machines:
        alias = " ctl" if layout.one_machine else ""
        lines.append(f"{layout.address_of(machine)} {machine}{alias}")
    return "\n".join(lines) + "\n"


SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
AcceptEnv LANG LC_*
UseDNS no
MaxStartups 100
MaxSessions 100
Banner /etc/ssh/banner
Subsystem sftp internal-sftp
"""

SSH_BANNER = "Authorized use only. All that you do is seen.\n"

CLIENT_CONFIG = """\
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


def render_ssh_config(layout: Layout, *, enter_network: str, key: str) -> str:
    """What `ssh -F` on the host needs to log in; only the TCP connection enters the cluster's network.

    `key` may hold `%r`, which ssh replaces with the user's name.
    """
    blocks = [
        f"Host *\n  User alice\n  IdentityFile {key}\n  IdentitiesOnly yes\n  ServerAliveInterval 15\n"
        + "".join(f"  {line}\n" for line in CLIENT_CONFIG.splitlines())
        + f"  ProxyCommand {enter_network} nc %h %p\n"
    ]
    hosts = [f"Host {machine}\n  HostName {layout.address_of(machine)}\n" for machine in layout.machines]
    return "".join([*hosts, *blocks])
