"""An ssh for tests: forwards what `-L` says from this machine, or fails for a host called `down`."""

import asyncio
import sys


async def pump(reader, writer):
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()
    writer.close()


async def main(argv):
    hop = argv[argv.index("--") + 1]
    if hop.endswith("down"):
        print("a banner\nthe host is down", file=sys.stderr)
        sys.exit(255)
    _, local, host, remote = argv[argv.index("-L") + 1].split(":")

    async def forward(reader, writer):
        try:
            target = await asyncio.open_connection("localhost" if host == "c1" else host, int(remote))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, target[1]), pump(target[0], writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", int(local))
    async with server:
        await server.serve_forever()


asyncio.run(main(sys.argv))
