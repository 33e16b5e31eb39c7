"""A real SSH server (asyncssh); its one user has noisy start-up files. `tests/cluster` has the real sshd."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncssh

_SERVER = """
import asyncio, json, os, sys
import asyncssh
key, authorized, environ = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
class Server(asyncssh.SSHServer):
    def connection_made(self, connection): self.connection = connection
    def begin_auth(self, user):
        self.connection.send_auth_banner("Authorized use only. deephpc-\\n")
        return True
async def carry(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
async def carry_in(process, run):
    try:
        await carry(process.stdin, run.stdin)
    except (OSError, asyncssh.Error):
        pass
    run.stdin.close()
async def serve(process):
    run = await asyncio.create_subprocess_exec(
        environ["SHELL"], "-c", process.command, env=environ, cwd=environ["HOME"], stdin=-1, stdout=-1, stderr=-1)
    coming = asyncio.ensure_future(carry_in(process, run))
    await asyncio.gather(carry(run.stdout, process.stdout), carry(run.stderr, process.stderr), return_exceptions=True)
    process.exit(await run.wait())
    coming.cancel()
async def main():
    server = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[key], authorized_client_keys=authorized, process_factory=serve,
        encoding=None)
    print(server.get_port(), flush=True)
    await server.wait_closed()
asyncio.run(main())
"""
NOISE = (
    "echo 'Welcome to the cluster'; echo '{\"quota\": 97}'; echo 'module: command not found' >&2; printf 'no newline'\n"
)


class SshServer:
    """A login node that runs."""

    def __init__(self, folder: Path, home: Path, port: int) -> None:
        self.home = home
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self._port = port
        self._key = folder / "user_key"
        public = (folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {public}")
        self.configure()

    def configure(self, **changes: str) -> None:
        """Write the user's ssh configuration; the machine is called `login` there."""
        said = {
            "HostName": "127.0.0.1",
            "Port": str(self._port),
            "User": "alice",
            "IdentityFile": str(self._key),
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            **changes,
        }
        self.config.write_text("Host login\n" + "".join(f"  {name} {value}\n" for name, value in said.items()))


@contextmanager
def ssh_server(
    folder: Path, *, shell: str = "/bin/bash", environ: Mapping[str, str] | None = None
) -> Iterator[SshServer]:
    """Run a login node, with the user's key and the configuration of an ssh that knows it."""
    home = folder / "far"
    home.mkdir(exist_ok=True)
    (home / ".bashrc").write_text(NOISE)
    (home / ".bash_profile").write_text(NOISE + ". ~/.bashrc\nPATH=~/bin:$PATH\n")
    for name in ("host_key", "user_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        (folder / name).chmod(0o600)
        key.write_public_key(folder / f"{name}.pub")
    there = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": shell, "SSH_CLIENT": "::1 1 22"}
    argv = [str(folder / "host_key"), str(folder / "user_key.pub"), json.dumps({**there, **(environ or {})})]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *argv], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline()
        assert line, (folder / "sshd.log").read_text()
        yield SshServer(folder, home, int(line))
    finally:
        process.terminate()
        process.wait(300)
        process.stdout.close()
