"""A server for the gateway's tests: speaks a little of DEEPaaS's API, echoes, streams, stalls and dies on demand.

upstream.py SOCKET|PORT [--mode ok|stand-in|crash|hang|silent|fail|soft-fail|import-fails|hang-later|fail-later|FILES]
            [--tls CERTIFICATE_AND_KEY]

FILES, such as `image,zip?=image`, are the files the module takes, ? if they are optional, and what it wants of them.
"""

import argparse
import asyncio
import hashlib
import os
import ssl
import sys

from aiohttp import WSMsgType, web

PNG = b"\x89PNG"


def swagger(model, files):
    taken = ((word.rstrip("?"), not word.endswith("?")) for word in files.split(","))
    parameters = [
        *({"in": "formData", "name": name, "required": needed, "type": "file"} for name, needed in taken),
        {"in": "query", "name": "top", "required": False, "type": "integer", "default": 1, "minimum": 1, "maximum": 5},
        {"in": "query", "name": "labels", "required": False, "type": "array", "items": {"type": "string"}},
        {"in": "query", "name": "slow_s", "required": False, "type": "number", "default": 0},
        {
            "in": "header",
            "name": "accept",
            "required": False,
            "type": "string",
            "enum": ["application/json", "text/csv", "*/*"],
        },
    ]
    return {"swagger": "2.0", "paths": {f"/v2/models/{model}/predict/": {"post": {"parameters": parameters}}}}


class Module:
    def __init__(self, mode):
        self.mode = mode
        self.files, _, self.wanted = mode.partition("=") if "=" in mode else ("image", "", None)
        self.has_predicted = False
        self.name = "deepaas-test" if mode == "stand-in" else "demo_module"

    async def models(self, _request):
        about = {"id": self.name, "name": self.name, "links": [{"rel": "self", "href": f"/v2/models/{self.name}"}]}
        stand_in = {"id": "0"} if self.mode == "stand-in" else {}  # of DEEPaaS 2.6.0 (deepaas/model/v2/test.py)
        return web.json_response({"models": [{**about, **stand_in}]})

    async def about(self, _request):
        return web.json_response({"id": self.name, "description": "for tests"})

    async def describe(self, _request):
        return web.json_response(swagger(self.name, self.files))

    async def predict(self, request):
        if self.mode == "crash":
            print("the model crashes now: no weights", flush=True)
            os._exit(9)
        if self.wanted is not None and ",".join(await request.post()) != self.wanted:
            return web.json_response({"status": "error", "message": f"give {self.wanted or 'no file'}"})
        if self.wanted is not None:
            return web.json_response({"status": "OK", "predictions": "as wanted"})
        mode = self.mode.removesuffix("-later") if self.has_predicted else self.mode
        self.has_predicted = True
        if mode == "hang":
            await asyncio.sleep(3600)
        if mode == "soft-fail":  # tests/oracle/modules/errors_in_the_body.py
            return web.json_response({"status": "OK", "predictions": {"error": "the picture is too dark"}})
        if mode == "fail":
            return web.json_response({"status": "error", "message": "ValueError: no weights"}, status=500)
        if request.query.get("top", "1") not in tuple("12345"):  # as webargs refuses (DEEPaaS 2.6.0; tests/oracle)
            return web.json_response({"top": ["Not a valid integer, or out of range."]}, status=422)
        await asyncio.sleep(float(request.query.get("slow_s", "0")))
        size, digest, filename = 0, hashlib.sha256(), None
        async for part in await request.multipart():
            filename = part.filename
            while chunk := await part.read_chunk(1 << 16):
                size += len(chunk)
                digest.update(chunk)
        if request.headers.get("accept") == "text/csv":
            return web.Response(text=f"size\n{size}\n", content_type="text/csv")
        found = {
            "size": size,
            "sha256": digest.hexdigest(),
            "filename": filename,
            "top": request.query.get("top"),
            "labels": request.query.getall("labels", []),
        }
        return web.json_response({"status": "OK", "predictions": found})


async def echo(request):
    body = await request.read()
    seen = [[name, value] for name, value in request.headers.items()]
    answer = web.json_response(
        {"method": request.method, "path": request.raw_path, "headers": seen, "body": body.decode("latin-1")}
    )
    answer.headers.add("Set-Cookie", "a=1")
    answer.headers.add("Set-Cookie", "b=2")
    return answer


async def count(request):
    """How many bytes were sent, without keeping them."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return web.json_response({"size": size})


async def stream(request):
    """As many bytes as asked for; the process dies after so many, where that is asked for."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    left = size = int(request.query["size"])
    die_after = int(request.query.get("die_after", size + 1))
    while left > 0:
        if size - left > die_after:
            os._exit(7)
        await answer.write(b"x" * min(left, 1 << 16))
        left -= 1 << 16
    return answer


async def wait(_request):
    """A prediction that never ends."""
    await asyncio.Event().wait()


async def under_way(request):
    """How many other requests are being answered."""
    return web.json_response({"requests": request.app["state"]["under_way"] - 1})


async def seen(request):
    """All requests that ever came, in order: path, how the gateway says it was asked, type of the body."""
    return web.json_response({"requests": request.app["state"]["seen"]})


@web.middleware
async def notice(request, handler):
    state = request.app["state"]
    state["seen"].append((request.path, request.headers.get("X-Forwarded-Proto"), request.content_type))
    state["under_way"] += 1
    try:
        return await handler(request)
    finally:
        state["under_way"] -= 1


async def ticks(request):
    """A line now, and the next one only when the client asked for it by another request."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"first\n")
    await request.app["tick"].wait()
    await answer.write(b"second\n")
    return answer


async def tick(request):
    request.app["tick"].set()
    return web.Response()


async def broken(request):
    """An answer that ends in its middle."""
    answer = web.StreamResponse(headers={"Content-Length": "1000000"})
    await answer.prepare(request)
    await answer.write(b"x" * 1000)
    request.transport.abort()
    return answer


async def websocket(request):
    socket = web.WebSocketResponse(protocols=["v1.kernel"], max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data == "bye":
            await socket.close(code=4001)
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


async def redirect(request):
    """Redirect as servers do that know nothing of who stands before them; `to` with {host} is filled in."""
    raise web.HTTPFound(request.query["to"].format(host=request.headers["Host"]))


async def long_header(request):
    """Answer with a header as long as asked for."""
    return web.json_response(
        {"cookies": len(request.headers["Cookie"])}, headers={"X-Long": "x" * int(request.query["size"])}
    )


async def refuse_early(request):
    """Refuse an upload after its first bytes, and close, as servers do that know its length or have no room."""
    status, text = request.query["status"], request.query["text"]
    await request.content.readany()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    request.transport.write(f"{head}{text}".encode())
    request.transport.close()
    await asyncio.sleep(60)


async def die(_request):
    print("dying as told", flush=True)
    os._exit(7)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--mode", default="ok")
    parser.add_argument("--tls", help="speak TLS on the port, with the certificate and key of this file")
    options = parser.parse_args()
    if options.mode == "silent":
        await asyncio.sleep(3600)
    if options.mode == "import-fails":
        print("ModuleNotFoundError: No module named 'weights'", flush=True)
        sys.exit(3)
    app = web.Application(client_max_size=1 << 40, middlewares=[notice])
    app["state"] = {"seen": [], "under_way": 0}
    app["tick"] = asyncio.Event()
    module = Module(options.mode)
    app.router.add_get("/v2/models/", module.models)
    app.router.add_get(f"/v2/models/{module.name}/", module.about)
    app.router.add_get("/swagger.json", module.describe)
    app.router.add_post(f"/v2/models/{module.name}/predict/", module.predict)
    app.router.add_get("/stream", stream)
    app.router.add_get("/ticks", ticks)
    app.router.add_get("/tick", tick)
    app.router.add_get("/broken", broken)
    app.router.add_post("/wait", wait)
    app.router.add_get("/under-way", under_way)
    app.router.add_get("/seen", seen)
    app.router.add_get("/ws", websocket)
    app.router.add_get("/die", die)
    app.router.add_post("/count", count)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/long-header", long_header)
    app.router.add_post("/refuse-early", refuse_early)
    app.router.add_route("*", "/echo{tail:.*}", echo)
    lines = {"max_line_size": 1 << 17, "max_field_size": 1 << 17}
    runner = web.AppRunner(app, access_log=None, handle_signals=True, handler_cancellation=True, **lines)
    await runner.setup()
    if options.socket.isdecimal():
        context = None
        if options.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.tls)
        await web.TCPSite(runner, "127.0.0.1", int(options.socket), ssl_context=context).start()
    else:
        await web.UnixSite(runner, options.socket).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
