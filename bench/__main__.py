"""Runs every benchmark and keeps the table in docs/benchmarks.md (as root on Debian: it brings the test cluster up)."""

import os
import platform
from datetime import date
from pathlib import Path

from bench import gateway, of_catalogue, of_data, of_record
from bench.cluster import run_on_cluster
from bench.row import HEADER, Row, load

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"


def main() -> None:
    """Measure, print, keep."""
    print(HEADER)
    lines = [HEADER]
    for measure in (of_record.measure, of_catalogue.measure, gateway.measure, of_data.measure, _on_cluster):
        for row in measure():
            lines.append(row.render())
            print(lines[-1], flush=True)
    table = "\n".join(lines)
    PAGE.write_text(_page(table), encoding="utf-8")


def _on_cluster() -> list[Row]:
    return [row for rows in run_on_cluster() for row in load(rows)]


def _page(table: str) -> str:
    return f"""# Benchmarks

Made by `make bench` on {date.today().isoformat()}, {platform.machine()} with {_cores()} cores. Everything runs on one
machine: the test cluster of `tests/cluster` (Slurm 24.11, three compute nodes) stands beside what is measured, so trust
the ratios, not the milliseconds. Each pair is run in turn; values are medians. Below 1 is faster than the peer.

{table}

## What the numbers of the gateway and of data mean

The gateway speaks TLS and the server behind it does not, so each row has two peers: the server as it is, and the same
server were it to speak TLS itself. The second is what the gateway itself adds. For 64 MiB, AES-GCM alone costs client
and gateway about 25 ms each, and a second hop over TCP about 20 ms; client, gateway and server share the cores of this
machine, which on a cluster they do not.

Data go to and come from the same server for both: rclone's own for WebDAV and HTTP, OpenSSH's for SFTP, moto for S3,
which is a slow one and tells little. deephpc hashes every byte and syncs every file to the disk before it gets its
name; `rclone copy` does neither unless the protocol has hashes (for SFTP it is told not to: it would start a shell on
the server for each file to ask for one). Both start from nothing in each round; a start costs deephpc 0.2 s. One large
file over WebDAV and HTTP costs it that, sha256 and the CRC that makes resuming safe; SFTP it speaks by Paramiko, which
is Python down to the packets. rclone takes 130 ms for each small file it sends to its own WebDAV server, four at once,
of which little is work: that row flatters deephpc.

## What the numbers of training and of servers mean

Two ranks of `examples/digits/train.py` share one node and have one thread each, ours and bare. torchrun and horovodrun
are called in a batch script of the user's own; each starts a process of Python that starts the ranks, where deephpc
starts them as tasks of Slurm. Samples are counted from the end of the first step to the end of the last, with all that
`train.py` does between: the test after each epoch, and the checkpoint.

The bare server has no gateway, no token, no TLS and no check that it is ready: whoever reaches the node may ask it. Its
time ends with the first prediction it answers to one who asks twenty times a second. The first prediction after ready
is asked of two kinds of servers: by one `deephpc.serve.Client` in a process of its own, which connects and reads what
the module takes when it is opened (told beside), and by a `deephpc predict` among others, each of which starts Python,
connects and reads anew. The model takes 2 ms: what is left between the first prediction and those right after it is
what any prediction pays that follows a pause.
"""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
