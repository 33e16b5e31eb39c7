"""Which processes are below one, and what they listen to."""

import os
import signal
import subprocess
import sys

from deephpc.node.processes import catches, children, descendants

NESTED = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"


def test_descendants_are_found_at_every_depth() -> None:
    with subprocess.Popen([sys.executable, "-c", NESTED], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        try:
            assert {parent.pid, grandchild} <= set(descendants(os.getpid()))
            assert parent.pid in children(os.getpid())
            assert grandchild not in children(os.getpid())
            assert children(parent.pid) == (grandchild,)
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_a_zombie_is_no_descendant() -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert ended.pid not in descendants(os.getpid())
    assert ended.wait() == 0


def test_a_handler_is_seen_and_its_absence_too() -> None:
    script = "import signal, sys; signal.signal(signal.SIGUSR1, print); print('ready', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        assert catches(listener.pid, signal.SIGUSR1)
        assert not catches(listener.pid, signal.SIGUSR2)
        listener.kill()
    assert not catches(listener.pid, signal.SIGUSR1)
