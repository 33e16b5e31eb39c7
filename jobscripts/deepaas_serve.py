"""Serve a DEEPaaS module on a UNIX socket, for the gateway of its job: no port is opened, no other user reaches it.

    deepaas_serve.py [--socket PATH] [--model NAME] [--expect NAME] [--default NAME=JSON]... [--watch-models]

Runs inside the image: Python 3.6 or later and the image's own DEEPaaS; the other `deepaas_*.py` lie beside it.
Exit codes: 0 told to end (SIGTERM); 1 it cannot be served; 3 there is no module that can be used.
"""

import argparse
import asyncio
import contextlib
import functools
import inspect
import os
import signal
import traceback

import deepaas_server
from deepaas_loading import NoModuleError, check_arguments, find_deepaas, has_method, load_module, with_defaults
from deepaas_opened import watch_models
from deepaas_output import note

FAILED, NO_MODULE = 1, 3
_POLL_S = 0.2


class Server(deepaas_server.PrivateServer):
    """A module's server that also listens on a socket of the job, with its Swagger, and lets no upload lie about."""

    def __init__(self, name, plugin, socket, opened=None):
        super().__init__(name, plugin)
        self._socket, self._opened = socket, opened

    def mend(self):
        """Give up what waits for a process of the module that died: its request is answered 500, and a new one starts.

        A process that DEEPaaS ended itself (a cancelled training) is in none of its pools any more.
        """
        dead = [process for process in self._at_work if process.exitcode is not None]
        pools = self._pools()
        if any(pool in pools for process, pool in self._at_work.items() if process in dead):
            note(deepaas_server.died(dead))
            self._forget_lost_tasks()
        self._at_work = {process: pool for pool in self._pools() for process in pool._pool}

    async def _start(self):
        import deepaas.api
        from aiohttp import web

        get_app = deepaas.api.get_app
        deepaas.api.get_app = functools.partial(self._get_whole_app, get_app)  # it takes no options: all is switched on
        self._wrapper, self._at_work = None, {}
        watching = asyncio.ensure_future(self._watch())
        try:
            await super()._start()
        finally:
            deepaas.api.get_app = get_app
        if hasattr(self._wrapper, "model_obj"):
            self._wrapper.model_obj = Tidy(self._wrapper.model_obj)
        if os.path.exists(self._socket):
            os.unlink(self._socket)  # of an earlier attempt on this node
        await web.UnixSite(self._runner, self._socket).start()
        os.chmod(self._socket, 0o600)
        self._watching = watching

    async def _get_whole_app(self, get_app):
        """Return DEEPaaS's application with its Swagger, and the module's own words in its answers of status 500."""
        from aiohttp import web

        with without_missing_folders(web.UrlDispatcher):
            app = get_app()
            if inspect.isawaitable(app):
                app = await app

        @web.middleware
        async def tell(request, handler):
            try:
                return await handler(request)
            except (web.HTTPException, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 -- whatever a stranger's module raises
                message = self.take_error() or "%s: %s" % (type(error).__name__, error)
                return web.json_response({"status": "error", "message": message}, status=500)
            finally:
                if self._opened and request.path.endswith("/predict/"):
                    self._opened.write()

        app.middlewares.append(tell)
        return app

    def _end_pools(self):
        self._watching.cancel()
        super()._end_pools()

    async def _watch(self):
        """Look after the module's processes from the start: `warm` already runs in one, and could wait for ever."""
        while True:
            self.mend()
            await asyncio.sleep(_POLL_S)

    def _pools(self):
        executor = getattr(self._wrapper or _first_model(), "_executor", None)
        return [*getattr(executor, "_free", ()), *getattr(executor, "_working", ())]


@contextlib.contextmanager
def without_missing_folders(dispatcher):
    """Have a folder of static files that cannot be found served by nobody: fakechroot hides that of the Swagger UI."""
    add_static = dispatcher.add_static

    def add_if_there(self, prefix, path, **options):
        try:
            return add_static(self, prefix, path, **options)
        except ValueError as error:
            note("nothing is served at %s: %s" % (prefix, error))

    dispatcher.add_static = add_if_there
    try:
        yield
    finally:
        dispatcher.add_static = add_static


class Tidy:
    """A module whose `predict` leaves no copy of an upload behind; DEEPaaS keeps them for ever."""

    def __init__(self, plugin):
        self._plugin = plugin

    def __getattr__(self, name):
        """Return what the module has, `predict` tidied."""
        found = getattr(self._plugin, name)
        return functools.partial(tidy_call, found) if name == "predict" else found


def tidy_call(function, *args, **kwargs):
    """Call `predict` in the module's own process and remove the copies of uploads, but for one that is the answer."""
    result = None
    try:
        result = function(*args, **kwargs)
        return result
    finally:
        for value in kwargs.values():
            path = getattr(value, "original_filename", None) is not None and getattr(value, "filename", None)
            if path and path != getattr(result, "name", None) and os.path.exists(path):
                os.unlink(path)


def main(argv=None):
    """Serve until told to end; return the exit code."""
    parser = argparse.ArgumentParser(description="Serve a DEEPaaS module on a UNIX socket.")
    place = os.environ.get("DEEPHPC_SOCKET")
    parser.add_argument("--socket", default=place, required=not place, help="where to listen (DEEPHPC_SOCKET)")
    parser.add_argument("--model", help="the entry point's name")
    parser.add_argument("--expect", help="what the catalogue calls the module; decides among several")
    parser.add_argument("--default", action="append", metavar="NAME=JSON", help="another default of the predictions")
    parser.add_argument("--watch-models", action="store_true", help="note which of the run's models are opened")
    options = parser.parse_args(argv)
    os.environ.setdefault("RCLONE_CONTIMEOUT", "1s")  # modules that call rclone when imported hang for minutes offline
    os.environ.setdefault("RCLONE_RETRIES", "1")
    os.umask(0o077)
    try:
        find_deepaas()
        opened = watch_models() if options.watch_models else None
        module = load_predicting_module(options.model, options.expect)
        with_defaults(module, options.default)
        deepaas_server.run_loop(_serve(Server(module.name, module.plugin, options.socket, opened)))
    except NoModuleError as error:
        note(error)
        return NO_MODULE
    except (deepaas_server.ServerError, OSError) as error:
        note("the module cannot be served: %s" % error)
        return FAILED
    except Exception as error:  # noqa: BLE001 -- of DEEPaaS while it starts: its processes would be waited for without end
        traceback.print_exc()
        note("DEEPaaS cannot be started: %s: %s" % (type(error).__name__, error))
        return FAILED
    return 0


def load_predicting_module(model, expect):
    """Return the module to serve.

    Raises
    ------
    NoModuleError
        When there is none that predicts, or it fails to say what it takes.
    """
    module = load_module(model, expect)
    if not has_method(module, "predict"):
        raise NoModuleError("the module %s cannot predict" % module.name)
    check_arguments(module)
    return module


async def _serve(server):
    stop = deepaas_server.stopping(signal.SIGTERM)
    async with server:
        note("serving %s" % server.name)
        await stop


def _first_model():
    """Return DEEPaaS's wrapper of the module, which exists before its application does."""
    from deepaas import model

    served = getattr(model, "V2_MODELS", None) or {}
    return next(iter(served.values()), None)


if __name__ == "__main__":
    deepaas_server.leave(main())
