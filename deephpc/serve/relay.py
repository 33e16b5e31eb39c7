"""Passes connections to a local port on to another host, in a thread of this process: what ssh does, without ssh."""

import asyncio
import contextlib
import socket
import threading

from deephpc.errors import InputError

_CHUNK = 1 << 17
_BACKLOG = 128
_CONNECT_S = 10.0
_ENDS_S = 5.0


class Relay:
    """A port on this machine's loopback that leads to a port of another host.

    Parameters
    ----------
    local_port
        The port here; it is bound at once, so nobody else can take it.

    Raises
    ------
    InputError
        The local port cannot be bound.
    """

    def __init__(self, local_port: int, host: str, port: int) -> None:
        self._target = (host, port)
        self._socket = _bind(local_port)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"relay to {host}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port and every connection through it."""
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_ENDS_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, sock=self._socket, limit=_CHUNK, backlog=_BACKLOG)
        await self._stop.wait()
        self._loop.remove_reader(self._socket.fileno())  # asyncio stumbles over what it accepts while a server closes
        await _turns()  # what is accepted already reaches its handler, which closes it
        server.close()
        ours = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        await _turns()  # transports close their sockets in the next one

    async def _pass_on(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        """Connect to the target and carry bytes both ways; a target that is away closes the connection."""
        writers = [near_out]
        try:
            far, far_out = await asyncio.wait_for(
                asyncio.open_connection(*self._target, limit=_CHUNK), timeout=_CONNECT_S
            )
            writers.append(far_out)
            await asyncio.gather(_pump(near, far_out), _pump(far, near_out))
        except (OSError, asyncio.TimeoutError):
            pass  # one side went away: the other is told below
        except asyncio.CancelledError:
            pass  # the relay ends; asyncio would log the error of a handler that is cancelled
        finally:
            for writer in writers:
                writer.transport.abort() if self._stop.is_set() else writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until their end, and pass the end on."""
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _turns() -> None:
    """Let the loop turn as often as asyncio needs from accepting a connection to its handler: three times."""
    for _ in range(5):
        await asyncio.sleep(0)


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what ended a moment ago is no hindrance
        bound.bind(("127.0.0.1", port))
        bound.listen(_BACKLOG)  # from now on connections wait for the thread, rather than being refused
    except OSError as error:
        bound.close()
        raise InputError(f"port {port} cannot be used: {error.strerror}", "leave --port out") from error
    return bound
