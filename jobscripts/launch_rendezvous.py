"""Becomes one rank of a distributed training: finds the other ranks, sets what its framework reads, starts the program.

    python3 launch_rendezvous.py horovod|torchrun WORDS...

Runs inside any image: Python 3.6 and its standard library, nothing of Slurm, no names of nodes. launch_rank.sh has said
in DEEPHPC_... which rank this is and at which address rank 0 lives.

Rank 0 has a process beside it that holds the meeting point of the framework and tells the other ranks its port: it
answers at the first free port above the system's own range, in a stretch that follows from a key of this job step, and
proves to know that key; so a foreign service at that port, or another job's, is passed over. No program starts before
every rank has asked: one that ends at once would take the answer with it.
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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from launch_frameworks import FRAMEWORKS_OWN, VARIABLES, World, find_interface, node_name

FIRST_PORT = 61000  # Linux hands out 32768 to 60999 by itself
LAST_PORT = 65535
STRETCH = 16  # ports a rank tries
PATIENCE_S = 600.0  # containers start apart; nodes may unpack an image first
SILENCE_S = 2.0  # longest wait for one answer


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
            missing = tell_others(world, port)
            await_all(missing, lambda: os.getppid() == rank_0)
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
    """Answer every rank that asks where to meet: a nonce and its number come, the port and a proof of the key go back.

    Returns the ranks that have not asked yet; each leaves the set as it does.
    """
    missing = set(range(1, world.size))

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
                    nonce, rank = caller.recv(64).split()
                    caller.sendall("{} {}\n".format(meeting_port, proof(world.key, nonce, meeting_port)).encode())
                    missing.discard(int(rank))
                except (OSError, ValueError):  # one that only looked what is here
                    pass

    in_background(answer)
    return missing


def await_all(missing, goes_on):
    """Wait until every rank has asked."""
    deadline = time.monotonic() + PATIENCE_S
    while missing:
        if not goes_on():
            os._exit(0)
        if time.monotonic() > deadline:
            names = ", ".join(str(rank) for rank in sorted(missing)[:10])
            raise OSError("of the other ranks these did not come within {:.0f} s: {}".format(PATIENCE_S, names))
        time.sleep(0.02)


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
            connection.sendall(nonce + b" %d" % world.rank)
            words = connection.makefile().readline(200).split()
    except (OSError, ValueError):  # nobody there, or bytes that are no text
        return None
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) if hmac.compare_digest(words[1], proof(world.key, nonce, int(words[0]))) else None


def proof(key, nonce, port):
    """Return what only those who know the key can say about a port."""
    return hmac.new(key, nonce + b" %d" % port, hashlib.sha256).hexdigest()


def give_up(reason):
    """End with a reason."""
    sys.stderr.write("deephpc: {}\n".format(reason))
    sys.exit(1)


SERVERS = {"horovod": serve_horovod, "torchrun": serve_torchrun}

if __name__ == "__main__":
    main(sys.argv[1:])
