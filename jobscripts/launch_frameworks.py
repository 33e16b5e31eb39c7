"""What frameworks for training on many nodes read: each rank's place, and the network between nodes, as variables.

Part of launch_rendezvous.py: Python 3.6 and its standard library, inside any image.
"""

import os
import socket
import struct
import sys

#: Variables that are never left as they were: a second value of them cannot be right.
FRAMEWORKS_OWN = ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_", "HOROVOD_CROSS_", "HOROVOD_HOSTNAME",
                  "HOROVOD_GLOO_RENDEZVOUS_", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_")  # fmt: skip


class World:
    """Where this rank stands, as launch_rank.sh says."""

    def __init__(self, environ):
        self.rank = int(environ["DEEPHPC_RANK"])
        self.size = int(environ["DEEPHPC_SIZE"])
        self.local_rank = int(environ["DEEPHPC_LOCAL_RANK"])
        self.node = int(environ["DEEPHPC_NODE_RANK"])
        self.tasks = [int(count) for count in environ["DEEPHPC_TASKS"].split(",")]
        self.local_size = self.tasks[self.node]
        self.is_one_node = len(self.tasks) == 1
        self.address = "127.0.0.1" if self.is_one_node else environ["DEEPHPC_ADDRESS"]
        self.peer = "127.0.0.1" if self.is_one_node else environ["DEEPHPC_PEER"]
        self.key = bytes.fromhex(environ["DEEPHPC_LAUNCH_KEY"])
        self.interface = environ.get("DEEPHPC_INTERFACE", "")

    @property
    def listens_at(self):
        """Where to listen: no further than this machine when all ranks are on it."""
        return "127.0.0.1" if self.is_one_node else ""

    def cross(self, local_rank):
        """Return the nodes that have a rank of this local number, in order; some may have fewer ranks than others."""
        return [node for node, count in enumerate(self.tasks) if count > local_rank]


def horovod_variables(world, port, interface):
    """Return Horovod's environment (horovod/runner/gloo_run.py of 0.28.1 sets the same)."""
    nodes = world.cross(world.local_rank)
    variables = {
        "HOROVOD_RANK": world.rank,
        "HOROVOD_SIZE": world.size,
        "HOROVOD_LOCAL_RANK": world.local_rank,
        "HOROVOD_LOCAL_SIZE": world.local_size,
        "HOROVOD_CROSS_RANK": nodes.index(world.node),
        "HOROVOD_CROSS_SIZE": len(nodes),
        "HOROVOD_HOSTNAME": node_name(world.node),  # equal on a node, different between nodes: scopes are made of it
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": world.address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": port,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": 300,
        "HOROVOD_GLOO_IFACE": interface,
    }
    return told({**variables, **fabric_variables(world, interface)})


def torchrun_variables(world, port, interface):
    """Return the environment torchrun gives its workers (PyTorch 2.6, torch/distributed/run.py)."""
    variables = {
        "RANK": world.rank,
        "WORLD_SIZE": world.size,
        "LOCAL_RANK": world.local_rank,
        "LOCAL_WORLD_SIZE": world.local_size,
        "GROUP_RANK": world.node,
        "GROUP_WORLD_SIZE": len(world.tasks),
        "ROLE_RANK": world.rank,
        "ROLE_WORLD_SIZE": world.size,
        "ROLE_NAME": "default",
        "MASTER_ADDR": world.address,
        "MASTER_PORT": port,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_MAX_RESTARTS": 0,
        "TORCHELASTIC_RUN_ID": os.environ.get("DEEPHPC_RUN_ID", "none"),
    }
    return told({**variables, **fabric_variables(world, interface)})


def fabric_variables(world, interface):
    """Return which interface to take: of NCCL only what the site says, as it finds fast networks by itself."""
    variables = {"GLOO_SOCKET_IFNAME": interface}
    if interface and interface == world.interface:
        variables["NCCL_SOCKET_IFNAME"] = "=" + interface  # without the sign it is a prefix
    return variables


def told(variables):
    """Return variables as text, without those that have no value."""
    return {name: str(value) for name, value in variables.items() if value != ""}


def node_name(number):
    """Return what a node is called among the ranks."""
    return "node{}".format(number)


def find_interface(world):
    """Return the network interface to the other nodes: the site's where there is one, else the one of the route."""
    if world.is_one_node:
        return "lo"
    if world.interface:
        if os.path.exists("/sys/class/net/" + world.interface):
            return world.interface
        sys.stderr.write("deephpc: this node has no network interface {}\n".format(world.interface))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((world.peer, 9))  # sends nothing
            own = probe.getsockname()[0]
        return next((name for _, name in socket.if_nameindex() if address_of(name) == own), "")
    except OSError:
        return ""


def address_of(interface):
    """Return an interface's IPv4 address, None without one: ioctl SIOCGIFADDR, netdevice(7)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", interface[:15].encode()))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


VARIABLES = {"horovod": horovod_variables, "torchrun": torchrun_variables}
