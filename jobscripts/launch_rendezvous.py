"""Becomes one rank of a distributed training: finds the other ranks, sets what its framework reads, starts the program.

    python3 launch_rendezvous.py horovod|torchrun WORDS...

Runs inside any image: Python 3.6 and its standard library, nothing of Slurm, no names of nodes. launch_rank.sh has said
in DEEPHPC_... which rank this is and at which address rank 0 lives.

Rank 0 leaves a process behind that holds the meeting point of the framework and tells the other ranks its port: it
answers at the first free port above the system's own range, in a stretch that follows from a key of this job step, and
proves to know that key; so a foreign service at that port, or another job's, is passed over.
"""

import hashlib
import hmac
import os
import signal
import socket
import struct
import sys
import threading
import time

FIRST_PORT = 61000  # Linux hands out 32768 to 60999 by itself
LAST_PORT = 65535
STRETCH = 16  # ports a rank tries
PATIENCE_S = 600.0  # containers start apart; nodes may unpack an image first
SILENCE_S = 2.0  # longest wait for one answer


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


def main(words):
    """Become the program."""
    framework, program = words[0], words[1:]
    world = World(os.environ)
    if world.rank == 0:
        port = start_meeting_point(world, SERVERS[framework])
    else:
        port = find_meeting_point(world, time.monotonic() + PATIENCE_S)
    interface = find_interface(world)
    variables = VARIABLES[framework](world, port, interface)
    variables["OMP_NUM_THREADS"] = os.environ.get("DEEPHPC_CPUS_PER_TASK", "1")
    for name, value in variables.items():
        if name.startswith(FRAMEWORKS_OWN) or name not in os.environ:  # the rest may be the site's or the user's choice
            os.environ[name] = value
    del os.environ["DEEPHPC_LAUNCH_KEY"]
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write("deephpc: cannot start {}: {}\n".format(program[0], error.strerror))
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


# --- the meeting point, in a process beside rank 0 ------------------------------------------------------------------


def start_meeting_point(world, serve):
    """Start the process that holds the meeting point; return its port."""
    reader, writer = os.pipe()
    rank_0 = os.getpid()
    if os.fork() == 0:
        try:
            os.close(reader)
            stand_apart(writer)
            port = serve(world)
            tell_others(world, port)
            os.write(writer, b"%d\n" % port)
            os.close(writer)
            while os.getppid() == rank_0:  # it ends with the rank, however that ends
                time.sleep(0.2)
        except BaseException as error:  # noqa: BLE001 - the rank tells it, whatever it is
            os.write(writer, "{}: {}\n".format(type(error).__name__, error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        line = said.readline().strip()
    if not line.isdigit():
        give_up("the ranks have no place to meet: {}".format(line or "its process ended"))
    return int(line)


def stand_apart(writer):
    """Hold nothing open that others wait for, and hear no signal that is meant for the program."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != writer:
            try:
                os.close(int(name))
            except OSError:  # the folder itself
                pass


def serve_horovod(world):
    """Start Horovod's own rendezvous server; return its port."""
    from horovod.runner.common.util.hosts import SlotInfo
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    plan, rank = [], 0
    for node, count in enumerate(world.tasks):
        for local in range(count):
            nodes = world.cross(local)
            plan.append(SlotInfo(node_name(node), rank, local, nodes.index(node), world.size, count, len(nodes)))
            rank += 1
    server = first_free(world, lambda port: RendezvousHTTPServer((world.listens_at, port), RendezvousHandler, 0))
    server.init(plan)
    in_background(server.serve_forever)
    return server.server_address[1]


def serve_torchrun(world):
    """Keep a port for rank 0, whose program will listen there (torch.distributed, init_method env://).

    It is bound alone, and then opened to those who share addresses, as PyTorch's store does: others cannot take it.
    """

    def bind(port):
        held = socket.socket()
        held.bind((world.listens_at, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        HELD.append(held)
        return held

    return first_free(world, bind).getsockname()[1]


def tell_others(world, meeting_port):
    """Answer every rank that asks where to meet: a nonce comes, the port and a proof of the key go back."""

    def listen(port):
        listener = socket.socket()
        listener.bind((world.listens_at, port))
        listener.listen(1024)
        return listener

    listener = first_free(world, listen, ports_of(world.key)[:STRETCH])

    def answer():
        while True:
            caller, _ = listener.accept()
            with caller:
                try:
                    caller.settimeout(SILENCE_S)
                    nonce = caller.recv(64)
                    caller.sendall("{} {}\n".format(meeting_port, proof(world.key, nonce, meeting_port)).encode())
                except OSError:  # one that only looked what is here
                    pass

    in_background(answer)


HELD = []  # sockets that stay open as long as this process


def first_free(world, bind, ports=None):
    """Return what `bind` makes of the first port that is free."""
    complaint = None
    for port in ports or ports_of(world.key)[STRETCH:]:
        try:
            return bind(port)
        except OSError as error:
            complaint = error
    raise OSError("no port from {} to {} is free: {}".format(FIRST_PORT, LAST_PORT, complaint))


def ports_of(key):
    """Return the ports above the system's own range, beginning where the key says."""
    count = LAST_PORT - FIRST_PORT + 1
    start = struct.unpack(">I", hashlib.sha256(key).digest()[:4])[0] % count
    return [FIRST_PORT + (start + step) % count for step in range(count)]


def in_background(target):
    """Run something in a thread that does not outlive the process."""
    thread = threading.Thread(target=target)
    thread.daemon = True
    thread.start()


# --- the other ranks ------------------------------------------------------------------------------------------------


def find_meeting_point(world, deadline):
    """Ask at rank 0's address until its process answers; return the port where the ranks meet."""
    ports = ports_of(world.key)[:STRETCH]
    while time.monotonic() < deadline:
        for port in ports:
            found = ask(world, port)
            if found is not None:
                return found
        time.sleep(0.1)
    give_up(
        "rank 0 does not answer at {} within {:.0f} s; can the nodes reach each other there?".format(
            world.address, PATIENCE_S
        )
    )
    return None


def ask(world, port):
    """Return the meeting port, None when nobody is there yet or it is somebody else."""
    nonce = os.urandom(16).hex().encode()
    try:
        with socket.create_connection((world.address, port), SILENCE_S) as connection:
            connection.settimeout(SILENCE_S)
            connection.sendall(nonce)
            words = connection.makefile().readline(200).split()
    except (OSError, ValueError):  # nobody there, or bytes that are no text
        return None
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) if hmac.compare_digest(words[1], proof(world.key, nonce, int(words[0]))) else None


def proof(key, nonce, port):
    """Return what only those who know the key can say about a port."""
    return hmac.new(key, nonce + b" %d" % port, hashlib.sha256).hexdigest()


# --- what the frameworks read ---------------------------------------------------------------------------------------

#: Variables that are never left as they were: a second value of them cannot be right.
FRAMEWORKS_OWN = ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_", "HOROVOD_CROSS_", "HOROVOD_HOSTNAME",
                  "HOROVOD_GLOO_RENDEZVOUS_", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_")  # fmt: skip


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


def give_up(reason):
    """End with a reason."""
    sys.stderr.write("deephpc: {}\n".format(reason))
    sys.exit(1)


SERVERS = {"horovod": serve_horovod, "torchrun": serve_torchrun}
VARIABLES = {"horovod": horovod_variables, "torchrun": torchrun_variables}

if __name__ == "__main__":
    main(sys.argv[1:])
