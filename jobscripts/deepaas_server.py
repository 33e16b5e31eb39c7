"""A module's DEEPaaS server for this process alone: on a UNIX socket in a 0700 folder; all users share loopback.

Runs inside the image: Python 3.6 or later, the image's own DEEPaaS (1.x, 2.x) and its aiohttp.
"""

import asyncio
import functools
import inspect
import json
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import threading
import traceback

from deepaas_answers import told_error
from deepaas_arguments import BadArgumentError, json_safe

LONGEST_PARENT_BYTES = 107 - len("/deepaas-12345678/socket")
"""Of the folder's parent: longer ones do not fit into a socket's address (unix(7): 108 bytes, the last zero)."""
LONG_LINES = {"max_line_size": 1 << 20, "max_field_size": 1 << 20}
"""Of aiohttp's parser: arguments stand in the address, cookies in a header, and 8190 bytes are soon full."""
_POLL_S = 0.2
_END_S = 5


class ServerError(Exception):
    """The server could not do it; the text is for the user."""


class Answer:
    """What the server said: status, content type and bytes."""

    def __init__(self, status, content_type, content):
        self.status, self.content_type, self.content = status, content_type, content

    def json(self):
        """Return the content as a value."""
        return json.loads(self.content.decode())


class PrivateServer:
    """Serve a module and speak with it: `async with PrivateServer(name, plugin) as server`."""

    def __init__(self, name, plugin):
        self.name, self.plugin = name, plugin
        self.folder = _private_folder()
        self.error_file = os.path.join(self.folder, "error.txt")
        self._log = LastError(logging.ERROR)

    async def __aenter__(self):
        """Start the server; the module is warm when this returns."""
        try:
            await self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    async def __aexit__(self, *_):
        """End the server and the module's processes; nothing stays behind."""
        await self._session.close()
        self._end_pools()
        await self._runner.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def ask(self, method, path, request=None):
        """Send a request that `deepaas_arguments.plan_request` made and return the answer.

        Raises
        ------
        ServerError
            When the module's process dies while it works; DEEPaaS itself would wait for ever.
        """
        at_work = workers()
        asking = asyncio.ensure_future(self._ask(method, path, request or {}))
        while not asking.done():
            await asyncio.wait([asking], timeout=_POLL_S)
            if died(at_work) and not asking.done():
                asking.cancel()
                self._forget_lost_tasks()
                raise ServerError(died(at_work))
        return asking.result()

    async def ask_well(self, method, path, request=None):
        """Send a request and return a good answer.

        Raises
        ------
        BadArgumentError
            When the module refuses the arguments (422).
        ServerError
            When anything else is wrong, with the module's own exception where there is one.
        """
        answer = await self.ask(method, path, request)
        if answer.status == 200:
            return answer
        error, text = self.take_error(), answer.content.decode("utf-8", "replace").strip()
        if answer.status == 422:
            raise BadArgumentError("the module refuses the arguments: %s" % text)
        raise ServerError(error or "DEEPaaS answers %d: %s" % (answer.status, text[-2000:]))

    def clear_uploads(self):
        """Remove DEEPaaS's copies of the files it was sent, which it never does itself."""
        for name in os.listdir(self._uploads):
            os.unlink(os.path.join(self._uploads, name))

    def take_error(self):
        """Return what the module's last exception says, or else DEEPaaS's own, and forget both."""
        text, self._log.text = self._log.text, ""
        try:
            with open(self.error_file, encoding="utf-8") as file:
                text = file.read()
            os.unlink(self.error_file)
        except FileNotFoundError:
            pass
        return text

    async def _start(self):
        import aiohttp
        import deepaas.api
        from aiohttp import web
        from deepaas import config

        self._uploads = tempfile.tempdir = os.path.join(self.folder, "uploads")
        os.mkdir(self._uploads, 0o700)
        os.environ["DEEPAAS_V2_MODEL"] = self.name
        config.config_and_logging(["deepaas-run"])
        logging.getLogger("aiohttp.server").addHandler(self._log)
        logging.getLogger("aiohttp.server").propagate = False
        parameters = inspect.signature(deepaas.api.get_app).parameters
        wanted = {"swagger": False, "enable_doc": False, "enable_train": True, "enable_predict": True}
        app = deepaas.api.get_app(**{name: value for name, value in wanted.items() if name in parameters})
        if inspect.isawaitable(app):
            app = await app
        self._watch_calls()
        self._runner = web.AppRunner(app, access_log=None, **LONG_LINES)
        await self._runner.setup()
        socket = os.path.join(self.folder, "socket")
        await web.UnixSite(self._runner, socket).start()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=socket), timeout=aiohttp.ClientTimeout(total=None)
        )

    def _watch_calls(self):
        """Have the module's functions say what failed: DEEPaaS answers an exception with 500 and no word of it."""
        from deepaas import model

        served = getattr(model, "V2_MODELS", None) or model.v2.MODELS
        if self.name not in served:
            raise ServerError("DEEPaaS serves %s instead of %s" % (", ".join(served) or "nothing", self.name))
        self._wrapper = served[self.name]
        if hasattr(self._wrapper, "model_obj"):
            self._wrapper.model_obj = Watched(self.plugin, self.error_file)

    def _end_pools(self):
        """End DEEPaaS's pools of processes, which it leaves to be waited for without end.

        Only a process at work may be killed: an idle one holds the lock that the end of its pool waits for.
        """
        executor = getattr(self._wrapper, "_executor", None)
        at_work = list(getattr(executor, "_working", ()))
        for pool in at_work:
            os.kill(pool._pool[0].pid, signal.SIGKILL)
        for pool in at_work + list(getattr(executor, "_free", ())):
            ending = threading.Thread(target=pool.terminate)
            ending.daemon = True
            ending.start()
            ending.join(_END_S)  # for ever when something else has killed an idle process

    async def _ask(self, method, path, request):
        import aiohttp

        with_body = {}
        opened = []
        try:
            if request.get("files") or request.get("form"):
                body = aiohttp.FormData(quote_fields=False)
                for name, value in request.get("form", ()):
                    body.add_field(name, value)
                for name, source in request.get("files", ()):
                    opened.append(open(source, "rb"))
                    body.add_field(name, opened[-1], filename=sent_name(source))
                with_body["data"] = body
            elif request.get("json"):
                with_body["json"] = request["json"]
            url = "http://module/v2/models/%s" % path
            parameters = request.get("query") or None
            headers = request.get("headers") or None
            async with self._session.request(method, url, params=parameters, headers=headers, **with_body) as response:
                return Answer(response.status, response.content_type, await response.read())
        finally:
            for file in opened:
                file.close()

    def _forget_lost_tasks(self):
        """Cancel what waits for a process that died, so that its place in the pool is free for the next request."""
        all_tasks = getattr(asyncio, "all_tasks", None) or asyncio.Task.all_tasks
        for task in all_tasks():
            coroutine = task.get_coro() if hasattr(task, "get_coro") else getattr(task, "_coro", None)
            if getattr(coroutine, "__qualname__", "").endswith("CancellablePool.apply"):
                task.cancel()


class LastError(logging.Handler):
    """Keeps the last exception that DEEPaaS met while it answered: its answer says 500 and no word of that."""

    text = ""

    def emit(self, record):
        """Keep the exception in a record."""
        if record.exc_info and record.exc_info[1] is not None:
            self.text = told_error(record.exc_info[1])


class Watched:
    """A module whose functions leave the text of an exception in a file, and give what JSON can hold."""

    def __init__(self, plugin, error_file):
        self._plugin, self._error_file = plugin, error_file

    def __getattr__(self, name):
        """Return what the module has, `train` and `predict` watched."""
        found = getattr(self._plugin, name)
        return functools.partial(watched_call, found, self._error_file) if name in ("train", "predict") else found


def watched_call(function, error_file, *args, **kwargs):
    """Call a module's function in its own process; its traceback goes to stderr, what it says into a file."""
    try:
        result = function(*args, **kwargs)
    except Exception as error:
        traceback.print_exc()
        text = told_error(error)
        with open(error_file, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 -- such an exception would never arrive, and DEEPaaS would wait for ever
            raise RuntimeError(text) from None
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return plain(result)


def plain(result):
    """Return a result that JSON can hold; files and bytes stay as they are."""
    if isinstance(result, (bytes, bytearray)) or hasattr(result, "read"):
        return result
    return json_safe(result)


def sent_name(path):
    """Return the name a file is sent with; no control characters: aiohttp refuses a header with a line break."""
    return re.sub(r"[\x00-\x1f\x7f]", "_", os.path.basename(path))


def workers():
    """Return the module's processes."""
    return multiprocessing.active_children()


def died(processes):
    """Return how one of some worker processes died, as a sentence; nothing while all live."""
    codes = [worker.exitcode for worker in processes if worker.exitcode is not None]
    if not codes:
        return ""
    how = "killed by signal %d" % -codes[0] if codes[0] < 0 else "exit code %d" % codes[0]
    memory = "; that is what happens when the job's memory is used up" if codes[0] == -9 else ""
    return "the module's process died (%s)%s" % (how, memory)


def run_loop(work):
    """Run a coroutine to its end; `asyncio.run` is not in Python 3.6."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(work)
    except BaseException:  # SIGTERM while the server was starting: its processes would complain of their parent's end
        for worker in workers():
            os.kill(worker.pid, signal.SIGKILL)
        raise
    finally:
        loop.close()


def leave(code):
    """End this process; at once when processes of the module are left (old DEEPaaS), since Python waits for them."""
    left = workers()
    if not left:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    for worker in left:
        os.kill(worker.pid, signal.SIGKILL)
    os._exit(code)


def stopping(number):
    """Return a future that is done once a signal has come; from now on the signal does nothing else."""
    loop = asyncio.get_event_loop()
    stop = loop.create_future()
    loop.add_signal_handler(number, lambda: stop.done() or stop.set_result(None))
    return stop


def _private_folder():
    """Make a 0700 folder whose path is short enough for a socket."""
    for parent in (tempfile.gettempdir(), "/tmp", "/dev/shm", "/var/tmp"):
        if len(os.fsencode(parent)) <= LONGEST_PARENT_BYTES and os.access(parent, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix="deepaas-", dir=parent)
    raise ServerError("no writable folder has a short enough path for a socket: set TMPDIR to a short one")
