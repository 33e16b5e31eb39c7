"""Trains a DEEPaaS module: as `deepaas-cli train` does where that works, else over a server inside the job.

Runs inside the image: Python 3.6 or later and the image's own DEEPaaS.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import traceback

import deepaas_arguments
import deepaas_server
from deepaas_arguments import BadArgumentError
from deepaas_loading import fields_of, has_method, usable_by_cli
from deepaas_output import note, write_file

FAILED, TERMINATED = 1, 128 + signal.SIGTERM
GRACE_S = 20
"""How long a training that handles SIGTERM has for its end before it is stopped."""
_POLL_S = 0.5


class Terminated(SystemExit):
    """SIGTERM came; `finally` blocks and exit handlers still run."""


def train(module, words, result):
    """Train with a user's words and keep what DEEPaaS says of it in the file `result`; return the exit code.

    Of several ranks of a job the first one alone keeps it.

    Raises
    ------
    BadArgumentError
        When the words do not fit the module, before anything is started.
    """
    if not has_method(module, "train"):
        raise BadArgumentError("the module %s cannot be trained" % module.name)
    fields = fields_of(module, "train")
    arguments = deepaas_arguments.describe_arguments(fields)
    values = deepaas_arguments.parse_words(words, arguments)
    deepaas_arguments.check_values(values, fields)
    os.makedirs(os.path.dirname(os.path.abspath(result)), exist_ok=True)
    if usable_by_cli(module):
        code = _train_by_cli(module, values, result)
        if code is not None:
            return code
    note("deepaas-cli cannot run this module: training over a private server inside the job")
    request = deepaas_arguments.plan_request(values, arguments)
    return deepaas_server.run_loop(_train_by_server(module, request, result))


class PlainResults:
    """A module whose `train` gives what JSON can hold: hours of work are not lost over one NumPy number."""

    def __init__(self, plugin):
        self._plugin = plugin

    def __getattr__(self, name):
        """Return what the module has."""
        return getattr(self._plugin, name)

    def train(self, **arguments):
        """Train."""
        return deepaas_server.plain(self._plugin.train(**arguments))


def _train_by_cli(module, values, result):
    """Train as `deepaas-cli` does, in this process, so that signals reach the module; None when it cannot start."""
    try:
        from deepaas.cmd import cli
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- it imports and asks all modules of the image
        note("deepaas-cli does not start: %s: %s" % (type(error).__name__, error))
        return None
    cli.model_obj = PlainResults(module.plugin)
    folder = os.path.dirname(os.path.abspath(result)) if _is_first() else tempfile.gettempdir()
    part = os.path.join(folder, ".train.%d.json" % os.getpid())
    words = deepaas_arguments.render_words(values)
    sys.argv = ["deepaas-cli", "--deepaas_method_output", part, "train", *words]
    try:
        cli.main()
    except Terminated:
        raise
    except SystemExit as error:
        if error.code:
            return _failed("the training of %s ended itself with %s" % (module.name, error.code))
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's module raises
        traceback.print_exc()
        return _failed("the training of %s failed: %s: %s" % (module.name, type(error).__name__, error))
    if not os.path.exists(part):
        return _failed("the training of %s ended without a result" % module.name)
    if _is_first():
        os.replace(part, result)
    else:
        os.unlink(part)
    return 0


async def _train_by_server(module, request, result):
    """Train over the API; SIGTERM and SIGUSR1 go to the module's process if it handles them."""
    path = "%s/train/" % module.name
    async with deepaas_server.PrivateServer(module.name, module.plugin) as server:
        workers = deepaas_server.workers()
        stop = deepaas_server.stopping(signal.SIGTERM)
        asyncio.get_event_loop().add_signal_handler(signal.SIGUSR1, _pass_on, signal.SIGUSR1, workers)
        status = (await server.ask_well("POST", path, request)).json()
        while status["status"] == "running":
            await asyncio.wait([stop], timeout=_POLL_S)
            if deepaas_server.died(workers):
                return _failed("the training of %s failed: %s" % (module.name, deepaas_server.died(workers)))
            if stop.done():
                status = await _stop(server, path + status["uuid"], workers)
            else:
                status = (await server.ask_well("GET", path + status["uuid"])).json()
        if status["status"] == "done":
            if _is_first():
                write_file(result, json.dumps(status).encode())
            return 0
        if stop.done():
            return TERMINATED
        message = server.take_error() or status.get("message", "")
        return _failed("the training of %s failed: %s" % (module.name, message))


async def _stop(server, path, workers):
    """Have the module end by itself when it handles SIGTERM, else have DEEPaaS end it; return the last status."""
    deadline = time.monotonic() + (GRACE_S if _pass_on(signal.SIGTERM, workers) else 0)
    while time.monotonic() < deadline and not deepaas_server.died(workers):
        status = (await server.ask_well("GET", path)).json()
        if status["status"] != "running":
            return status
        await asyncio.sleep(_POLL_S)
    if not deepaas_server.died(workers):
        await server.ask("DELETE", path, watched=False)  # answers 500 in 2.x though it has worked
    return {"status": "cancelled"}


def _pass_on(number, workers):
    """Send a signal to those of the module's processes that handle it; to others it would be the end."""
    told = [worker for worker in workers if handles(worker.pid, number)]
    for worker in told:
        os.kill(worker.pid, number)
    if not told:
        note("%s: the module does not handle it" % signal.Signals(number).name)
    return bool(told)


def handles(pid, number):
    """Return whether a process has a handler for a signal (proc_pid_status(5), SigCgt)."""
    try:
        with open("/proc/%d/status" % pid) as file:
            caught = next(line.split()[1] for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def _is_first():
    """Return whether this is the first rank of those that train together (launch_rank.sh), or the only process."""
    return os.environ.get("DEEPHPC_RANK", "0") == "0"


def _failed(text):
    note(text)
    return FAILED
